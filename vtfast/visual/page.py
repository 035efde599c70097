"""A white page with text, pictures and colour scales, drawn with Pillow."""

from bisect import bisect_right
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from vtfast.data.encode import pixel_bytes
from vtfast.visual.colours import viridis

if TYPE_CHECKING:
    import PIL.Image

__all__ = ["Page", "require_pillow"]

INK, FAINT = (20, 20, 20), (95, 95, 95)


class Page:
    """Drawn on from its upper left corner, in pixels.

    Args:
        width: of the page.
        height: of the page.

    Raises:
        ImportError: see `require_pillow`.
    """

    def __init__(self, width: int, height: int) -> None:
        require_pillow()
        from PIL import Image, ImageDraw, ImageFont

        self._font = {size: ImageFont.load_default(size) for size in (13, 16, 20)}
        self.image: PIL.Image.Image = Image.new("RGB", (width, height), "white")
        self._draw = ImageDraw.Draw(self.image)

    def text(
        self,
        place: tuple[int, int],
        text: str,
        *,
        size: int = 16,
        width: int,
        lines: int = 1,
        align: str = "left",
        colour: tuple[int, int, int] = INK,
    ) -> int:
        """Writes into `width` pixels and at most `lines` lines, cut with dots if it is longer.

        Args:
            place: upper left corner.
            text: what to write; the font has ASCII only, anything else becomes a question mark.
            size: of the font, 13, 16 or 20.
            width: of a line.
            lines: how many there may be.
            align: "left", "centre" or "right" in the width.
            colour: of the letters.

        Returns:
            Where the next line would begin.
        """
        font, y = self._font[size], place[1]
        shift, anchor = {"left": (0, "la"), "centre": (width // 2, "ma"), "right": (width, "ra")}[align]
        for line in _wrapped(text.encode("ascii", "replace").decode(), font, width, lines):
            self._draw.text((place[0] + shift, y), line, font=font, fill=colour, anchor=anchor)
            y += round(1.3 * size)
        return y

    def picture(
        self,
        place: tuple[int, int],
        pixels: Tensor,  # [H, W, 3], uint8
        size: tuple[int, int],
    ) -> None:
        """Puts an image, stretched to `size` (width, height), with its upper left corner at `place`."""
        from PIL import Image

        image = Image.frombytes("RGB", (pixels.shape[1], pixels.shape[0]), pixel_bytes(pixels))
        self.image.paste(image.resize(size, Image.Resampling.BICUBIC), place)

    def scale(self, place: tuple[int, int], size: tuple[int, int]) -> None:
        """A bar of all colours of `viridis`, the brightest on the right, or on top if it is taller than wide."""
        width, height = size
        colours = (viridis(torch.linspace(0, 1, max(size))) * 255).round().to(torch.uint8)  # [N, 3]
        self.picture(place, colours[None] if width >= height else colours.flip(0)[:, None], size)


def require_pillow() -> None:
    """Checks that pages can be drawn.

    Raises:
        ImportError: Pillow is not installed, too old, or without the library that draws letters.
    """
    try:
        from PIL import ImageFont

        ImageFont.load_default(16)  # before Pillow 10.1 there is only one size
    except (ImportError, TypeError) as error:
        raise ImportError("pictures need Pillow 10.1 or newer: pip install 'vtfast[video]'") from error


def _wrapped(text: str, font: Any, width: int, lines: int) -> list[str]:
    """`text` broken between words; what does not fit into the last line is cut."""
    rows, words = [""], text.split()
    for number, word in enumerate(words):
        longer = f"{rows[-1]} {word}".strip()
        if not rows[-1] or font.getlength(longer) <= width:
            rows[-1] = longer
        elif len(rows) < lines:
            rows.append(word)
        else:
            rows[-1] = " ".join([rows[-1], *words[number:]])
            break
    return [_cut(row, font, width) for row in rows]


def _cut(text: str, font: Any, width: int) -> str:
    if font.getlength(text) <= width:
        return text
    kept = bisect_right(range(len(text)), width, key=lambda length: font.getlength(f"{text[:length]}..."))
    return f"{text[: max(kept - 1, 0)]}..."

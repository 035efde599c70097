import pytest
import torch
from torch import Tensor

from vtfast.data.encode import pixel_bytes
from vtfast.visual import Panel, Scale, film, strip
from vtfast.visual.page import Page

# One colour a panel (red) and a frame (green).
COLOURS = [[(200 - 20 * panel, 40 * frame, 10) for frame in range(3)] for panel in range(2)]
LONG = "a title that is longer than any picture " * 20


def some_panels(height: int = 24, width: int = 32) -> list[Panel]:
    images = torch.tensor(COLOURS, dtype=torch.uint8)[:, :, None, None].expand(-1, -1, height, width, -1)
    return [Panel("frames", LONG, images[0]), Panel("cls", LONG, images[1], Scale(0.5, 123.4))]


def pixels(page: object) -> Tensor:  # [H, W, 3]
    return torch.frombuffer(bytearray(page.tobytes()), dtype=torch.uint8).view(page.height, page.width, 3)


def box(picture: Tensor, colour: tuple[int, int, int]) -> tuple[int, int, int, int]:
    """Left, top, width and height of what has a colour."""
    y, x = (picture == torch.tensor(colour)).all(dim=-1).nonzero().T
    left, top, right, bottom = int(x.min()), int(y.min()), int(x.max()) + 1, int(y.max()) + 1
    assert len(x) == (right - left) * (bottom - top)  # nothing is drawn over it
    return left, top, right - left, bottom - top


def test_a_strip_has_a_row_for_each_panel_and_a_column_for_each_frame() -> None:
    picture = pixels(strip(some_panels(), [("frame 1", "0.04 s")] * 3, title=LONG, note=LONG))
    boxes = [[box(picture, colour) for colour in row] for row in COLOURS]
    for row in boxes:
        assert [place[1:] for place in row] == [row[0][1:]] * 3
        assert row[0][2:] == (192, 144)  # of the shape of the frames
        assert row[0][0] + 192 < row[1][0] < row[1][0] + 192 < row[2][0]
    assert [place[0] for place in boxes[0]] == [place[0] for place in boxes[1]]
    assert boxes[0][0][1] + 144 < boxes[1][0][1]


def test_a_film_has_the_panels_of_each_frame_next_to_each_other() -> None:
    pictures = film(some_panels(), ["frame 1", "frame 2", "frame 3"], title=LONG, note=LONG)
    assert pictures.dtype == torch.uint8
    for frame, picture in enumerate(pictures):
        left, right = (box(picture, COLOURS[panel][frame]) for panel in range(2))
        assert left[1:] == right[1:]
        assert left[2:] == (288, 216)
        assert left[0] + 288 < right[0]


@pytest.mark.parametrize("kind", ["strip", "film"])
def test_no_text_runs_over_the_edge(kind: str) -> None:
    if kind == "strip":
        picture = pixels(strip(some_panels(), [(LONG, LONG)] * 3, title=LONG, note=LONG))
    else:
        picture = film(some_panels(), [LONG] * 3, title=LONG, note=LONG)[0]
    margin = 12
    for edge in (picture[:margin], picture[-margin:], picture[:, :margin], picture[:, -margin:]):
        assert (edge == 255).all()


def test_scales_are_dark_at_the_low_end() -> None:
    page = Page(60, 40)
    page.scale((0, 0), (40, 10))
    page.scale((50, 0), (10, 40))
    lightness = pixels(page.image).float().sum(dim=-1)
    assert lightness[5, 1] < lightness[5, 20] < lightness[5, 38]
    assert lightness[1, 55] > lightness[20, 55] > lightness[38, 55]


def test_a_text_is_wrapped_and_what_is_too_much_is_cut() -> None:
    def height(text: str, lines: int) -> int:
        page = Page(200, 200)
        below = page.text((10, 10), text, width=100, lines=lines)
        dark = (pixels(page.image) < 128).any(dim=-1).nonzero()
        assert dark[:, 0].max() < below
        assert dark[:, 1].max() < 110
        return below - 10

    one = height("short", 3)
    assert height("more than one line has", 3) == 2 * one
    assert height(LONG, 2) == 2 * one
    assert height("unbreakable" * 30, 3) == one


def test_letters_beyond_ascii_are_shown_as_question_marks() -> None:
    pages = [Page(200, 30), Page(200, 30)]
    for page, text in zip(pages, ("Vélo", "V?lo"), strict=True):
        page.text((5, 5), text, width=190)
    assert pages[0].image.tobytes() == pages[1].image.tobytes()


def test_pixels_of_a_view_are_its_own() -> None:
    image = torch.arange(24, dtype=torch.uint8).view(2, 4, 3)
    assert pixel_bytes(image[:, 1:3]) == bytes([*range(3, 9), *range(15, 21)])

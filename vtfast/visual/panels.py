"""Frames and maps next to each other, with titles and scales: a strip to print, pictures to play one after another."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from vtfast.visual.overlay import Scale
from vtfast.visual.page import FAINT, Page

if TYPE_CHECKING:
    from PIL.Image import Image

__all__ = ["Panel", "film", "strip"]

_GAP, _MARGIN, _BAR = 6, 16, 14


@dataclass(frozen=True)
class Panel:
    """A sequence of pictures, one a frame.

    Args:
        title: one or two words.
        note: what it shows, a short sentence.
        images: uint8 RGB.
        scale: what the colours mean, None for plain frames.
    """

    title: str
    note: str
    images: Tensor  # [T, H, W, 3]
    scale: Scale | None = None


def strip(panels: Sequence[Panel], labels: Sequence[tuple[str, str]], *, title: str, note: str) -> "Image":
    """One row a panel, one column a frame.

    Args:
        panels: rows from top to bottom.
        labels: two lines above each column.
        title: above everything.
        note: the line below it.

    Raises:
        ImportError: Pillow is not installed.
    """
    cell, text_width, number_width = _cell(panels[0], 192), 190, 64
    step_x, step_y = cell[0] + _GAP, cell[1] + 2 * _GAP
    left, top = _MARGIN + text_width + _MARGIN, _MARGIN + 96
    right = left + len(labels) * step_x
    page = Page(right + _BAR + _GAP + number_width + _MARGIN, top + len(panels) * step_y + _MARGIN)
    y = page.text((_MARGIN, _MARGIN), title, size=20, width=page.image.width - 2 * _MARGIN)
    page.text((_MARGIN, y), note, size=13, width=page.image.width - 2 * _MARGIN, colour=FAINT)
    for column, (first, second) in enumerate(labels):
        y = page.text((left + column * step_x, top - 40), first, size=13, width=cell[0], align="centre")
        page.text((left + column * step_x, y), second, size=13, width=cell[0], align="centre", colour=FAINT)
    for row, panel in enumerate(panels):
        y = top + row * step_y
        below = page.text((_MARGIN, y), panel.title, width=text_width)
        page.text((_MARGIN, below + 2), panel.note, size=13, width=text_width, lines=8, colour=FAINT)
        for column in range(len(labels)):
            page.picture((left + column * step_x, y), panel.images[column], cell)
        if panel.scale is not None:
            page.scale((right, y), (_BAR, cell[1]))
            numbers = right + _BAR + _GAP
            page.text((numbers, y), _times(panel.scale.high), size=13, width=number_width)
            page.text((numbers, y + cell[1] - 16), _times(panel.scale.low), size=13, width=number_width)
    return page.image


def film(panels: Sequence[Panel], labels: Sequence[str], *, title: str, note: str) -> Tensor:  # [T, H, W, 3]
    """The panels from left to right, one picture a frame.

    Args:
        panels: columns from left to right.
        labels: a line below each frame.
        title: the line above everything.
        note: the line below each label.

    Returns:
        uint8 RGB pictures.

    Raises:
        ImportError: Pillow is not installed.
    """
    cell, top = _cell(panels[0], 288), _MARGIN + 60
    step = cell[0] + _GAP
    pictures = []
    for number, label in enumerate(labels):
        page = Page(2 * _MARGIN + len(panels) * step - _GAP, top + cell[1] + 58)
        page.text((_MARGIN, _MARGIN), title, width=page.image.width - 2 * _MARGIN)
        below = top + cell[1] + _GAP
        for column, panel in enumerate(panels):
            x = _MARGIN + column * step
            page.text((x, top - 24), panel.title, width=cell[0])
            page.picture((x, top), panel.images[number], cell)
            if panel.scale is None:
                y = page.text((x, below), label, width=cell[0])
                page.text((x, y), note, size=13, width=cell[0], colour=FAINT)
            else:
                page.scale((x, below), (cell[0], _BAR))
                page.text((x, below + _BAR + 2), _times(panel.scale.low), size=13, width=cell[0])
                page.text((x, below + _BAR + 2), _times(panel.scale.high), size=13, width=cell[0], align="right")
        pixels = torch.frombuffer(bytearray(page.image.tobytes()), dtype=torch.uint8)
        pictures.append(pixels.view(page.image.height, page.image.width, 3))
    return torch.stack(pictures)


def _cell(panel: Panel, width: int) -> tuple[int, int]:
    """Width and height of its pictures on the page."""
    return width, round(width * panel.images.shape[1] / panel.images.shape[2])


def _times(value: float) -> str:
    """A multiple of an even share."""
    return f"{value:.2f} x" if value < 100 else f"{value:.0f} x"

"""Grids of pictures: every sample is enlarged by a whole number, with a gap to its neighbour and words below it.

All sizes are pixels of the screen, and two dots of a file each.
"""

import textwrap
from collections.abc import Sequence
from itertools import accumulate
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties
from matplotlib.textpath import TextToPath
from torch import Tensor

from distill_lib.report.style import SCREEN, whole_figure

GAP = 2
"""Between the samples of a cell, in pixels of a sample, so that it is enlarged with them."""
_ROW_GAP, _CELL_GAP, _MARGIN, _WIDE, _LARGEST = 6, 12, 8, 900, 128  # the last two: of all samples of a row, and of one
_TITLE, _WORDS, _UNDER = 10.0, 9.0, 6.5  # points
_LEADING = 1.3  # line height by font size


def grid(
    images: Sequence[Sequence[Tensor]],
    rows: Sequence[str],
    columns: Sequence[str],
    title: str,
    under: Sequence[str] = (),
) -> Figure:
    """Pictures uint8 (3, R, R) in a labelled grid; an inner tensor (n, 3, R, R) is shown as n pictures side by side.

    Args:
        images: a cell for each row and column.
        rows, columns: their labels.
        title: of the whole.
        under: words below each picture of the last row, from the left; none if empty.

    Raises:
        ValueError: there are words, but not one for each picture of a row.
    """
    counts = [1 if cell.ndim == 3 else len(cell) for cell in images[0]]
    side = images[0][0].shape[-1]
    if under and len(under) != sum(counts):
        raise ValueError(f"{len(under)} words for {sum(counts)} pictures in a row: give one for each, or none")
    scale = enlargement(side, counts)
    widths = [scale * (count * (side + GAP) - GAP) for count in counts]
    left = max(map(_width, rows)) + 2 * _MARGIN
    starts = [left] + [left + start for start in list(accumulate(width + _CELL_GAP for width in widths))[:-1]]
    wrapped = [textwrap.fill(words, max(6, scale * side // 5)) for words in under]
    top = 2 * _MARGIN + _line(_TITLE) + (_line(_WORDS) + 4) * any(columns)
    bottom = _MARGIN + max((words.count("\n") + 1 for words in wrapped), default=0) * _line(_UNDER)
    width = max(starts[-1] + widths[-1] + _MARGIN, _width(title, _TITLE) + 2 * _MARGIN)
    pitch = scale * side + _ROW_GAP
    height = top + len(images) * pitch - _ROW_GAP + bottom
    figure = whole_figure(width / SCREEN, height / SCREEN, _alt(title, rows, columns))
    figure.text(0.5, 1 - _MARGIN / height, title, ha="center", va="top", fontsize=_TITLE)
    for i, line in enumerate(images):
        y = top + i * pitch
        for j, cell in enumerate(line):
            box = (starts[j] / width, 1 - (y + scale * side) / height, widths[j] / width, scale * side / height)
            ax = figure.add_axes(box)
            ax.set_axis_off()
            ax.imshow(strip(cell), interpolation="nearest", aspect="auto")
            if j == 0:
                _words(ax, (0, 0.5), (-_MARGIN, 0), rows[i], ha="right", va="center")
            if i == 0 and columns[j]:
                _words(ax, (0.5, 1), (0, 4), columns[j], ha="center", va="bottom")
    places = [
        x + k * scale * (side + GAP) + scale * side / 2 for x, n in zip(starts, counts, strict=True) for k in range(n)
    ]
    for x, words in zip(places, wrapped, strict=False):
        below = 1 - (top + len(images) * pitch - _ROW_GAP + 3) / height
        figure.text(x / width, below, words, ha="center", va="top", fontsize=_UNDER, linespacing=_LEADING - 0.2)
    return figure


def enlargement(side: int, counts: Sequence[int]) -> int:
    """The greatest whole number by which samples of `side` pixels can be enlarged to fit into a row; at least 1."""
    across = sum(count * (side + GAP) - GAP for count in counts)
    room = _WIDE - _CELL_GAP * (len(counts) - 1)
    return max(1, min(room // across, _LARGEST // side))


def strip(cell: Tensor) -> np.ndarray:
    """One picture (3, R, R), or n of them side by side with white gaps, as (R, n (R + GAP) - GAP, 3)."""
    if cell.ndim == 3:
        return np.asarray(cell).transpose(1, 2, 0)
    pictures = np.asarray(cell).transpose(0, 2, 3, 1)
    apart = np.pad(pictures, ((0, 0), (0, 0), (0, GAP), (0, 0)), constant_values=255)
    return np.concatenate(list(apart), 1)[:, :-GAP]


def _words(ax: Any, place: tuple[float, float], offset: tuple[float, float], words: str, **options: Any) -> None:
    moved = [pixels * 72 / SCREEN for pixels in offset]
    ax.annotate(
        words, place, moved, "axes fraction", "offset points", fontsize=_WORDS, annotation_clip=False, **options
    )


def _width(words: str, points: float = _WORDS) -> int:
    """Pixels of the longest line."""
    font = FontProperties(size=points)
    lines = [TextToPath().get_text_width_height_descent(line, font, "$" in line)[0] for line in words.split("\n")]
    return round(max(lines) * SCREEN / 72)


def _line(points: float) -> int:
    return round(points * _LEADING * SCREEN / 72)


def _alt(title: str, rows: Sequence[str], columns: Sequence[str]) -> str:
    across = f"; columns: {', '.join(columns)}" if any(columns) else ""
    return f"Pictures: {title}. Rows: {', '.join(rows)}{across}." if any(rows) else f"Pictures: {title}."

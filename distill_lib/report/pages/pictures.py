"""The pictures of README: rows cut out of committed figures, and all verdicts as two bars.

The SVG of a figure holds each row of samples as one picture, enlarged by the nearest pixel, and after it the label of
the row. Taken in the middle of each pixel it gives back the samples as they were drawn; they are enlarged again by a
whole number, so that all pixels have one size.
"""

import base64
import html
import io
import re
from dataclasses import dataclass
from pathlib import Path

import matplotlib as mpl
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from distill_lib.paths import COMMITTED
from distill_lib.report.evidence import EDITIONS, VERDICTS
from distill_lib.report.grids import GAP
from distill_lib.report.pages.claims import read_claims, verdict_counts

_ROW = re.compile(r'<image xlink:href="data:image/png;base64,([^"]*)".*?<!-- (.*?) -->', re.DOTALL)
_COUNT = 6  # samples of a row, the first ones
_SIDE, _GAP, _LABELS, _FONT = 128, 6, 220, 25  # pixels: of a sample, between samples, for labels, of letters


@dataclass(frozen=True)
class Crop:
    """Rows of a committed figure.

    Args:
        artefact: the figure.
        side: pixels of a sample as it was drawn; divides _SIDE.
        rows: labels in the figure, and what stands beside the row instead.
    """

    artefact: str
    side: int
    rows: dict[str, str]


CROPS = {
    "transfer.png": Crop(
        "g-fig12",
        32,
        {
            "photo": "photo",
            "DDIM, 4": "DDIM,\n4 evaluations",
            "ours, 4": "distilled,\n4 evaluations",
            "teacher, 256": "teacher,\n256 evaluations",
        },
    ),
    "one-step.png": Crop(
        "s-fig3",
        64,
        {
            "small U-Net, one step": "before\ndistillation",
            "after the warm-up": "after feature\nmatching",
            "after both": "after score\ndistillation",
            "teacher": "teacher,\nmany steps",
        },
    ),
}


def _middles(count: int, size: int) -> np.ndarray:
    """Where the middles of `count` enlarged pixels lie among `size`."""
    return ((np.arange(count) + 0.5) * size / count).astype(int)


def samples_of(svg: str, side: int) -> dict[str, np.ndarray]:
    """The rows of a figure by label, samples uint8 (n, side, side, 3).

    Args:
        svg: the figure's text.
        side: pixels of a sample as it was drawn.
    """
    rows = {}
    for data, label in _ROW.findall(svg):
        # an SVG of matplotlib holds pictures upside down
        strip = np.asarray(Image.open(io.BytesIO(base64.b64decode(data))).convert("RGB"))[::-1]
        height, width = strip.shape[:2]
        count, gap = _row(width / height * side, side)
        down, across = _middles(side, height), _middles(count * (side + gap) - gap, width)
        native = np.pad(strip[down][:, across], ((0, 0), (0, gap), (0, 0)))
        rows[html.unescape(label)] = native.reshape(side, count, side + gap, 3)[:, :, :side].swapaxes(0, 1)
    return rows


def _row(width: float, side: int) -> tuple[int, int]:
    """How many samples a row of so many pixels holds, and the gap between them: none in figures of before `grids`."""
    count = (width + GAP) / (side + GAP)
    return (round(count), GAP) if abs(count - round(count)) < 0.5 / side else (round(width / side), 0)


def cut(crop: Crop, figures: Path) -> Image.Image:
    """The first samples of the rows of a crop, with their labels.

    Raises:
        ValueError: the figure is not there, or has no such row.
    """
    path = figures / COMMITTED / f"{crop.artefact}.svg"
    if not path.exists():
        raise ValueError(f"{path} is missing: draw it, or take its rows out of report/pages/pictures.py")
    rows = samples_of(path.read_text(), crop.side)
    if missing := [label for label in crop.rows if label not in rows]:
        raise ValueError(
            f"{path} has no row {missing[0]!r} but {', '.join(map(repr, rows))}: name the rows of today in "
            "report/pages/pictures.py"
        )
    pitch = _SIDE + _GAP
    canvas = Image.new("RGB", (_LABELS + _COUNT * pitch - _GAP, len(crop.rows) * pitch - _GAP), "white")
    draw = ImageDraw.Draw(canvas)
    font = ImageFont.truetype(Path(mpl.get_data_path()) / "fonts/ttf/DejaVuSans.ttf", _FONT)
    for i, (label, words) in enumerate(crop.rows.items()):
        place = (_LABELS - 2 * _GAP, i * pitch + _SIDE // 2)
        draw.multiline_text(place, words, "black", font, anchor="rm", align="right")
        for j, sample in enumerate(rows[label][:_COUNT]):
            enlarged = Image.fromarray(sample).resize((_SIDE, _SIDE), Image.Resampling.NEAREST)
            canvas.paste(enlarged, (_LABELS + j * pitch, i * pitch))
    return canvas


def png(crop: Crop, figures: Path) -> bytes:
    """`cut` as a file."""
    file = io.BytesIO()
    cut(crop, figures).save(file, "png", optimize=True)
    return file.getvalue()


# --- verdicts

_WIDTH, _BAR, _LEFT, _LEGEND = 760, 26, 120, 150  # pixels: of the picture, of a bar, for names, of a legend's entry
_HATCH = (
    '<pattern id="{name}" width="7" height="7" patternUnits="userSpaceOnUse" patternTransform="rotate(45)">'
    '<path d="M0 0V7{more}" stroke="#555" stroke-width="1.4"/></pattern>'
)


def _fill(word: str) -> str:
    color, hatch = VERDICTS[word]
    return {"": color, "///": "url(#stripes)", "xxx": "url(#crosses)"}[hatch]


def _box(x: float, y: float, width: float, height: float, word: str) -> str:
    size = f'x="{x:.1f}" y="{y:.1f}" width="{width:.1f}" height="{height}"'
    return f'<rect {size} fill="#fff"/><rect {size} fill="{_fill(word)}" stroke="#333"/>'


def verdict_bars(figures: Path) -> str:
    """All claims as an SVG: a bar for each edition, a piece for each verdict with its number."""
    counts, lines = verdict_counts(read_claims(figures)), []
    judged = [word for word in VERDICTS if any(of_edition[word] for of_edition in counts.values())]
    scale = (_WIDTH - _LEFT - 8) / max(sum(of_edition.values()) for of_edition in counts.values() or [{"": 1}])
    for row, edition in enumerate(EDITIONS):
        x, y = float(_LEFT), 8 + row * (_BAR + 8)
        lines.append(f'<text x="{_LEFT - 8}" y="{y + 18}" text-anchor="end">{edition}</text>')
        for word in judged:
            if not (count := counts[edition][word]):
                continue
            width = count * scale
            lines.append(_box(x, y, width, _BAR, word))
            middle, dark = x + width / 2, word in ("supported", "contradicted")
            if VERDICTS[word][1]:  # letters on a hatch need a ground
                wide = 8 * len(str(count)) + 3
                lines.append(f'<rect x="{middle - wide / 2:.1f}" y="{y + 4}" width="{wide}" height="18" fill="#fff"/>')
            color = "#fff" if dark else "#000"
            lines.append(f'<text x="{middle:.1f}" y="{y + 18}" text-anchor="middle" fill="{color}">{count}</text>')
            x += width
    bottom = 8 + len(EDITIONS) * (_BAR + 8) + 6
    for place, word in enumerate(judged):
        x, y = _LEFT + place % 4 * _LEGEND, bottom + place // 4 * 22
        lines += [_box(x, y, 18, 12, word), f'<text x="{x + 24}" y="{y + 11}">{word}</text>']
    height = bottom + (len(judged) + 3) // 4 * 22 + 4
    hatches = _HATCH.format(name="stripes", more="") + _HATCH.format(name="crosses", more="M0 0H7")
    head = f'<svg xmlns="http://www.w3.org/2000/svg" width="{_WIDTH}" height="{height}" viewBox="0 0 {_WIDTH} {height}"'
    return "\n".join(
        [
            f'{head} font-family="sans-serif" font-size="13">',
            f'<defs>{hatches}</defs><rect width="{_WIDTH}" height="{height}" fill="#fff"/>',
            *lines,
            "</svg>\n",
        ]
    )

"""One style for all figures: what `labels.yaml` says of methods and metrics, bands over seeds, one legend a figure."""

import io
import math
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullFormatter
from matplotlib.transforms import Bbox

from distill_lib.measure.rows import Row
from distill_lib.profiles.reading import read_yaml

_LOOKS = read_yaml(Path(__file__).parent / "labels.yaml")
_METHODS: dict[str, dict[str, str]] = _LOOKS["methods"]
LABELS: dict[str, str] = _LOOKS["labels"] | {name: look["label"] for name, look in _METHODS.items() if "label" in look}
COLORS, MARKERS, LEVELS = (
    {name: look[field] for name, look in _METHODS.items() if field in look} for field in ("color", "marker", "level")
)
BETTER: dict[str, str] = {metric: words for words, metrics in _LOOKS["better"].items() for metric in metrics}
"""What a sentence says of a metric's direction."""
PALETTE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#777777")
"""Colours of what has none of its own."""
_TICKS = {
    0.5: (1, 1.2, 1.5, 2, 2.5, 3, 4, 5, 6, 7, 8),
    0.8: (1, 1.5, 2, 3, 5, 7),
    2.5: (1, 2, 5),
    math.inf: (1,),
}
"""Numbers at a logarithmic axis, within a decade, by the most decades that it has."""
SCREEN = 100
"""Dots per inch of a figure in a notebook."""
_STYLE = {
    "figure.dpi": SCREEN,
    "savefig.dpi": 150,
    "savefig.bbox": "tight",
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.alpha": 0.25,
    "legend.frameon": False,
    "svg.hashsalt": "distill_lib",
}

mpl.rcdefaults()  # whatever the matplotlibrc of the user says

mpl.rcParams.update(_STYLE)


class _Displayed(Figure):
    """A Figure that a notebook shows without pyplot and its global state; `alt`, where given, is its text for HTML.

    `whole`: nothing around it is cut away, and files have twice the dots of the screen, so that pictures that cover
    whole pixels of the screen do so in files.
    """

    alt, whole = "", False

    def savefig(self, *arguments: Any, **options: Any) -> None:
        """As of a Figure."""
        if self.whole:
            options = {"bbox_inches": Bbox.from_bounds(0, 0, *self.get_size_inches()), "dpi": 2 * SCREEN} | options
        super().savefig(*arguments, **options)

    def _repr_png_(self) -> bytes | tuple[bytes, dict[str, str]]:
        buffer = io.BytesIO()
        self.savefig(buffer, format="png", dpi=SCREEN)
        return (buffer.getvalue(), {"alt": self.alt}) if self.alt else buffer.getvalue()


def label(name: Any) -> Any:
    """How a method, metric or column is called in figures and tables; a number stays one."""
    return LABELS.get(name, name)


def wrapped(name: Any) -> str:
    """A label in lines that an axis of a panel is long enough for."""
    return textwrap.fill(str(label(name)), 26)


def new_axes(width: float, height: float, rows: int = 1, columns: int = 1, **kwargs: Any) -> tuple[Figure, np.ndarray]:
    """A figure of so many inches and its axes, (rows, columns)."""
    figure = _Displayed(figsize=(width, height), layout="constrained")
    return figure, figure.subplots(rows, columns, squeeze=False, **kwargs)


def whole_figure(width: float, height: float, alt: str) -> Figure:
    """An empty figure of so many inches, of which nothing is cut away, and the words that stand for it."""
    figure = _Displayed(figsize=(width, height))
    figure.alt, figure.whole = alt, True
    return figure


def blank(width: float, height: float, alt: str) -> tuple[Figure, Axes]:
    """A figure of so many inches that one empty sheet fills, and the words that stand for it."""
    figure = _Displayed(figsize=(width, height))
    figure.alt = alt
    ax = figure.add_axes((0, 0, 1, 1))
    ax.set_axis_off()
    return figure, ax


def mean_and_range(rows: list[Row], x: str) -> tuple[list[float], list[float], list[float], list[float]]:
    """The values of column x in order, and at each the mean, lowest and highest value over seeds."""
    places = sorted({row[x] for row in rows})
    groups = [[row["value"] for row in rows if row[x] == place] for place in places]
    return places, [sum(g) / len(g) for g in groups], [min(g) for g in groups], [max(g) for g in groups]


def draw_band(
    ax: Axes, rows: list[Row], x: str, color: Any, at: Callable[[float], float] = lambda place: place, **line: Any
) -> None:
    """The mean over seeds against column x as a line, and their range as a band; `at` places a value of x."""
    places, mean, low, high = mean_and_range(rows, x)
    where = [at(place) for place in places]
    ax.plot(where, mean, color=color, **line)
    ax.fill_between(where, low, high, color=color, alpha=0.2, lw=0)


def logarithmic(ax: Axes, *axes: str) -> None:
    """Logarithmic axes, `x` or `y`, with plain numbers: 1, 2, 5, 10 and so on over few decades, powers of 10 over many.

    Call it when everything is drawn: the number of decades is that of the data.
    """
    for name in axes:
        axis = ax.xaxis if name == "x" else ax.yaxis
        ax.set(**{f"{name}scale": "log"})
        low, high = axis.get_view_interval()
        decades = math.log10(high / low)
        subs = next(subs for limit, subs in _TICKS.items() if decades < limit)
        axis.set_major_locator(LogLocator(subs=subs, numticks=12))
        axis.set_major_formatter(_plain)
        axis.set_minor_formatter(NullFormatter())


def _plain(value: float, _: int) -> str:
    """A number as a reader writes it: 20, 0.05, 1e-6."""
    text = f"{value:g}" if value < 1e6 else f"{value:.0e}"
    return text.replace("e+0", "e").replace("e-0", "e-")


def legend_below(figure: Figure, columns: int, **more: Any) -> None:
    """One legend of all axes, each label once."""
    entries: dict[str, Any] = {}
    for ax in figure.axes:
        handles, labels = ax.get_legend_handles_labels()
        entries |= dict(zip(labels, handles, strict=True))
    figure.legend(entries.values(), entries.keys(), loc="outside lower center", ncols=columns, **more)

"""Parts of diagrams in one style: boxes, arrows and words on a sheet, whose units are tenths of an inch.

What a box is shows in its colour and its edge, so that it survives print without colours:

    frozen      grey, plain edge          a network that no update changes
    trained     blue, thick edge          a network that is updated
    data        white, round corners      noise, states, pictures, losses
    removed     white, dotted edge        what a cut takes away

and so does an arrow: a line carries data, a dashed one a gradient, a dotted one a comparison; a grey and a thick blue
one are steps of a frozen and of a trained network.
"""

from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch, Patch

from distill_lib.report.style import PALETTE, blank

WIDTH = 75.0
"""Of every sheet: 7.5 inches."""
FONT = 10.5
"""Points; 9.1 where a sheet is printed 6.5 inches wide."""
_BLUE, _RED = PALETTE[0], PALETTE[1]
_KINDS: dict[str, dict[str, Any]] = {
    "frozen": {"fc": "#e6e6e6", "ec": "#777777", "lw": 1.0},
    "trained": {"fc": "#d3e5f3", "ec": _BLUE, "lw": 2.0},
    "data": {"fc": "white", "ec": "#444444", "lw": 0.8},
    "removed": {"fc": "white", "ec": "#777777", "lw": 1.0, "ls": ":"},
}
_ARROWS: dict[str, dict[str, Any]] = {
    "data": {"color": "#222222", "lw": 1.1, "ls": "-"},
    "gradient": {"color": _RED, "lw": 1.6, "ls": (0, (4, 2))},
    "comparison": {"color": PALETTE[2], "lw": 1.8, "ls": (0, (1, 1.2))},
    "frozen": {"color": "#777777", "lw": 1.6, "ls": "-"},
    "trained": {"color": _BLUE, "lw": 2.2, "ls": "-"},
}
_NAMES = {"frozen": "frozen", "trained": "trained", "data": "data", "removed": "removed"}
_NAMES |= {"gradient": "gradient", "comparison": "compared"}
Point = tuple[float, float]


@dataclass(frozen=True)
class Box:
    """A box by its centre and size."""

    x: float
    y: float
    w: float
    h: float

    def at(self, side: str, share: float = 0.5) -> Point:
        """A point of its edge: `left`, `right`, `top` or `bottom`, a share of the way along it from left or bottom."""
        x, y = self.x + (share - 0.5) * self.w, self.y + (share - 0.5) * self.h
        sides = {"left": (self.x - self.w / 2, y), "right": (self.x + self.w / 2, y)}
        return (sides | {"top": (x, self.y + self.h / 2), "bottom": (x, self.y - self.h / 2)})[side]


@dataclass
class Sheet:
    """An empty sheet of a height; `alt` says in words what it shows, for readers who do not see it.

    Its parts are drawn one after the other; `figure` is the result.
    """

    height: float
    title: str
    alt: str
    figure: Figure = field(init=False)
    ax: Axes = field(init=False)

    def __post_init__(self) -> None:
        self.figure, self.ax = blank(WIDTH / 10, self.height / 10, self.alt)
        self.ax.set(xlim=(0, WIDTH), ylim=(0, self.height))
        self.ax.text(WIDTH / 2, self.height - 1.5, self.title, ha="center", va="center", fontsize=FONT + 1)

    def box(self, x: float, y: float, w: float, h: float, text: str = "", kind: str = "frozen", **font: Any) -> Box:
        """A box round its centre (x, y) with words in it."""
        corners = "round,pad=0,rounding_size=1.2" if kind == "data" else "square,pad=0"
        place = (x - w / 2, y - h / 2)
        self.ax.add_patch(FancyBboxPatch(place, w, h, boxstyle=corners, zorder=2, **_KINDS[kind]))
        if text:
            self.words(x, y, text, **font)
        return Box(x, y, w, h)

    def words(self, x: float, y: float, text: str, **font: Any) -> None:
        """Words round (x, y)."""
        options = {"ha": "center", "va": "center", "fontsize": FONT, "linespacing": 1.15, "zorder": 4}
        self.ax.text(x, y, text, **options | font)

    def arrow(
        self, *points: Point, kind: str = "data", bend: float = 0.0, head: bool = True, thin: bool = False
    ) -> None:
        """An arrow through points; of two points it may bend."""
        look = _ARROWS[kind] | ({"color": "#bbbbbb", "lw": 0.8} if thin else {})
        for start, end in pairwise(points[:-1]):
            self.ax.plot(*zip(start, end, strict=True), zorder=3, solid_capstyle="round", **look)
        tip = {"arrowstyle": "-|>,head_width=3,head_length=6" if head else "-", "shrinkA": 0, "shrinkB": 0}
        tip |= {"mutation_scale": 1, "connectionstyle": f"arc3,rad={bend}"}
        self.ax.add_patch(FancyArrowPatch(points[-2], points[-1], zorder=3, **tip, **look))

    def key(self, *kinds: str, y: float = 1.6, **names: str) -> None:
        """What the colours and lines of this sheet mean, along the bottom; `names` says more than the usual word."""
        handles = [
            Patch(**_KINDS[kind]) if kind in _KINDS and kind != "data" else Line2D([], [], **_ARROWS[kind])
            for kind in kinds
        ]
        words = [names.get(kind, _NAMES[kind]) for kind in kinds]
        options = {"loc": "center", "bbox_to_anchor": (WIDTH / 2, y), "bbox_transform": self.ax.transData}
        self.ax.legend(handles, words, ncols=len(kinds), fontsize=FONT, handlelength=2.6, **options)

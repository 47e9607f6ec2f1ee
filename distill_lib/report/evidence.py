"""The page of evidence: verdicts as bars, claims by theme, what rests on what, and what the papers leave unsaid."""

import textwrap
from collections import Counter
from collections.abc import Iterable
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from distill_lib.measure.rows import Row, select
from distill_lib.papers.page import Point, Theme
from distill_lib.report.claims import PAPER_NAMES, UNJUDGED, Entry, numbers_of, reason_of, table
from distill_lib.report.style import legend_below, new_axes

VERDICTS = {
    "supported": ("#08306B", ""),
    "contradicted": ("#D55E00", ""),
    "still learning": ("#E69F00", ""),
    "inconclusive": ("#C6C6C6", ""),
    "not assessable here": ("#FFFFFF", "xxx"),
    UNJUDGED: ("#FFFFFF", "///"),
}
"""Colour and hatch by verdict, from dark to light, so that they are told apart in grey too."""
EDITIONS = ("as first set", "second edition")
_STATES = {
    True: ("holds", VERDICTS["supported"]),
    False: ("fails", VERDICTS["contradicted"]),
    None: ("not known", VERDICTS[UNJUDGED]),
}


# --- verdicts


def verdict_rows(results: list[Entry]) -> list[Row]:
    """How many claims of each paper have each verdict, in either edition; a claim that was split counts once as first
    set."""
    rows = []
    for paper in dict.fromkeys(entry["paper"] for entry in results):
        of_paper = [entry for entry in results if entry["paper"] == paper]
        first = {entry["v1"]["id"]: entry["verdict_v1"] for entry in of_paper}
        for edition, words in zip(EDITIONS, (first.values(), [e["verdict"] for e in of_paper]), strict=True):
            columns = {"method": edition, "paper": paper, "metric": "claims"}
            counts = Counter(word or UNJUDGED for word in words)
            rows += [columns | {"kind": word, "value": count} for word, count in counts.items()]
    return rows


def verdict_bars(rows: list[Row]) -> Figure:
    """A bar an edition of each paper, first beside second, a piece a verdict with the number of its claims."""
    figure, axes = new_axes(7.6, 2.9)
    ax, names, place = axes[0, 0], [], 0.0
    for paper in dict.fromkeys(row["paper"] for row in rows):
        for edition in EDITIONS:
            left = 0
            for word, (color, hatch) in VERDICTS.items():
                count = sum(row["value"] for row in select(rows, paper=paper, method=edition, kind=word))
                if count:
                    look = {"color": color, "hatch": hatch, "ec": "black", "lw": 0.6}
                    ax.barh(place, count, 0.8, left, label=word, **look)
                    _count(ax, left + count / 2, place, count, "white" if word == "supported" else "black")
                left += count
            names.append((place, f"{PAPER_NAMES[paper]}, {edition}"))
            place += 0.95
        place += 0.5
    ax.set_yticks(*zip(*names, strict=True))
    ax.invert_yaxis()
    ax.grid(visible=False)
    ax.set_xlabel("claims")
    legend_below(figure, 3)
    return figure


def _count(ax: Axes, x: float, y: float, count: int, color: str) -> None:
    box = {"facecolor": "white", "edgecolor": "none", "pad": 1} if color == "black" else None
    ax.text(x, y, f"{count:g}", ha="center", va="center", color=color, bbox=box)


# --- claims by theme


def claims_by_theme(results: list[Entry], themes: Iterable[Theme]) -> str:
    """A table a theme: what the paper says, our number beside its limit, and both verdicts with the cause."""
    entries = {entry["id"]: entry for entry in results}
    head = ["claim", "says", "the paper", "ours", "cells passed", EDITIONS[0], "verdict", "cause"]
    texts = []
    for theme in themes:
        texts += [f"### {theme.title}", table(head, [_line(entries[name]) for name in theme.claims])]
    return "\n\n".join(texts) + "\n"


def _line(entry: Entry) -> list[str]:
    latest = entry if entry["verdict"] else entry["v1"]
    return [
        entry["id"],
        entry["sentence"],
        f"{entry['tests']} ({entry['source']}; {entry['confidence']})",
        numbers_of(latest) if latest["verdict"] else "",
        f"{entry['cells_passed']} of {len(entry['cells'])}" if entry["cells"] else "",
        entry["verdict_v1"] or UNJUDGED,
        f"**{entry['verdict']}**" if entry["verdict"] else UNJUDGED,
        reason_of(entry),
    ]


# --- premises

_LINE, _GAP = 0.15, 0.16  # inches: a line of text, and between boxes
_LEFT, _BETWEEN, _RIGHT = 3.4, 0.6, 4.2  # widths of both columns


def premise_graph(results: list[Entry]) -> Figure:
    """Premises at the left, and at the right the claims that rest on them, an arrow to each.

    A premise is a gate, which is measured on the teacher, or another claim. The strip of a box is the colour of its
    verdict.
    """
    resting = [entry for entry in results if entry["premises"]]
    premises = {premise["id"]: premise for entry in resting for premise in entry["premises"]}
    order = list(premises)
    resting.sort(key=lambda entry: min(order.index(premise["id"]) for premise in entry["premises"]))
    right = {entry["id"]: _claim_box(entry) for entry in resting}
    known = {entry["id"]: entry for entry in results}
    left = {x: _claim_box(known[x], 52) if x in known else _premise_box(premise) for x, premise in premises.items()}
    children = {name: [e["id"] for e in resting if name in {p["id"] for p in e["premises"]}] for name in order}
    centres, ends, y = {}, {}, 0.0
    for name in order:  # in the middle of what rests on it
        top = y
        for child in (child for child in children[name] if child not in ends):
            ends[child] = y + _height(right[child]) / 2
            y += _height(right[child]) + _GAP
        y = max(y, top + _height(left[name]) + _GAP)
        centres[name] = (top + y - _GAP) / 2
        y += _GAP / 2
    figure, ax = _canvas(_LEFT + _RIGHT + _BETWEEN, y - _GAP)
    for name, box in left.items():
        _draw_box(ax, 0.0, centres[name], _LEFT, box)
        for child in children[name]:
            tip = {"arrowstyle": "-|>", "color": "#555555", "lw": 0.9}
            ax.annotate("", (_LEFT + _BETWEEN, ends[child]), (_LEFT, centres[name]), arrowprops=tip)
    for name, box in right.items():
        _draw_box(ax, _LEFT + _BETWEEN, ends[name], _RIGHT, box)
    return figure


Box = tuple[str, list[str], tuple[str, str]]
"""Head, lines of text, and the look of the strip."""


def _claim_box(entry: Entry, width: int = 66) -> Box:
    word = entry["verdict"] or UNJUDGED
    first = "" if entry["verdict"] else f" (as first set: {entry['verdict_v1'] or UNJUDGED})"
    return f"{entry['id']}: {word}{first}", textwrap.wrap(entry["sentence"], width), VERDICTS[word]


def _premise_box(premise: dict[str, Any]) -> Box:
    state, look = _STATES[premise["holds"]]
    return f"{premise['id']}: {state}", textwrap.wrap(premise["sentence"], 52), look


def _height(box: Box) -> float:
    return (1 + len(box[1])) * _LINE + 0.1


def _canvas(width: float, height: float) -> tuple[Figure, Axes]:
    """Axes that count in inches, down from the upper left corner."""
    figure, axes = new_axes(width, height)
    figure.set_layout_engine("none")
    ax = axes[0, 0]
    ax.set_position((0, 0, 1, 1))
    ax.set(xlim=(-0.02, width + 0.02), ylim=(height, -0.05))
    ax.axis("off")
    return figure, ax


def _draw_box(ax: Axes, x: float, centre: float, width: float, box: Box) -> None:
    head, lines, (color, hatch) = box
    top, height = centre - _height(box) / 2, _height(box)
    ax.add_patch(Rectangle((x, top), width, height, fc="white", ec="#555555", lw=0.8, zorder=2))
    ax.add_patch(Rectangle((x, top), 0.12, height, fc=color, ec="#555555", lw=0.8, hatch=hatch, zorder=3))
    ax.text(x + 0.18, top + 0.05, head, fontsize=8, fontweight="bold", va="top", zorder=4)
    for number, line in enumerate(lines, 1):
        ax.text(x + 0.18, top + 0.05 + number * _LINE, line, fontsize=8, va="top", zorder=4)


# --- what the papers leave unsaid


def claim_facts(entry: Entry) -> str:
    """All that is known of one claim but for its sentence: cells with their intervals, then the rest, a line each."""
    lines = []
    for cell in entry["cells"]:
        numbers = ["" if cell[key] is None else f"{cell[key]:.3g}" for key in ("effect", "low", "high")]
        lines.append([cell["cell"], *numbers, "yes" if cell["passes"] else "no"])
    facts = {"limits": entry["limits"], "seeds": entry["seeds"] or entry["v1"]["seeds"]}
    facts |= {"note": entry["note"] or entry["v1"]["note"], "why not judged": entry.get("not_judged")}
    facts |= {"smallest effect that these seeds tell": entry["detectable"], "half length": entry["half_length"]}
    facts |= {"rows of a dirty tree": entry["from_dirty_tree"], "shown in": entry["notebook_cell"]}
    known = [[name, str(value)] for name, value in facts.items() if value]
    tables = [table(["cell", "effect", "low", "high", "passes"], lines)] if lines else []
    return "\n\n".join([*tables, table(["of the claim", ""], known)]) + "\n"


def open_points(points: Iterable[Point], head: str) -> str:
    """A table: the point, named `head`, what we do, where that stands, where other choices are measured."""
    lines = [
        [
            f"{PAPER_NAMES[point.paper]}, {point.where}",
            point.point,
            point.ours,
            ", ".join(places_of(point)),
            ", ".join(point.tried),
            ", ".join(point.claims),
        ]
        for point in points
    ]
    return table(["where", head, "what we do", "stands in", "tried in", "claims"], lines) + "\n"


def places_of(point: Point) -> list[str]:
    """Where a point is settled, in words: names of the library, and fields of a recipe or of a profile."""
    code = [f"`{name.removeprefix('distill_lib.')}`" for name in point.code]
    recipes = [f"recipe `{name}`" for name in point.recipes]
    return code + recipes + [f"profile `{name}`" for name in point.settings]

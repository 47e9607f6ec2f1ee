"""Drawing what a picture costs: tables by module, where the time goes, and quality against time.

Form and colours are those of `figures`; a bar shows the mean over seeds, a band or whisker their range.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullFormatter
from torch import Tensor

from distill_lib.measure.costs import BUDGET, MODULES
from distill_lib.measure.rows import Row, select
from distill_lib.report.style import label, logarithmic, mean_and_range, new_axes, wrapped
from distill_lib.report.tables import over_seeds

_COLORS = dict(zip(MODULES, ("#56B4E9", "#0072B2", "#E69F00"), strict=True))
_TEACHER, _STUDENT = "#000000", "#D55E00"
_UNITS = {"params": 1e-6, "seconds": 1e3, "total": 1e3, "share": 1, "total_flops": 1e-9}
Paper = Mapping[tuple[str, str], Mapping[str, float]]
"""(system, module) -> params, latency_ms and nfe, as a paper prints them."""


def _scaled(rows: list[Row], factor: float) -> str:
    """Mean and spread in another unit; a count that is the same for all seeds has no spread."""
    same = len({row["value"] for row in rows}) == 1
    return over_seeds([row | {"value": factor * row["value"]} for row in (rows[:1] if same else rows)])


def _mean(rows: list[Row], **wanted: Any) -> float:
    return float(np.mean([row["value"] for row in select(rows, **wanted)]))


def cost_table(rows: list[Row], paper: Paper | None = None) -> tuple[list[str], list[list[Any]]]:
    """Header and lines of Table 1 or 2: a line a module of each system and one for their sum; beside the paper's.

    Args:
        rows: those of `costs.module_rows` and `costs.summed`.
        paper: its numbers; none are shown unless given.
    """
    header = ["system", "module", "weights (M)", "ms", "evaluations", "total ms", "share", "total GFLOP"]
    header += ["paper: weights (M)", "ms", "total ms", "share"] if paper else []
    lines = []
    for method in dict.fromkeys(row["method"] for row in rows if row.get("kind") in MODULES):
        whole = sum(entry["latency_ms"] * entry["nfe"] for (name, _), entry in (paper or {}).items() if name == method)
        for kind in MODULES:
            measured = {metric: select(rows, method=method, kind=kind, metric=metric) for metric in _UNITS}
            cells = {metric: _scaled(measured[metric], unit) for metric, unit in _UNITS.items()}
            line = [cells["params"], cells["seconds"], measured["seconds"][0]["nfe"], cells["total"], cells["share"]]
            line += [cells["total_flops"]]
            if paper:
                reported = paper[method, kind]
                total = reported["latency_ms"] * reported["nfe"]
                line += [reported["params"] / 1e6, reported["latency_ms"], total, total / whole]
            lines.append([label(method), kind, *line])
        weights, total, flops = (
            _scaled(select(rows, method=method, metric=metric), unit)
            for metric, unit in (("sum_params", 1e-6), ("sum", 1e3), ("sum_flops", 1e-9))
        )
        line = [weights, "", "", total, "", flops, *(["", "", whole, ""] if paper else [])]
        lines.append([label(method), "sum", *line])
    return header, lines


def ratio_table(rows: list[Row], before: str, after: str, paper: Paper | None = None) -> tuple[list[str], list[list]]:
    """Header and lines: how many times less a module costs after than before, in all and an evaluation."""
    header = ["times less", "total seconds", "seconds per evaluation", "operations in all"]
    header += ["paper: total seconds", "seconds per evaluation"] if paper else []
    lines = []
    for kind in MODULES:
        flops = [_mean(rows, method=method, kind=kind, metric="total_flops") for method in (before, after)]
        line = [over_seeds(select(rows, method=after, kind=kind, metric=m)) for m in ("ratio", "seconds_ratio")]
        line.append(flops[0] / flops[1])
        if paper:
            reported = [paper[method, kind] for method in (before, after)]
            each = reported[0]["latency_ms"] / reported[1]["latency_ms"]
            line += [each * reported[0]["nfe"] / reported[1]["nfe"], each]
        lines.append([kind, *line])
    line = [_scaled(select(rows, method=after, metric=m), 1) for m in ("sum_ratio", "", "sum_ratio_flops")]
    if paper:
        sums = [sum(paper[m, kind]["latency_ms"] * paper[m, kind]["nfe"] for kind in MODULES) for m in (before, after)]
        line += [sums[0] / sums[1], ""]
    return header, [*lines, ["sum", *line]]


def kind_table(rows: list[Row]) -> tuple[list[str], list[list[Any]]]:
    """Header and lines of whole pictures: a line a system, step count and way of running it."""
    whole_pictures = [row for row in select(rows, metric="seconds") if row["kind"] not in MODULES]
    lines = []
    for method, kind, steps in dict.fromkeys((row["method"], row["kind"], row["steps"]) for row in whole_pictures):
        selected = select(whole_pictures, method=method, kind=kind, steps=steps)
        times = [select(rows, metric=metric, kind=kind, steps=steps) for metric in ("speedup", "speedup_best")]
        student = method == times[0][0]["method"] if times[0] else True
        cells = ["", ""] if student else [over_seeds(seconds) for seconds in times]
        lines.append([label(method), kind, steps, selected[0]["nfe"], _scaled(selected, 1e3), *cells])
    header = ["system", "run by", "steps", "evaluations", "ms per picture"]
    return [*header, "times slower than the student", "than its fastest way"], lines


def where_time_goes(rows: list[Row], before: str, after: str, title: str) -> Figure:
    """Left: shares of modules, before, evaluated once each, and after. Right: what a picture takes, on a logarithmic
    axis.

    The bar in the middle is the system before with one evaluation of each module: what only fewer steps would leave.
    """
    totals = {
        method: {kind: _mean(rows, method=method, kind=kind, metric="total") for kind in MODULES}
        for method in (before, after)
    }
    once = {kind: _mean(rows, method=before, kind=kind, metric="seconds") for kind in MODULES}
    bars = {label(before): totals[before], "each module evaluated once": once}
    bars |= {label(after): totals[after]}
    figure, ((left, right),) = new_axes(8.4, 2.4, 1, 2, sharey=True)
    for place, parts in enumerate(bars.values()):
        start, whole = 0.0, sum(parts.values())
        for kind, value in parts.items():
            share = value / whole
            left.barh(place, share, left=start, color=_COLORS[kind], height=0.6, label=None if place else kind)
            if share > 0.06:
                ink = "black" if kind != "U-Net" else "white"
                left.text(start + share / 2, place, f"{share:.0%}", ha="center", va="center", fontsize=8, color=ink)
            start += share
        right.plot(1e3 * whole, place, "o", color=_STUDENT if place == len(bars) - 1 else _TEACHER)
        number = f"{1e3 * whole:.0f}" if whole > 0.1 else f"{1e3 * whole:.3g}"
        right.annotate(number, (1e3 * whole, place), (0, 6), textcoords="offset points", ha="center")
    left.set(xlabel="share of the time", yticks=range(len(bars)), xlim=(0, 1))
    left.set_yticklabels(list(bars))
    left.invert_yaxis()
    right.set(xlabel="sum over modules, ms per picture at batch 1")
    right.margins(x=0.15, y=0.25)
    logarithmic(right, "x")
    figure.legend(*left.get_legend_handles_labels(), loc="outside lower center", ncols=3)
    figure.suptitle(title)
    return figure


def budget(
    rows: list[Row], metrics: Sequence[str], slow: str, fast: str, teacher: Tensor, student: Tensor, title: str
) -> Figure:
    """Quality against the seconds that a picture takes; below, what fits into the time of BUDGET evaluations.

    Args:
        rows: `seconds` and all `metrics`, a panel each, of the method `slow` at several step counts, and of `fast`.
        teacher: the first prompt by `slow`, uint8 (K, 3, R, R), from few steps to many.
        student: pictures that `fast` draws in that time, uint8 (M, 3, R, R), M at least 1.
    """
    figure, axes = new_axes(9.0, 5.4, 2, 1, height_ratios=[1.25, 1])
    for ax in axes[:, 0]:
        ax.remove()
    above, below = (figure.add_subfigure(part) for part in axes[0, 0].get_gridspec())
    looks = {slow: {"color": _TEACHER, "marker": "o", "ms": 5}, fast: {"color": _STUDENT, "marker": "*", "ms": 10}}
    for ax, metric in zip(above.subplots(1, len(metrics), squeeze=False)[0], metrics, strict=True):
        apart = any(row["value"] > 1e-6 for row in select(rows, metric=metric))
        decades = metric.startswith("fid") and apart  # which show no distance of a set to itself
        for method, look in looks.items():
            points = [row for row in select(rows, method=method, metric=metric) if row["value"] > 1e-6 or not decades]
            steps, mean, low, high = mean_and_range(points, "steps")
            seconds = [_mean(rows, method=method, metric="seconds", steps=n) for n in steps]
            ax.plot(seconds, mean, lw=1.2, label=label(method), **look)
            ax.vlines(seconds, low, high, color=look["color"], lw=3, alpha=0.3)
            for n, x, y in zip(steps, seconds, mean, strict=True):
                ax.annotate(str(n), (x, y), (4, 4), textcoords="offset points", fontsize=7)
        ax.axvline(_limit(rows, slow), color="#777777", ls=":", lw=1)
        ax.set(xlabel="seconds per picture at batch 1", ylabel=wrapped(metric), xscale="log")
        if decades:
            logarithmic(ax, "y")
        ax.xaxis.set_major_locator(LogLocator(subs=(1, 3)))  # the range is short: powers of ten alone are too few,
        ax.xaxis.set_major_formatter("{x:g}")
        ax.xaxis.set_minor_formatter(NullFormatter())  # and all of them too many
        ax.margins(x=0.12)
    above.legend(*ax.get_legend_handles_labels(), loc="outside upper center", ncols=2)
    steps = sorted({row["steps"] for row in select(rows, method=slow, metric="seconds")})
    left, right = below.subplots(1, 2, width_ratios=[1, 2])
    _mosaic(left, teacher, 3, [f"{n}: {_mean(rows, method=slow, metric='seconds', steps=n):.2g} s" for n in steps])
    left.set_title("teacher, one prompt: steps and seconds", fontsize=8)
    _mosaic(right, student, max(1, round(math.sqrt(3.2 * len(student)))))
    right.set_title(f"student, in the time of {BUDGET} evaluations of the teacher ({len(student)} shown)", fontsize=8)
    figure.suptitle(title)
    return figure


def _limit(rows: list[Row], slow: str) -> float:
    """Seconds in which the slow system makes BUDGET evaluations."""
    return float(np.mean([row["value"] for row in select(rows, method=slow, metric="seconds") if row["nfe"] == BUDGET]))


def _mosaic(ax: Any, image: Tensor, columns: int, names: Sequence[str] = ()) -> None:
    """Pictures (N, 3, R, R) in lines of so many, with a name on some, white where there is none."""
    side, lines = image.shape[-1], -(-len(image) // columns)
    sheet = np.full((lines * side, columns * side, 3), 255, dtype=np.uint8)
    for k, picture in enumerate(np.asarray(image).transpose(0, 2, 3, 1)):
        y, x = (side * place for place in divmod(k, columns))
        sheet[y : y + side, x : x + side] = picture
        if k < len(names):
            ax.text(x + 2, y + 2, names[k], va="top", fontsize=7, bbox={"fc": "white", "lw": 0, "pad": 1, "alpha": 0.8})
    ax.imshow(sheet, interpolation="nearest")
    ax.set(xticks=[], yticks=[])
    ax.spines[:].set_visible(False)
    ax.grid(False)

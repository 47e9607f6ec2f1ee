"""Curves, panels, dots and tradeoffs over rows; functions that return a Figure.

Curves show the mean over seeds and, from two seeds on, a band of the lowest and highest seed.
"""

import math
from collections.abc import Sequence

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure

from distill_lib.measure.rows import Row, select
from distill_lib.report.style import (
    COLORS,
    LEVELS,
    MARKERS,
    draw_band,
    label,
    legend_below,
    logarithmic,
    mean_and_range,
    new_axes,
    wrapped,
)


def curves(
    rows: list[Row], metrics: Sequence[str], ws: Sequence[float], title: str, floor: float | None = None
) -> Figure:
    """Metrics (down) for each w (across) against network evaluations; the many-step teacher is a dashed line."""
    drawn = ("ours-D", "ours-S", "single-w", "shortcut", "shortcut-own", "ddim", "ancestral")
    most = max((row["steps"] for row in select(rows, method="teacher")), default=math.inf)
    figure, axes = new_axes(
        2.5 * len(ws) + 0.6, 2.0 * len(metrics) + 0.5, len(metrics), len(ws), sharex=True, sharey="row"
    )
    for i, metric in enumerate(metrics):
        for j, w in enumerate(ws):
            ax = axes[i, j]
            for method in drawn:
                selected = select(rows, method=method, metric=metric, w=w)
                if not selected:
                    continue
                if metric == "fid_teacher":
                    # DDIM with the teacher's own number of steps is the teacher: 0, which no logarithm shows
                    selected = [row for row in selected if row["steps"] < most]
                draw_band(ax, selected, "nfe", COLORS[method], marker=MARKERS[method], ms=4, label=label(method))
            teacher = select(rows, method="teacher", metric=metric, w=w)
            if teacher and metric != "fid_teacher":
                _, (mean,), _, _ = mean_and_range(teacher, "nfe")
                ax.axhline(mean, color="black", ls="--", lw=1, label=label("teacher"))
            if floor is not None and metric.startswith("fid"):
                ax.axhline(floor, color=COLORS["real"], ls=":", lw=1, label="real against real")
            ax.set_xscale("log", base=2)
            if metric.startswith("fid") or metric == "paired":
                logarithmic(ax, "y")
            ticks = [row["nfe"] for row in rows if row["method"] in drawn and row["metric"] in metrics]
            ax.set_xticks(sorted(set(ticks)))
            ax.xaxis.set_major_formatter("{x:g}")
            if i == 0:
                ax.set_title(f"w = {w:g}")
            if j == 0:
                ax.set_ylabel(wrapped(metric))
            if i == len(metrics) - 1:
                ax.set_xlabel(label("nfe"))
    legend_below(figure, min(4, 2 * len(ws)))
    figure.suptitle(title)
    return figure


def panels(rows: list[Row], metrics: Sequence[str], title: str, x: str = "nfe") -> Figure:
    """A panel a metric, a line with its range over seeds a method.

    A method without the column x is a level line, and so is the teacher where x counts evaluations.
    """
    figure, axes = new_axes(3.1 * len(metrics) + 0.3, 3.2, 1, len(metrics))
    for ax, metric in zip(axes[0], metrics, strict=True):
        selected, positive = select(rows, metric=metric), metric.startswith("fid")
        for method in dict.fromkeys(row["method"] for row in selected):
            of_method = select(selected, method=method)
            if x not in of_method[0] or (method == "teacher" and x == "nfe"):
                level = sum(row["value"] for row in of_method) / len(of_method)
                if positive and level < 1e-6:  # a set's distance to itself, which no logarithm shows
                    continue
                ax.axhline(level, color="black", ls=LEVELS.get(method, "-"), lw=1, label=label(method))
                continue
            draw_band(ax, of_method, x, COLORS[method], marker=MARKERS[method], ms=4, label=label(method))
        ax.set(xlabel=label(x), ylabel=wrapped(metric))
        if positive:
            logarithmic(ax, "y")
        if x == "nfe":
            ax.set_xscale("log", base=2)
            ax.xaxis.set_major_formatter("{x:g}")
    legend_below(figure, 5)
    figure.suptitle(title)
    return figure


def dots(rows: list[Row], panels: Sequence[tuple[str, float]], title: str) -> Figure:
    """A panel for each (metric, w), a line a method: the mean over seeds as a dot, the range over seeds as a bar."""
    methods = list(dict.fromkeys(row["method"] for row in rows))
    figure, axes = new_axes(2.4 * len(panels) + 1.6, 0.26 * len(methods) + 1.2, 1, len(panels), sharey=True)
    for ax, (metric, w) in zip(axes[0], panels, strict=True):
        for place, method in enumerate(methods):
            values = [row["value"] for row in select(rows, method=method, metric=metric, w=w)]
            if values:
                ax.plot([min(values), max(values)], [place, place], color=COLORS["ours-D"], lw=4, alpha=0.3)
                ax.plot(sum(values) / len(values), place, "o", color=COLORS["ours-D"], ms=5)
        points = [row["value"] for row in select(rows, metric=metric, w=w)]
        if min(points, default=0) > 0 and max(points) > 30 * min(points):  # or all but one would lie on the axis
            logarithmic(ax, "x")
        ax.set(xlabel=f"{label(metric)}, w = {w:g}", yticks=range(len(methods)))
        ax.set_yticklabels([label(method) for method in methods])
    axes[0, 0].invert_yaxis()
    figure.suptitle(title)
    return figure


def tradeoff(rows: list[Row], steps: Sequence[int], title: str) -> Figure:
    """FID (down is better) against Inception score (right is better) as w moves along each curve."""
    figure, axes = new_axes(5.6, 3.8)
    ax = axes[0, 0]
    shades = mpl.colormaps["viridis"](np.linspace(0.85, 0.1, len(steps)))
    lines = [("ours-D", n, shade, f"student, {n} step{'s' * (n > 1)}") for n, shade in zip(steps, shades, strict=True)]
    teacher_steps = max((row["steps"] for row in select(rows, method="teacher")), default=None)
    lines.append(("teacher", teacher_steps, "black", f"teacher, {teacher_steps} steps"))
    for method, n, color, name in lines:
        x, y = (mean_and_range(select(rows, method=method, steps=n, metric=m), "w")[:2] for m in ("is", "fid"))
        dashes = "--" if method == "teacher" else "-"
        ax.plot(x[1], y[1], color=color, marker=MARKERS[method], ms=5, ls=dashes, label=name)
        if method == "teacher":
            for w, *place in list(zip(x[0], x[1], y[1], strict=True))[:: len(x[0]) - 1 or 1]:  # all of them collide
                ax.annotate(f"w = {w:g}", place, textcoords="offset points", xytext=(6, -8), fontsize=8, color=color)
    ax.set(xlabel=label("is"), ylabel=label("fid"), title=title)
    logarithmic(ax, "y")
    ax.legend(fontsize=8)
    return figure


Curve = Sequence[tuple[float, float]]
"""Points (step, loss)."""


def loss_curve(curves: dict[str, Curve], title: str) -> Figure:
    """Training losses against the step, on a logarithmic axis."""
    figure, axes = new_axes(5.6, 2.8)
    colors = mpl.colormaps["viridis"](np.linspace(0.1, 0.85, len(curves)))
    for (name, points), color in zip(curves.items(), colors, strict=True):
        axes[0, 0].plot(*zip(*points, strict=True), color=color, lw=1.2, label=name)
    axes[0, 0].set(title=title, xlabel="updates", ylabel="loss, smoothed")
    logarithmic(axes[0, 0], "y")
    axes[0, 0].legend(fontsize=8)
    return figure


def training_panels(rows: list[Row], committed: list[Row], title: str) -> Figure:
    """Loss or distance against the update, a panel for each method and metric, a colour for each step count.

    Args:
        rows: of the live trainings, with `update`; drawn as lines.
        committed: of the committed ones; drawn broad and faint behind, as mean and range over their seeds.
    """
    panels = list(dict.fromkeys((row["metric"], row["method"]) for row in rows))
    steps = sorted({row["steps"] for row in rows}, reverse=True)
    shades = dict(zip(steps, mpl.colormaps["viridis"](np.linspace(0.1, 0.85, len(steps))), strict=True))
    figure, axes = new_axes(3.4 * len(panels) + 0.4, 3.3, 1, len(panels))
    for ax, (metric, method) in zip(axes[0], panels, strict=True):
        for n in steps:
            columns = {"metric": metric, "method": method, "steps": n}
            if behind := select(committed, **columns):
                draw_band(ax, behind, "update", shades[n], lw=4, alpha=0.25)
            if live := select(rows, **columns):
                x, mean, _, _ = mean_and_range(live, "update")
                marker = "o" if metric == "fid_teacher" else None
                ax.plot(x, mean, color=shades[n], lw=1.2, marker=marker, ms=3, label=f"{n} step" + "s" * (n > 1))
        ax.set(xlabel="updates", ylabel=wrapped(metric))
        logarithmic(ax, *("xy" if metric == "loss" else "y"))  # distances are few and evenly spaced
        ax.set_title(label(method), fontsize=9)
    legend_below(figure, len(steps))
    figure.suptitle(title)
    return figure


def hardness(rows: list[Row], title: str) -> Figure:
    """Left: what the plain sampler loses at w = 1, by world. Right: how much closer halving stays at w = 0."""
    figure, (axes,) = new_axes(7.2, 3.2, 1, 2)
    palette = ("#009E73", "#0072B2", "#D55E00", "#CC79A7")
    for world, color in zip(dict.fromkeys(row["world"] for row in rows), palette, strict=False):
        selected = select(rows, world=world)
        floor = select(selected, metric="floor_fid")[0]["value"]
        ddim = select(selected, method="ddim", w=1.0, metric="fid_teacher")
        ddim = [row for row in ddim if row["steps"] < max(row["steps"] for row in ddim)]  # the most are the teacher
        x, mean, _, _ = mean_and_range(ddim, "steps")
        axes[0].plot(x, [value / floor for value in mean], "o-", ms=4, color=color, label=world)
        plain = select(selected, method="ddim", w=0.0, metric="fid_teacher")
        x, plain, _, _ = mean_and_range(plain, "steps")
        ours = [row for row in select(selected, method="ours-D", metric="fid_teacher") if row["steps"] in x]
        ours = mean_and_range(ours, "steps")[1]
        axes[1].plot(x, [b / a for a, b in zip(ours, plain, strict=True)], "o-", ms=4, color=color, label=world)
    for ax in axes:
        ax.axhline(1, color=COLORS["real"], ls=":", lw=1)
        logarithmic(ax, "y")
        ax.set(xlabel="sampling steps")
        ax.set_xscale("log", base=2)
        ax.xaxis.set_major_formatter("{x:g}")
        ax.legend(fontsize=8)
    axes[0].set_title("DDIM, w = 1: distance to many steps, in floors", fontsize=9)
    axes[1].set_title("distance of DDIM / distance of student, w = 0", fontsize=9)
    figure.suptitle(title)
    return figure

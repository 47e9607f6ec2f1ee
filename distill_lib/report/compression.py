"""Drawing what was made smaller: pictures side by side, what a loss sees of them, and what each choice wins and loses.

Colours, markers and form are those of `figures`; a band or bar is the range over seeds there and here.
"""

from collections.abc import Sequence
from statistics import median
from typing import Any

import torch
from diffusers import UNet2DConditionModel
from matplotlib.figure import Figure
from torch import Tensor, nn
from torch.nn.functional import interpolate

from distill_lib.measure.rows import Row, select
from distill_lib.networks.pruning import counterparts
from distill_lib.report.style import (
    PALETTE,
    draw_band,
    label,
    legend_below,
    logarithmic,
    mean_and_range,
    new_axes,
    wrapped,
)

_MARKS = "osD^vPX*"
_UNITS = {"params": ("millions", 1e-6), "seconds": ("milliseconds", 1e3)}


def zoomed(image: Tensor, factor: int = 2) -> Tensor:
    """The middle of pictures uint8 (N, 3, R, R), a `factor`-th of each side, as large as the whole."""
    side = image.shape[-1] // factor
    first = (image.shape[-1] - side) // 2
    part = image[..., first : first + side, first : first + side].float()
    return interpolate(part, scale_factor=factor, mode="nearest").to(torch.uint8)


def difference(image: Tensor, other: Tensor, gain: float = 4.0) -> Tensor:
    """Pictures uint8 (N, 3, R, R) whose grey, 128, is no difference; the others are `gain` times as large."""
    return (128 + gain * (image.float() - other.float())).clamp(0, 255).round().to(torch.uint8)


def small_units(rows: list[Row]) -> list[Row]:
    """The same rows with weights in millions and times in milliseconds, as a table shows them."""
    scaled = []
    for row in rows:
        metric, factor = _UNITS.get(row["metric"], (row["metric"], 1))
        scaled.append(row | {"metric": metric, "value": row["value"] * factor})
    return scaled


def over_levels(rows: list[Row]) -> list[Row]:
    """The same rows with those of all noise levels t as one, their median."""
    levels: dict[tuple[Any, ...], list[float]] = {}
    for row in rows:
        if "t" in row:
            columns = {key: value for key, value in row.items() if key not in ("t", "value")}
            levels.setdefault(tuple(columns.items()), []).append(row["value"])
    rest = [row for row in rows if "t" not in row]
    return rest + [dict(columns) | {"value": median(values)} for columns, values in levels.items()]


def _styles(rows: list[Row]) -> dict[str, dict[str, Any]]:
    """Colour and marker of each method, in the order of the rows."""
    methods = list(dict.fromkeys(row["method"] for row in rows))
    looks = zip(PALETTE, _MARKS, strict=True)
    return {name: {"color": color, "marker": mark} for name, (color, mark) in zip(methods, looks, strict=False)}


def trade(rows: list[Row], pairs: Sequence[tuple[str, str]], title: str, in_decades: Sequence[str] = ()) -> Figure:
    """A panel for each pair of metrics (across, up), a point a method: mean over seeds with the range of both.

    Of at most eight methods; one that lacks a metric of a panel is not in it. Axes of the metrics in
    `in_decades` are logarithmic.
    """
    figure, axes = new_axes(4.0 * len(pairs), 3.7, 1, len(pairs))
    for ax, metrics in zip(axes[0], pairs, strict=True):
        for method, look in _styles(rows).items():
            measured = [[row["value"] for row in select(rows, method=method, metric=metric)] for metric in metrics]
            if not all(measured):
                continue
            x, y = (sum(values) / len(values) for values in measured)
            reach = [[[mean - min(v)], [max(v) - mean]] for mean, v in zip((x, y), measured, strict=True)]
            ax.errorbar(x, y, yerr=reach[1], xerr=reach[0], ls="", ms=6, lw=1, label=label(method), **look)
        ax.set(xlabel=label(metrics[0]), ylabel=wrapped(metrics[1]))
        logarithmic(ax, *(axis for axis, metric in zip("xy", metrics, strict=True) if metric in in_decades))
    legend_below(figure, 4)
    figure.suptitle(title)
    return figure


def over_noise(rows: list[Row], metric: str, unit: str, title: str) -> Figure:
    """A metric against the noise level t, a line a method, on a logarithmic axis; one that is 0 is not drawn.

    Another metric, `unit`, is drawn as a dashed line.
    """
    figure, axes = new_axes(6.4, 3.8)
    positive = [row for row in select(rows, metric=metric) if row["value"] > 0]
    for method, look in _styles(positive).items():
        draw_band(axes[0, 0], select(positive, method=method), "t", ms=4, label=label(method), **look)
    t, mean, _, _ = mean_and_range(select(rows, metric=unit), "t")
    axes[0, 0].plot(t, mean, color="black", ls="--", lw=1, label=label(unit))
    axes[0, 0].set(xlabel="time t (1 is pure noise)", ylabel=wrapped(metric), title=title)
    logarithmic(axes[0, 0], "y")
    legend_below(figure, 3)
    return figure


def sweep(rows: list[Row], x: str, metrics: Sequence[str], base: float, title: str) -> Figure:
    """A panel a metric: its values at each value of column x, evenly spaced, 0 among them.

    Rows are of one method; those without column x are drawn as level lines, dashed. `base` is the value that is used
    elsewhere, marked by a larger dot.
    """
    figure, axes = new_axes(2.9 * len(metrics) + 0.3, 3.2, 1, len(metrics))
    varied = [row for row in rows if x in row]
    places = sorted({row[x] for row in varied})
    for ax, metric in zip(axes[0], metrics, strict=True):
        selected = select(varied, metric=metric)
        draw_band(ax, selected, x, PALETTE[0], places.index, marker="o", ms=4)
        at_base = mean_and_range(select(selected, **{x: base}), x)[1]
        ax.plot(places.index(base), at_base, "o", color=PALETTE[1], ms=8, label="value in all other trainings")
        for method in dict.fromkeys(row["method"] for row in rows if x not in row):
            level = [row["value"] for row in select(rows, method=method, metric=metric)]
            if level:
                ax.axhline(sum(level) / len(level), color="black", ls="--", lw=1, label=label(method))
        ax.set_xticks(range(len(places)), [f"{place:g}" for place in places])
        ax.set(xlabel=label(x), ylabel=wrapped(metric))
    legend_below(figure, 3)
    figure.suptitle(title)
    return figure


def _millions(*modules: nn.Module | None) -> float:
    return sum(p.numel() for module in modules if module is not None for p in module.parameters()) / 1e6


def _described(block: nn.Module | None) -> str:
    if block is None:
        return "removed"
    text = f"{len(block.resnets)} ResNet" + "s" * (len(block.resnets) > 1)
    depths = [
        len(attention.transformer_blocks) for attention in getattr(block, "attentions", []) if attention is not None
    ]
    if depths:
        text += f", {len(depths)} Transformer" + "s" * (len(depths) > 1) + f" of depth {depths[0]}"
    return f"{text}: {_millions(block):.2f} M"


def removal_table(
    teacher: UNet2DConditionModel, student: UNet2DConditionModel
) -> tuple[list[str], list[tuple[str, str, str]]]:
    """Header and lines (stage, before, after) of a cut: its units, and millions of weights."""
    gone = len(teacher.up_blocks) - len(student.up_blocks)
    down, up = dict(enumerate(student.down_blocks)), dict(enumerate(student.up_blocks, gone))
    pairs = [(f"down {k + 1}", block, down.get(k)) for k, block in enumerate(teacher.down_blocks)]
    pairs += [("middle", teacher.mid_block, student.mid_block)]
    pairs += [(f"up {k + 1}", block, up.get(k)) for k, block in enumerate(teacher.up_blocks)]
    lines = [(name, _described(before), _described(after)) for name, before, after in pairs]
    both = teacher, student
    rest = [_millions(net) - _millions(*net.down_blocks, net.mid_block, *net.up_blocks) for net in both]
    lines.append(("outer layers and time", *(f"{millions:.2f} M" for millions in rest)))
    return ["stage", "before", "after"], [*lines, ("all", *(f"{_millions(net):.2f} M" for net in both))]


def tap_table(teacher: UNet2DConditionModel, student: UNet2DConditionModel) -> tuple[list[str], list[tuple[str, str]]]:
    """Header and lines (layer of the student, layer of the teacher) whose outputs are compared, eq. 7 of SDXS."""
    both = student, teacher
    names = [{id(module): name for name, module in net.named_modules()} for net in both]
    tap_lists = counterparts(student, teacher)
    return ["student", "teacher"], list(
        zip(*([known[id(tap)] for tap in taps] for known, taps in zip(names, tap_lists, strict=True)), strict=True)
    )

"""Drawing of what regression to one step makes of couples in the plane: lines, answers, and where they fall between."""

import matplotlib as mpl
import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from distill_lib.measure.rows import Row, select
from distill_lib.report.style import COLORS, PALETTE, mean_and_range, new_axes
from distill_lib.sdxs.crossing import DATA, Crossing, crossings, straight_lines, teacher_paths

_KINDS = {"independent": "#D55E00", "own": "#0072B2", "reflow": "#009E73", "teacher": "#000000"}
_CLASSES = np.array(PALETTE[:5])
_FLAT, _STEEP = COLORS["stage-one"], COLORS["single-w"]
_NAMES = {"independent": "independent", "own": "the teacher's own", "reflow": "after one reflow"}
_NAMES |= {"teacher": "teacher, many steps"}


def _draw_paths(ax: Axes, paths: Tensor, name: str) -> None:
    """Ways (S, N, 2) in the colour of the centre that each ends at, and a cross where two meet at the same time."""
    ends = torch.cdist(paths[-1], DATA.centres.to(paths)).argmin(1)
    for path, color in zip(paths.transpose(0, 1), _CLASSES[ends], strict=True):
        ax.plot(path[:, 0], path[:, 1], color=color, lw=0.7, alpha=0.7)
    ax.scatter(paths[0, :, 0], paths[0, :, 1], s=8, facecolors="white", edgecolors=_CLASSES[ends], lw=0.7, zorder=3)
    ax.scatter(paths[-1, :, 0], paths[-1, :, 1], s=7, c=_CLASSES[ends], lw=0, zorder=3)
    crossed, place = crossings(paths)
    ax.scatter(place[crossed, 0], place[crossed, 1], s=22, c="black", marker="x", lw=1.1, zorder=4)
    ax.set_title(f"{name}\n{int(crossed.sum())} of {len(crossed)} pairs cross", fontsize=9)


def _draw_answers(ax: Axes, x: Tensor, steep: Tensor, name: str) -> None:
    """Answers (N, 2), to the steepest quarter of noise on top, and three standard deviations round each centre."""
    for chosen, color in ((~steep, _FLAT), (steep, _STEEP)):
        ax.scatter(x[chosen, 0], x[chosen, 1], s=3, c=color, lw=0)
    for centre in DATA.centres.tolist():
        ax.add_patch(mpl.patches.Circle(centre, 3 * DATA.std, fill=False, ec="black", lw=0.8))
    ax.set_title(name, fontsize=9)


def crossing(experiment: Crossing, rows: list[Row], title: str, count: int = 40) -> Figure:
    """Above: lines of each kind of couples, and the teacher's own paths. Below: answers of one step, and their misses.

    Hollow points are noise, full ones data; a cross marks where two paths are at the same place at the same time. Other
    lines meet in the picture only, one being there before the other.

    Args:
        rows: of s-crossing, of one seed or several, for the last panel.
        count: paths that are drawn.
    """
    figure, axes = new_axes(10.4, 5.6, 2, 4)
    lines = {_NAMES[kind]: couples.lines()[:, :count] for kind, couples in experiment.couples.items()}
    lines |= {"the teacher's ways, scaled": straight_lines(teacher_paths(experiment.couples["own"].z[:count]))}
    for ax, (name, paths) in zip(axes[0], lines.items(), strict=True):
        _draw_paths(ax, paths, name)
    for ax, (kind, x) in zip(axes[1], experiment.answers.items(), strict=False):
        _draw_answers(ax, x, experiment.steep, f"one step, trained on couples\n{_NAMES[kind]}")
    for row, limit in ((axes[0], 2.6), (axes[1, :3], 1.5)):
        for ax in row:
            ax.set(xlim=(-limit, limit), ylim=(-limit, limit), aspect="equal")
    last, (_, steepness, _, _) = axes[1, 3], mean_and_range(select(rows, metric="steepness"), "decile")
    for kind, color in _KINDS.items():
        _, mean, low, high = mean_and_range(select(rows, metric="off_modes_decile", method=kind), "decile")
        dashes = "--" if kind == "teacher" else "-"
        last.plot(steepness, mean, dashes, color=color, marker="o", ms=3, lw=1.2, label=_NAMES[kind])
        last.fill_between(steepness, low, high, color=color, alpha=0.2, lw=0)
    last.set(xscale="log", ylim=(-0.03, 1.03), xlabel="steepness of the teacher's map")
    last.set_xticks([0.25, 0.5, 1, 2], ["1/4", "1/2", "1", "2"])
    last.minorticks_off()
    last.set_title("share of answers off the modes,\nby tenths of noise", fontsize=9)
    quarter = [mpl.lines.Line2D([], [], ls="", marker="o", ms=4, color=color) for color in (_FLAT, _STEEP)]
    handles, labels = last.get_legend_handles_labels()
    names = ["answers to flat noise", "to its steepest quarter", *labels]
    figure.legend([*quarter, *handles], names, loc="outside lower center", ncols=6, fontsize=8)
    figure.suptitle(title)
    return figure

"""Drawing of score distillation in the plane: students on their way, the lag of the online model, faults and modes."""

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from distill_lib.experiments.score_plane import PLACES, STD, TEACHER, Distilled, ScorePlane
from distill_lib.measure.rows import Row, select
from distill_lib.report.style import PALETTE, draw_band, label, legend_below, new_axes
from distill_lib.sdxs.cloud import denoised, mean_direction

_BLUE, _RED = PALETTE[:2]
_MARKERS = "osD^"
_SIZE = 10


def _draw_points(ax: Axes, x: Tensor, title: str) -> None:
    """Answers (N, 2) of a student, and three standard deviations round each mode."""
    ax.scatter(x[:, 0], x[:, 1], s=3, color=_BLUE, alpha=0.5, lw=0)
    for centre in PLACES.tolist():
        ax.add_patch(mpl.patches.Circle(centre, 3 * STD, fill=False, ec="black", lw=0.9))
    ax.set(xlim=(-1.6, 1.6), ylim=(-2.6, 1.6), aspect="equal", xticks=[], yticks=[])
    ax.set_title(title, fontsize=_SIZE)


def _lines(ax: Axes, rows: list[Row], split: str, x: str, names: dict[object, str]) -> None:
    """A line with its range over seeds for each value of a column, in the colours and markers of their order."""
    for i, (value, name) in enumerate(names.items()):
        draw_band(ax, select(rows, **{split: value}), x, PALETTE[i], marker=_MARKERS[i], ms=4, label=name)


def journey(plane: ScorePlane, distilled: Distilled, rows: list[Row], title: str, arrows: int = 90) -> Figure:
    """Above: a student's answers as it learns, and which way the loss sends some of them. Below: what has become of it.

    An arrow is x_offline - x_online, a mean over noise and times, two fifths of its length.

    Args:
        rows: of s-plane, of one seed or several.
        arrows: how many answers have one.
    """
    kept = list(dict.fromkeys(row["update"] for row in rows))
    chosen = [kept[len(kept) // 6], kept[len(kept) // 2], kept[-1]]
    figure, axes = new_axes(7.5, 5.6, 2, 4, height_ratios=(1.4, 1))
    _draw_points(axes[0, 0], plane.answers(plane.start), "before")
    panel = iter(axes[0, 1:])
    for update in distilled.stages():
        if update in chosen:
            x, ax = plane.answers(distilled.student), next(panel)
            _draw_points(ax, x, f"after {update} updates")
            few = x[:arrows]
            move = -mean_direction(denoised(distilled.online), denoised(TEACHER), few, 1.0)
            ax.quiver(*few.T, *move.T, color=_RED, angles="xy", scale_units="xy", scale=2.5, width=0.009, zorder=3)
    left, right = _merged(figure, axes[1], 2)
    levels = sorted({row["t"] for row in select(rows, metric="kl")})
    _lines(left, select(rows, metric="kl"), "t", "update", {t: f"t = {t:.3g}" for t in levels})
    left.set_yscale("symlog", linthresh=0.1)
    left.set_yticks([0, 0.1, 1, 10, 100], ["0", "0.1", "1", "10", ""])
    names = {metric: label(metric) for metric in ("mass_error", "off_modes")}
    _lines(right, rows, "metric", "update", names)
    right.set(ylim=(-0.03, 1.03))
    for ax, name in ((left, label("kl")), (right, "modes")):
        ax.set(xlabel="updates of the online model")
        ax.set_title(name, fontsize=_SIZE)
        ax.legend(fontsize=9, ncols=2 if ax is left else 1, loc="upper right")
    figure.suptitle(title)
    return figure


def _merged(figure: Figure, row: np.ndarray, count: int) -> list[Axes]:
    """A row of axes as `count` wider ones."""
    grid, width = row[0].get_gridspec(), len(row) // count
    line = row[0].get_subplotspec().rowspan.start
    for ax in row:
        ax.remove()
    return [figure.add_subplot(grid[line, i * width : (i + 1) * width]) for i in range(count)]


def lags(rows: list[Row], title: str) -> Figure:
    """Error of the online model (full) beside what it should measure (dashed), a panel for each way of training it."""
    methods = list(dict.fromkeys(row["method"] for row in rows))
    figure, axes = new_axes(7.5, 3.0, 1, len(methods), sharey=True)
    for ax, method in zip(axes[0], methods, strict=True):
        for metric, color, dashes in (("lag", _RED, "-"), ("gap", "#000000", "--")):
            of_metric = select(rows, method=method, metric=metric)
            draw_band(ax, of_metric, "update", color, ls=dashes, marker="o", ms=3, label=label(metric))
        ax.set(yscale="log", xlabel="updates")
        ax.set_title(method, fontsize=_SIZE)
    axes[0, 0].set_ylabel("root mean square of $\\hat x$")
    axes[0, 0].yaxis.set_major_formatter("{x:g}")
    axes[0, 0].minorticks_off()
    legend_below(figure, 2, fontsize=_SIZE)
    figure.suptitle(title)
    return figure


def fault_levels(rows: list[Row], title: str) -> Figure:
    """At which noise levels the scores show a fault of the student, and which share of it moves all points alike."""
    names = {method: method for method in dict.fromkeys(row["method"] for row in rows)}
    figure, axes = new_axes(7.5, 3.4, 1, 2)
    for ax, metric in zip(axes[0], ("direction_size", "common"), strict=True):
        _lines(ax, select(rows, metric=metric), "method", "t", names)
        ax.set(xlabel="noise level $t/T$")
        ax.set_title(label(metric), fontsize=_SIZE)
    legend_below(figure, 2, fontsize=_SIZE)
    figure.suptitle(title)
    return figure


def modes(answers: dict[str, Tensor], rows: list[Row], title: str) -> Figure:
    """Above: answers of six students. Below: what becomes of the modes by the segment, without and with matching.

    Args:
        answers: by the name of each student, (N, 2).
        rows: of s-plane-modes, of one seed or several.
    """
    figure, axes = new_axes(7.5, 7.6, 3, 3, height_ratios=(1.1, 1.1, 1))
    for ax, (name, x) in zip(axes[:2].flat, answers.items(), strict=True):
        _draw_points(ax, x, name)
    for ax, metric in zip(axes[2], ("modes", "mass_error", "off_modes"), strict=True):
        by_alpha = [row for row in select(rows, metric=metric) if "alpha" in row]
        _lines(ax, by_alpha, "matching", "alpha", {0.0: "scores alone", 1.0: "scores and squares on pairs"})
        ax.set(xlabel="segment $\\alpha$")
        ax.set_title(label(metric), fontsize=_SIZE)
    axes[2, 0].set(ylim=(-0.2, 5.2), yticks=range(6))
    for ax in axes[2, 1:]:
        ax.set_ylim(bottom=0)
    legend_below(figure, 2, fontsize=_SIZE)
    figure.suptitle(title)
    return figure

"""Points in the plane, the diagram of the samplers, and the map of errors of stage one."""

from collections.abc import Sequence
from itertools import pairwise

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure
from torch import Tensor

from distill_lib.measure.rows import Row
from distill_lib.report.style import COLORS, PALETTE, label, logarithmic, new_axes


def scatter_2d(panels: dict[str, Tensor], label: Tensor, title: str, limit: float = 2.2) -> Figure:
    """Two-dimensional samples (N, 2), coloured by class, a panel each."""
    figure, axes = new_axes(2.2 * len(panels), 2.6, 1, len(panels), sharex=True, sharey=True)
    palette = np.array(PALETTE[:6])
    for ax, (name, points) in zip(axes[0], panels.items(), strict=True):
        ax.scatter(points[:, 0], points[:, 1], s=3, c=palette[np.asarray(label) % 6], lw=0)
        ax.set(xlim=(-limit, limit), ylim=(-limit, limit), aspect="equal")
        ax.set_title(name, fontsize=9)
    figure.suptitle(title)
    return figure


def sampler_diagram(deterministic: Sequence[int], stochastic: Sequence[int], T: int, title: str) -> Figure:
    """The moves of two samplers along time: network moves as arrows to the right, noise added as arrows back."""
    figure, axes = new_axes(6.4, 2.6, 2, 1, sharex=True)
    for ax, path, name in zip(axes[:, 0], (deterministic, stochastic), ("deterministic", "stochastic"), strict=True):
        ax.axhline(0, color="#bbbbbb", lw=1, zorder=0)
        for i, (t, s) in enumerate(pairwise(path)):
            back = s > t
            color, dashes, bend = (COLORS["ddim"], "--", -0.45) if back else (COLORS["ours-D"], "-", -0.35)
            arrow = {"arrowstyle": "-|>", "color": color, "lw": 1.5, "ls": dashes, "shrinkA": 2, "shrinkB": 2}
            ax.annotate("", (s / T, 0), (t / T, 0), arrowprops=arrow | {"connectionstyle": f"arc3,rad={bend}"})
            ax.plot(t / T, 0, "o", color="black", ms=4 if i else 6)
        ax.plot(0, 0, "o", color="black", ms=6)
        ax.set(yticks=[], ylim=(-0.5, 0.5), xlim=(1.05, -0.05))
        ax.grid(False)
        ax.spines["left"].set_visible(False)
        ax.set_title(name, fontsize=9, loc="left")
    ax.set_xticks([1, 0.75, 0.5, 0.25, 0], ["1 (noise)", "3/4", "1/2", "1/4", "0 (picture)"])
    ax.set_xlabel("time t")
    figure.suptitle(title)
    return figure


def error_map(rows: list[Row], title: str) -> Figure:
    """Relative error of stage one over time (across) and guidance strength (up), on a logarithmic colour scale."""
    figure, axes = new_axes(6.2, 3.0)
    ts, ws = sorted({row["t"] for row in rows}), sorted({row["w"] for row in rows})
    seeds = {row["seed"] for row in rows}
    value = np.zeros((len(ws), len(ts)))
    for row in rows:
        value[ws.index(row["w"]), ts.index(row["t"])] += row["value"] / len(seeds)
    mesh = axes[0, 0].imshow(value, origin="lower", aspect="auto", cmap="cividis", norm=mpl.colors.LogNorm())
    quarters = [i for i, t in enumerate(ts) if t in (0.25, 0.5, 0.75, 1)] or range(len(ts))
    axes[0, 0].set_xticks(quarters, [f"{ts[i]:g}" for i in quarters])
    axes[0, 0].set_yticks(range(len(ws)), [f"{w:g}" for w in ws])
    axes[0, 0].set(xlabel="time t (1 is pure noise)", ylabel="guidance strength w", title=title)
    axes[0, 0].grid(False)
    bar = figure.colorbar(mesh, label=label("relative_error"))
    logarithmic(bar.ax, "y")
    return figure

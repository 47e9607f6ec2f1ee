"""Drawing: one style, colours that colour-blind readers tell apart, functions that return a Figure.

Curves show the mean over seeds and, from two seeds on, a band of the lowest and highest seed.
"""

import io
import math
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure
from torch import Tensor

from distill_lib.artefacts import SEEDS, select
from distill_lib.metrics import interval

__all__ = [
    "LABELS",
    "curves",
    "dots",
    "error_map",
    "grid",
    "hardness",
    "in_words",
    "loss_curve",
    "markdown_table",
    "metric_table",
    "over_seeds",
    "panels",
    "sampler_diagram",
    "scatter_2d",
    "spread_table",
    "table_1",
    "table_of_strength",
    "tradeoff",
    "training_panels",
]

Row = dict[str, Any]

COLORS = {"ours-D": "#0072B2", "ddim": "#D55E00", "teacher": "#000000", "real": "#777777"}
COLORS |= {"ours-S": "#009E73", "single-w": "#CC79A7", "ancestral": "#E69F00", "stage-one": "#56B4E9"}
MARKERS = {"ours-D": "o", "ddim": "s", "teacher": "*", "ours-S": "^", "single-w": "D", "ancestral": "v"}
MARKERS |= {"stage-one": "P", "dpm": "v", "dpm++": "D", "unipc": "^"}
COLORS |= {"dpm": "#E69F00", "dpm++": "#CC79A7", "unipc": "#009E73"}
_LEVELS = {"truth": "--", "source": ":", "unrelated": "-."}  # lines of what bounds a transfer
LABELS = {
    "ours-D": "distilled student (D)",
    "ours-S": "distilled student (S)",
    "single-w": "student for one w",
    "ddim": "guided pair, DDIM",
    "ancestral": "guided pair, ancestral",
    "teacher": "teacher, many steps",
    "stage-one": "student of stage one, not halved",
    "fid": "FID",
    "loss": "loss, smoothed",
    "fid_teacher": "distance to teacher",
    "is": "Inception score",
    "accuracy": "named as its class",
    "paired": "paired distance to teacher",
    "sharpness": "sharpness (Laplacian variance)",
    "recall": "recall",
    "nfe": "network evaluations a sample",
    "iou": "overlap with the true solid (IoU)",
    "depth_error": "depth error on the solid",
    "style": "called a picture of the new look",
    "fid_target": "distance to the true pictures",
    "paired_target": "square error to the true picture",
    "round_trip": "square error after the way back",
    "source": "not transferred",
    "truth": "true picture",
    "relative_error": "relative error of stage one",
    "margin": "log-probability margin of the class",
    "iou_kept": "share of the overlap kept",
    "unrelated": "fresh noise, same class",
    "regression": "one step by regression",
    "dpm": "guided pair, DPM-Solver",
    "dpm++": "guided pair, DPM-Solver++",
    "unipc": "guided pair, UniPC",
    "attribute_accuracy": "shapes and colours right",
    "prompt_accuracy": "prompts right",
    "clip": "picture and prompt (mini CLIP)",
    "edit_success": "shows what was asked for",
    "outside": "square change outside the region",
    "seam": "seam (1: that of the true picture)",
    "start": "time from which it is drawn",
    "kid": "KID",
    "floor_fid": "FID of real pictures",
    "crossing_share": "share of pairs that cross",
    "off_modes": "share off the modes",
    "off_modes_steep": "the same, steepest quarter",
    "to_best": "distance to eq. 9",
    "straightness": "distance of one Euler step",
    "layout": "overlap with before (IoU)",
    "fid_look": "distance to the true look",
    "scale": "scale of the LoRA",
    "independent": "couples drawn apart",
    "own": "the teacher's own couples",
    "reflow": "couples after one reflow",
    "flow": "first flow, many steps",
    "psnr": "PSNR (dB)",
    "psnr_coarse": "PSNR, pooled (dB)",
    "sharpness_kept": "share of the sharpness",
    "prediction_error": "relative error of the prediction",
    "prompt_size": "what the prompt changes",
    "lambda_gan": r"$\lambda_{GAN}$",
    "lambda_f": r"$\lambda_F$",
    "millions": "million weights",
    "milliseconds": "ms at batch 1",
    "lcm": "consistency model",
    "turbo": "whole U-Net, one step",
    "tiny": "small U-Net, DPM-Solver++",
    "sdxs": "SDXS, one step",
    "unguided": "teacher without guidance",
    "edge_f1": "edges right (F1)",
    "diversity": "difference by noise",
    "diversity_prompt": "difference by prompt",
    "prompt_accuracy_changed": "other prompts right",
    "share": "share of the noise drawn anew",
}
_STYLE = {
    "figure.dpi": 100,
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


class _Shown(Figure):
    """A Figure that a notebook shows without pyplot and its global state."""

    def _repr_png_(self) -> bytes:
        buffer = io.BytesIO()
        self.savefig(buffer, format="png", dpi=100)
        return buffer.getvalue()


def _new(width: float, height: float, rows: int = 1, columns: int = 1, **kwargs: Any) -> tuple[Figure, np.ndarray]:
    figure = _Shown(figsize=(width, height), layout="constrained")
    return figure, figure.subplots(rows, columns, squeeze=False, **kwargs)


def _mean_and_range(rows: list[Row], x: str) -> tuple[list[float], list[float], list[float], list[float]]:
    places = sorted({row[x] for row in rows})
    groups = [[row["value"] for row in rows if row[x] == place] for place in places]
    return places, [sum(g) / len(g) for g in groups], [min(g) for g in groups], [max(g) for g in groups]


def grid(images: Sequence[Sequence[Tensor]], rows: Sequence[str], columns: Sequence[str], title: str) -> Figure:
    """Pictures uint8 (3, R, R) in a labelled grid; an inner tensor (n, 3, R, R) is shown as n pictures side by side."""
    figure, axes = _new(
        0.95 * sum(_width(c) for c in images[0]) + 0.8,
        1.0 * len(images) + 0.5,
        len(images),
        len(images[0]),
        width_ratios=[_width(c) for c in images[0]],
    )
    for i, line in enumerate(images):
        for j, cell in enumerate(line):
            strip = cell if cell.ndim == 3 else np.concatenate(list(cell), 2)
            axes[i, j].imshow(np.asarray(strip).transpose(1, 2, 0), interpolation="nearest")
            axes[i, j].set(xticks=[], yticks=[])
            axes[i, j].spines[:].set_visible(False)
            if i == 0:
                axes[i, j].set_title(columns[j], fontsize=9)
            if j == 0:
                axes[i, j].set_ylabel(rows[i], rotation=0, ha="right", va="center", fontsize=9)
    figure.suptitle(title, fontsize=10)
    return figure


def _width(cell: Tensor) -> int:
    return 1 if cell.ndim == 3 else len(cell)


def curves(
    rows: list[Row], metrics: Sequence[str], ws: Sequence[float], title: str, floor: float | None = None
) -> Figure:
    """Metrics (down) for each w (across) against network evaluations; the many-step teacher is a dashed line."""
    drawn = ("ours-D", "ours-S", "single-w", "ddim", "ancestral")
    most = max((row["steps"] for row in select(rows, method="teacher")), default=math.inf)
    figure, axes = _new(2.5 * len(ws) + 0.6, 2.0 * len(metrics) + 0.5, len(metrics), len(ws), sharex=True, sharey="row")
    for i, metric in enumerate(metrics):
        for j, w in enumerate(ws):
            ax = axes[i, j]
            for method in drawn:
                here = select(rows, method=method, metric=metric, w=w)
                if not here:
                    continue
                if metric == "fid_teacher":
                    # DDIM with the teacher's own number of steps is the teacher: 0, which no logarithm shows
                    here = [row for row in here if row["steps"] < most]
                x, mean, low, high = _mean_and_range(here, "nfe")
                ax.plot(x, mean, color=COLORS[method], marker=MARKERS[method], ms=4, label=LABELS.get(method, method))
                ax.fill_between(x, low, high, color=COLORS[method], alpha=0.2, lw=0)
            teacher = select(rows, method="teacher", metric=metric, w=w)
            if teacher and metric != "fid_teacher":
                _, (mean,), _, _ = _mean_and_range(teacher, "nfe")
                ax.axhline(mean, color="black", ls="--", lw=1, label=LABELS["teacher"])
            if floor is not None and metric.startswith("fid"):
                ax.axhline(floor, color=COLORS["real"], ls=":", lw=1, label="real against real")
            ax.set_xscale("log", base=2)
            if metric.startswith("fid") or metric == "paired":
                ax.set_yscale("log")
            ticks = [row["nfe"] for row in rows if row["method"] in drawn and row["metric"] in metrics]
            ax.set_xticks(sorted(set(ticks)))
            ax.xaxis.set_major_formatter("{x:g}")
            if i == 0:
                ax.set_title(f"w = {w:g}")
            if j == 0:
                ax.set_ylabel(LABELS.get(metric, metric))
            if i == len(metrics) - 1:
                ax.set_xlabel(LABELS["nfe"])
    handles, labels = axes[0, -1].get_legend_handles_labels()
    extra, names = axes[-1, 0].get_legend_handles_labels()
    unique = dict(zip(labels + names, handles + extra, strict=True))
    figure.legend(unique.values(), unique.keys(), loc="outside lower center", ncols=min(4, 2 * len(ws)))
    figure.suptitle(title)
    return figure


def panels(rows: list[Row], metrics: Sequence[str], title: str, x: str = "nfe") -> Figure:
    """A panel a metric, a line with its range over seeds a method.

    A method without the column x is a level line, and so is the teacher where x counts evaluations.
    """
    figure, axes = _new(3.1 * len(metrics) + 0.3, 3.2, 1, len(metrics))
    for ax, metric in zip(axes[0], metrics, strict=True):
        here, logarithmic = select(rows, metric=metric), metric.startswith("fid")
        for method in dict.fromkeys(row["method"] for row in here):
            of_method = select(here, method=method)
            if x not in of_method[0] or (method == "teacher" and x == "nfe"):
                level = sum(row["value"] for row in of_method) / len(of_method)
                if logarithmic and level < 1e-6:  # a set's distance to itself, which no logarithm shows
                    continue
                ax.axhline(level, color="black", ls=_LEVELS.get(method, "-"), lw=1, label=LABELS.get(method, method))
                continue
            places, mean, low, high = _mean_and_range(of_method, x)
            ax.plot(places, mean, color=COLORS[method], marker=MARKERS[method], ms=4, label=LABELS[method])
            ax.fill_between(places, low, high, color=COLORS[method], alpha=0.2, lw=0)
        ax.set(xlabel=LABELS.get(x, x), ylabel=LABELS.get(metric, metric))
        if logarithmic:
            ax.set_yscale("log")
        if x == "nfe":
            ax.set_xscale("log", base=2)
            ax.xaxis.set_major_formatter("{x:g}")
    handles = {}
    for ax in axes[0]:
        found, labels = ax.get_legend_handles_labels()
        handles |= dict(zip(labels, found, strict=True))
    figure.legend(handles.values(), handles.keys(), loc="outside lower center", ncols=5)
    figure.suptitle(title)
    return figure


def metric_table(rows: list[Row], about: Sequence[str], metrics: Sequence[str]) -> tuple[list[str], list[list[object]]]:
    """Header and lines of a table: one line for each combination of the columns `about`, one column a metric.

    A column that a row lacks stays empty; more than one seed gives mean and standard deviation as in `over_seeds`.
    """
    lines = []
    for values in dict.fromkeys(tuple(row.get(column) for column in about) for row in rows):
        here = [row for row in rows if tuple(row.get(column) for column in about) == values]
        cells = [over_seeds(select(here, metric=metric)) for metric in metrics]
        lines.append([*("" if value is None else LABELS.get(value, value) for value in values), *cells])
    return [LABELS.get(column, column) for column in (*about, *metrics)], lines


def dots(rows: list[Row], panels: Sequence[tuple[str, float]], title: str) -> Figure:
    """A panel for each (metric, w), a line a method: the mean over seeds as a dot, the range over seeds as a bar."""
    methods = list(dict.fromkeys(row["method"] for row in rows))
    figure, axes = _new(2.4 * len(panels) + 1.6, 0.26 * len(methods) + 1.2, 1, len(panels), sharey=True)
    for ax, (metric, w) in zip(axes[0], panels, strict=True):
        for place, method in enumerate(methods):
            values = [row["value"] for row in select(rows, method=method, metric=metric, w=w)]
            if values:
                ax.plot([min(values), max(values)], [place, place], color=COLORS["ours-D"], lw=4, alpha=0.3)
                ax.plot(sum(values) / len(values), place, "o", color=COLORS["ours-D"], ms=5)
        here = [row["value"] for row in select(rows, metric=metric, w=w)]
        if min(here, default=0) > 0 and max(here) > 30 * min(here):  # or all but one would lie on the axis
            ax.set_xscale("log")
        ax.set(xlabel=f"{LABELS.get(metric, metric)}, w = {w:g}", yticks=range(len(methods)))
        ax.set_yticklabels([LABELS.get(method, method) for method in methods])
    axes[0, 0].invert_yaxis()
    figure.suptitle(title)
    return figure


def in_words(rows: list[Row], base: str, metric: str) -> list[str]:
    """A sentence a choice: how many times the metric of the choice `base` it has at each w, and whether that is told.

    The ratio is the geometric mean over seeds, each paired with itself; it is told apart from 1 where Student's t
    interval of its logarithm (95 %) leaves 0 out, and by no fewer than SEEDS. Values that are not above 0 have no
    ratio, and their seed is left out.
    """
    names = list(dict.fromkeys(row["method"] for row in rows))
    values = {(row["method"], row["w"], row["seed"]): row["value"] for row in select(rows, metric=metric)}
    said = []
    for name in (name for name in names if name != base):
        parts = []
        for w in sorted({w for method, w, _ in values if method == name}):
            pairs = [(value, values.get((base, w, key[2]), 0)) for key, value in values.items() if key[:2] == (name, w)]
            logs = [math.log(value / other) for value, other in pairs if value > 0 and other > 0]
            if not logs:
                continue
            told = f"{len(logs)} of {SEEDS} seeds"
            if len(logs) >= SEEDS:
                low, high = interval(logs)
                told = "more" if low > 0 else "less" if high < 0 else "not told apart"
                told = f"[{_digits(math.exp(low))}, {_digits(math.exp(high))}], {told}"
            parts.append(f"{_digits(math.exp(sum(logs) / len(logs)))} times at w = {w:g} ({told})")
        said.append(f"{LABELS.get(metric, metric)} of {name}, beside {base}: {'; '.join(parts)}")
    return said


def tradeoff(rows: list[Row], steps: Sequence[int], title: str) -> Figure:
    """FID (down is better) against Inception score (right is better) as w moves along each curve."""
    figure, axes = _new(5.6, 3.8)
    ax = axes[0, 0]
    shades = mpl.colormaps["viridis"](np.linspace(0.85, 0.1, len(steps)))
    lines = [("ours-D", n, shade, f"student, {n} step{'s' * (n > 1)}") for n, shade in zip(steps, shades, strict=True)]
    teacher_steps = max((row["steps"] for row in select(rows, method="teacher")), default=None)
    lines.append(("teacher", teacher_steps, "black", f"teacher, {teacher_steps} steps"))
    for method, n, color, label in lines:
        x, y = (_mean_and_range(select(rows, method=method, steps=n, metric=m), "w")[:2] for m in ("is", "fid"))
        ax.plot(
            x[1], y[1], color=color, marker=MARKERS[method], ms=5, ls="--" if method == "teacher" else "-", label=label
        )
        if method == "teacher":
            for w, a, b in zip(x[0], x[1], y[1], strict=True):
                ax.annotate(f"w={w:g}", (a, b), textcoords="offset points", xytext=(4, 4), fontsize=7, color=color)
    ax.set(xlabel=LABELS["is"], ylabel=LABELS["fid"], yscale="log", title=title)
    ax.legend(fontsize=8)
    return figure


Curve = Sequence[tuple[float, float]]
"""Points (step, loss)."""


def loss_curve(curves: dict[str, Curve], title: str) -> Figure:
    """Training losses against the step, on a logarithmic axis."""
    figure, axes = _new(5.6, 2.8)
    colors = mpl.colormaps["viridis"](np.linspace(0.1, 0.85, len(curves)))
    for (label, points), color in zip(curves.items(), colors, strict=True):
        axes[0, 0].plot(*zip(*points, strict=True), color=color, lw=1.2, label=label)
    axes[0, 0].set(title=title, xlabel="training step", ylabel="loss, smoothed", yscale="log")
    axes[0, 0].legend(fontsize=8)
    return figure


def training_panels(rows: list[Row], committed: list[Row], title: str) -> Figure:
    """Loss or distance against the update, a panel for each method and metric, a colour for each step count.

    Args:
        rows: of the live trainings, with `update`; drawn as lines.
        committed: of the committed ones; drawn broad and faint behind, as mean and range over their seeds.
        title: of the figure.
    """
    panels = list(dict.fromkeys((row["metric"], row["method"]) for row in rows))
    steps = sorted({row["steps"] for row in rows}, reverse=True)
    shades = dict(zip(steps, mpl.colormaps["viridis"](np.linspace(0.1, 0.85, len(steps))), strict=True))
    figure, axes = _new(3.4 * len(panels) + 0.4, 3.3, 1, len(panels))
    for ax, (metric, method) in zip(axes[0], panels, strict=True):
        for n in steps:
            about = {"metric": metric, "method": method, "steps": n}
            if behind := select(committed, **about):
                x, mean, low, high = _mean_and_range(behind, "update")
                ax.plot(x, mean, color=shades[n], lw=4, alpha=0.25)
                ax.fill_between(x, low, high, color=shades[n], alpha=0.2, lw=0)
            if live := select(rows, **about):
                x, mean, _, _ = _mean_and_range(live, "update")
                marker = "o" if metric == "fid_teacher" else None
                ax.plot(x, mean, color=shades[n], lw=1.2, marker=marker, ms=3, label=f"{n} step" + "s" * (n > 1))
        ax.set(xlabel="training step", yscale="log", ylabel=LABELS.get(metric, metric))
        ax.set_xscale("log" if metric == "loss" else "linear")  # distances are few and evenly spaced
        ax.set_title(LABELS[method], fontsize=9)
    handles, labels = axes[0, 0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=len(steps))
    figure.suptitle(title)
    return figure


def scatter_2d(panels: dict[str, Tensor], label: Tensor, title: str, limit: float = 2.2) -> Figure:
    """Two-dimensional samples (N, 2), coloured by class, a panel each."""
    figure, axes = _new(2.2 * len(panels), 2.6, 1, len(panels), sharex=True, sharey=True)
    palette = np.array(["#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9"])
    for ax, (name, points) in zip(axes[0], panels.items(), strict=True):
        ax.scatter(points[:, 0], points[:, 1], s=3, c=palette[np.asarray(label) % 6], lw=0)
        ax.set(xlim=(-limit, limit), ylim=(-limit, limit), aspect="equal")
        ax.set_title(name, fontsize=9)
    figure.suptitle(title)
    return figure


def sampler_diagram(deterministic: Sequence[int], stochastic: Sequence[int], T: int, title: str) -> Figure:
    """The moves of two samplers along time: network moves as arrows to the right, noise added as arrows back."""
    figure, axes = _new(6.4, 2.6, 2, 1, sharex=True)
    for ax, path, name in zip(axes[:, 0], (deterministic, stochastic), ("deterministic", "stochastic"), strict=True):
        ax.axhline(0, color="#bbbbbb", lw=1, zorder=0)
        for i, (t, s) in enumerate(pairwise(path)):
            back = s > t
            color, bend = (COLORS["ddim"], 0.45) if back else (COLORS["ours-D"], -0.35)
            ax.annotate(
                "",
                (s / T, 0),
                (t / T, 0),
                arrowprops={
                    "arrowstyle": "-|>",
                    "color": color,
                    "lw": 1.5,
                    "ls": "--" if back else "-",
                    "connectionstyle": f"arc3,rad={bend if not back else -bend}",
                    "shrinkA": 2,
                    "shrinkB": 2,
                },
            )
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


def _digits(value: float) -> str:
    """Three significant digits; below a millionth a number here is rounding: the teacher's distance to itself."""
    return f"{value if abs(value) > 1e-6 else 0:.3g}"


def markdown_table(header: Sequence[str], lines: Sequence[Sequence[Any]]) -> str:
    """A Markdown table; floats get three significant digits."""

    def cell(value: Any) -> str:
        return _digits(value) if isinstance(value, float) else str(value)

    rows = [header, ["---"] * len(header), *lines]
    return "\n".join("| " + " | ".join(cell(value) for value in row) + " |" for row in rows) + "\n"


def over_seeds(rows: list[Row]) -> str:
    """Mean of the rows' values, and the standard deviation over seeds where there is more than one."""
    values = np.array([row["value"] for row in rows])
    if not len(values):
        return ""
    return _digits(values.mean()) + (f" ± {values.std(ddof=1):.2g}" if len(values) > 1 else "")


def _lines_of(rows: list[Row]) -> list[tuple[str, int]]:
    return list(dict.fromkeys((row["method"], row["steps"]) for row in rows if row["method"] != "real"))


def table_1(rows: list[Row], ws: Sequence[float]) -> tuple[list[str], list[list[Any]]]:
    """Header and lines of Table 1: a line a method and step count, FID / IS / distance to teacher for each w.

    Evaluations are those of guided sampling; at w = 0 a pair needs half of them.
    """
    header = ["method", "steps", "evaluations"] + [f"w={w:g}: FID / IS / to teacher" for w in ws]
    lines = []
    for method, n_steps in _lines_of(rows):
        here = select(rows, method=method, steps=n_steps)
        cells = [" / ".join(over_seeds(select(here, w=w, metric=m)) for m in ("fid", "is", "fid_teacher")) for w in ws]
        if any(cell.strip(" /") for cell in cells):
            lines.append([LABELS.get(method, method), n_steps, max(row["nfe"] for row in here), *cells])
    return header, lines


def table_of_strength(rows: list[Row], w: float) -> tuple[list[str], list[list[Any]]]:
    """Header and lines of all metrics at one w; seconds are those of a batch, where they were measured."""
    metrics = {"fid": "FID", "fid_teacher": "to teacher", "kid": "KID", "is": "IS", "accuracy": "accuracy"}
    metrics |= {name: name for name in ("margin", "precision", "recall", "sharpness", "seconds")}
    lines = []
    for method, n_steps in _lines_of(select(rows, w=w)):
        here = select(rows, method=method, steps=n_steps, w=w)
        cells = [over_seeds(select(here, metric=metric)) for metric in metrics]
        lines.append([LABELS.get(method, method), n_steps, here[0]["nfe"], *cells])
    return ["method", "steps", "evaluations", *metrics.values()], lines


def spread_table(rows: list[Row]) -> tuple[list[str], list[list[Any]]]:
    """Header and lines of g-seeds: how far a metric moves over draws of noise, and over trainings with equal noise."""

    def spread(groups: list[list[float]]) -> str:
        """Root of the mean variance within the groups that hold more than one value."""
        variances = [np.var(group, ddof=1) for group in groups if len(group) > 1]
        return f"{np.sqrt(np.mean(variances)):.2g}" if variances else ""

    lines = []
    for method, n_steps, metric in dict.fromkeys((row["method"], row["steps"], row["metric"]) for row in rows):
        here = select(rows, method=method, steps=n_steps, metric=metric)
        seeds, draws = ({row[key] for row in here} for key in ("seed", "draw"))
        noise = [[row["value"] for row in select(here, seed=seed)] for seed in seeds]
        trained = [[row["value"] for row in select(here, draw=draw)] for draw in draws]
        mean = float(np.mean([row["value"] for row in here]))
        again = "" if method == "teacher" else spread(trained)  # the teacher is trained once
        lines.append([LABELS[method], n_steps, LABELS.get(metric, metric), mean, spread(noise), again])
    return ["method", "steps", "metric", "mean", "spread over noise", "spread over trainings"], lines


def hardness(rows: list[Row], title: str) -> Figure:
    """Left: what the plain sampler loses at w = 1, by world. Right: how much closer halving stays at w = 0."""
    figure, (axes,) = _new(7.2, 3.2, 1, 2)
    palette = ("#009E73", "#0072B2", "#D55E00", "#CC79A7")
    for world, color in zip(dict.fromkeys(row["world"] for row in rows), palette, strict=False):
        here = select(rows, world=world)
        floor = select(here, metric="floor_fid")[0]["value"]
        ddim = select(here, method="ddim", w=1.0, metric="fid_teacher")
        ddim = [row for row in ddim if row["steps"] < max(one["steps"] for one in ddim)]  # the most are the teacher
        x, mean, _, _ = _mean_and_range(ddim, "steps")
        axes[0].plot(x, [value / floor for value in mean], "o-", ms=4, color=color, label=world)
        plain = select(here, method="ddim", w=0.0, metric="fid_teacher")
        x, plain, _, _ = _mean_and_range(plain, "steps")
        ours = [row for row in select(here, method="ours-D", metric="fid_teacher") if row["steps"] in x]
        ours = _mean_and_range(ours, "steps")[1]
        axes[1].plot(x, [b / a for a, b in zip(ours, plain, strict=True)], "o-", ms=4, color=color, label=world)
    for ax in axes:
        ax.axhline(1, color=COLORS["real"], ls=":", lw=1)
        ax.set(xscale="log", yscale="log", xlabel="sampling steps")
        ax.set_xscale("log", base=2)
        ax.xaxis.set_major_formatter("{x:g}")
        ax.legend(fontsize=8)
    axes[0].set_title("DDIM, w = 1: distance to many steps, in floors", fontsize=9)
    axes[1].set_title("distance of DDIM / distance of student, w = 0", fontsize=9)
    figure.suptitle(title)
    return figure


def error_map(rows: list[Row], title: str) -> Figure:
    """Relative error of stage one over time (across) and guidance strength (up), on a logarithmic colour scale."""
    figure, axes = _new(6.2, 3.0)
    ts, ws = sorted({row["t"] for row in rows}), sorted({row["w"] for row in rows})
    seeds = {row["seed"] for row in rows}
    value = np.zeros((len(ws), len(ts)))
    for row in rows:
        value[ws.index(row["w"]), ts.index(row["t"])] += row["value"] / len(seeds)
    mesh = axes[0, 0].imshow(value, origin="lower", aspect="auto", cmap="cividis", norm=mpl.colors.LogNorm())
    axes[0, 0].set_xticks(range(len(ts))[1::2], [f"{t:.2f}" for t in ts[1::2]])
    axes[0, 0].set_yticks(range(len(ws)), [f"{w:g}" for w in ws])
    axes[0, 0].set(xlabel="time t (1 is pure noise)", ylabel="guidance strength w", title=title)
    axes[0, 0].grid(False)
    figure.colorbar(mesh, label="|x_student - x_w|² / |x_w - x_cond|²")
    return figure

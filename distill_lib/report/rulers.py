"""How rulers answer to known damage: small panels, and the table of what each sees and is for."""

from collections.abc import Sequence
from statistics import fmean

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from distill_lib.measure.calibration import PURPOSE, THRESHOLD, chance, seen_from
from distill_lib.measure.rows import Row, select
from distill_lib.report.style import COLORS, LABELS, mean_and_range, new_axes

AXES = {
    "blur": "blur (pixels)",
    "noise": "noise (std)",
    "colour": "colour shift",
    "dropped": "classes dropped",
    "copied": "training pictures",
}
"""By corruption, what its strength is."""


def _chances(rows: list[Row], metric: str, n: int) -> list[tuple[float, float]]:
    """Mean and standard deviation of untouched sets, of each seed's bench."""
    seeds = sorted({row["seed"] for row in select(rows, corruption="none", metric=metric, n=n)})
    return [chance(rows, metric, n, seed) for seed in seeds]


def _level(ax: Axes, chances: list[tuple[float, float]]) -> None:
    for mean, spread in chances:
        band = mean - THRESHOLD * spread, mean + THRESHOLD * spread
        ax.axhspan(*band, color=COLORS["real"], alpha=0.25 / len(chances), lw=0)
        ax.axhline(mean, color=COLORS["real"], lw=0.8)


def answers(rows: list[Row], title: str) -> Figure:
    """A row of panels a ruler, a column a corruption and the last one the number of pictures, untouched.

    Grey: what chance gives untouched sets, THRESHOLD standard deviations about their mean, of each seed's bench. A
    point is filled where the table of `purposes` says that the damage is seen: values at this strength and at all
    greater ones lie outside the grey of their own bench, for every seed. The panels of a row share their axis but for
    the last, where few pictures move what damage does not.
    """
    metrics, names = (
        list(PURPOSE),
        list(dict.fromkeys(row["corruption"] for row in rows if row["corruption"] != "none")),
    )
    n = max(row["n"] for row in rows)
    figure, axes = new_axes(1.55 * len(names) + 2.6, 0.95 * len(metrics) + 0.8, len(metrics), len(names) + 1)
    for line, metric in zip(axes, metrics, strict=True):
        chances = _chances(rows, metric, n)
        mean = fmean(mean for mean, _ in chances)
        for ax, name in zip(line, names, strict=False):
            _level(ax, chances)
            least = seen_from(rows, metric, name)
            x, value, low, high = mean_and_range(select(rows, corruption=name, metric=metric), "strength")
            ax.plot([0, *x], [mean, *value], color=COLORS["ours-D"], lw=1)
            ax.fill_between(x, low, high, color=COLORS["ours-D"], alpha=0.2, lw=0)
            for place, height in zip(x, value, strict=True):
                seen = least is not None and place >= least
                ax.plot(place, height, "o", ms=4, color=COLORS["ours-D"], mfc=COLORS["ours-D"] if seen else "white")
            ax.sharey(line[0])
        _by_count(line[-1], select(rows, corruption="none", metric=metric))
        line[0].set_ylabel(LABELS.get(metric, metric), rotation=0, ha="right", va="center")
    for ax, name in zip(axes[0], [*(AXES[name] for name in names), "pictures, untouched"], strict=True):
        ax.set_title(name, fontsize=9)
    for ax in axes.flat:
        ax.tick_params(labelsize=6, labelbottom=ax in axes[-1], labelleft=ax in axes[:, 0] or ax in axes[:, -1])
        ax.locator_params(axis="y", nbins=4)
    figure.suptitle(title)
    return figure


def _by_count(ax: Axes, rows: list[Row]) -> None:
    """Untouched sets against their number of pictures: each as a dot, and their mean as a line."""
    x, mean, _, _ = mean_and_range(rows, "n")
    ax.plot([row["n"] for row in rows], [row["value"] for row in rows], ".", ms=3, color=COLORS["real"])
    ax.plot(x, mean, color=COLORS["teacher"], lw=1)
    ax.set_xscale("log", base=2)
    ax.set_xticks(x, [f"{count:g}" for count in x])
    ax.minorticks_off()


def purposes(rows: list[Row], corruptions: Sequence[str]) -> tuple[list[str], list[list[object]]]:
    """Header and lines: what each ruler is for, what chance makes of it at the most pictures, from where on it sees.

    Mean and standard deviation of untouched sets are those of each seed's bench, averaged over seeds.
    """
    n = max(row["n"] for row in rows)
    lines = []
    for metric, purpose in PURPOSE.items():
        mean, spread = map(fmean, zip(*_chances(rows, metric, n), strict=True))
        least = [seen_from(rows, metric, name) for name in corruptions]
        seen = ["blind" if strength is None else f"{strength:g}" for strength in least]
        lines.append([LABELS.get(metric, metric), purpose, f"{mean:.3g} ({spread:.2g})", *seen])
    return ["ruler", "what it is for", "untouched (s.d.)", *(AXES[name] for name in corruptions)], lines

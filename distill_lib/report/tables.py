"""Tables of rows in Markdown, and numbers in words.

One plus-minus everywhere: mean ± half of Student's 95 % t interval over seeds. A table that has one says so below it.
"""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from distill_lib.measure.metrics import interval
from distill_lib.measure.rows import SEEDS, Row, select
from distill_lib.report.style import label

PLUS_MINUS = "±: half of the 95 % t interval over seeds."


def metric_table(
    rows: list[Row], columns: Sequence[str], metrics: Sequence[str]
) -> tuple[list[str], list[list[object]]]:
    """Header and lines of a table: one line for each combination of the columns `columns`, one column a metric.

    A column that a row lacks stays empty; more than one seed gives a plus-minus, as in `over_seeds`.
    """
    lines = []
    for values in dict.fromkeys(tuple(row.get(column) for column in columns) for row in rows):
        selected = [row for row in rows if tuple(row.get(column) for column in columns) == values]
        cells = [over_seeds(select(selected, metric=metric)) for metric in metrics]
        lines.append([*("" if value is None else label(value) for value in values), *cells])
    return [label(column) for column in (*columns, *metrics)], lines


def present(rows: list[Row], metrics: Sequence[str]) -> list[str]:
    """Those of the metrics that rows hold: some need a world, which another teacher does not come with."""
    return [metric for metric in metrics if select(rows, metric=metric)]


def ratio_sentences(rows: list[Row], base: str, metric: str) -> list[str]:
    """A sentence a choice: how many times the metric of the choice `base` it has at each w, and whether that is
    distinguishable.

    The ratio is the geometric mean over seeds, each paired with itself; it is distinguishable from 1 where Student's t
    interval of its logarithm (95 %) leaves 0 out, and by no fewer than SEEDS. Values that are not above 0 have no
    ratio, and their seed is left out; a choice without any ratio has no sentence.
    """
    names = list(dict.fromkeys(row["method"] for row in rows))
    values = {(row["method"], row["w"], row["seed"]): row["value"] for row in select(rows, metric=metric)}
    sentences = []
    for name in (name for name in names if name != base):
        parts = []
        for w in sorted({w for method, w, _ in values if method == name}):
            pairs = [(value, values.get((base, w, key[2]), 0)) for key, value in values.items() if key[:2] == (name, w)]
            logs = [math.log(value / other) for value, other in pairs if value > 0 and other > 0]
            if not logs:
                continue
            verdict = f"{len(logs)} of {SEEDS} seeds"
            if len(logs) >= SEEDS:
                low, high = interval(logs)
                verdict = "more" if low > 0 else "less" if high < 0 else "not distinguishable"
                verdict = f"[{_digits(math.exp(low))}, {_digits(math.exp(high))}], {verdict}"
            parts.append(f"{_digits(math.exp(sum(logs) / len(logs)))} times at w = {w:g} ({verdict})")
        if parts:
            sentences.append(f"{label(metric)} of {label(name)}, beside {label(base)}: {'; '.join(parts)}")
    return sentences


def _digits(value: float) -> str:
    """Three significant digits; below a millionth a number here is rounding: the teacher's distance to itself."""
    return f"{_rounded(value):.3g}"


def _rounded(value: float) -> float:
    return value if abs(value) > 1e-6 else 0


def markdown_table(header: Sequence[str], lines: Sequence[Sequence[Any]]) -> str:
    """A Markdown table; floats get three significant digits, and a plus-minus is explained below."""

    def cell(value: Any) -> str:
        return _digits(value) if isinstance(value, float) else str(value)

    rows = [header, ["---"] * len(header), *lines]
    text = "\n".join("| " + " | ".join(cell(value) for value in row) + " |" for row in rows) + "\n"
    return text + f"\n{PLUS_MINUS}\n" * ("±" in text)


def plus_minus(values: Sequence[float]) -> str:
    """Mean, and half of the 95 % t interval where there is more than one value; empty without values."""
    if not len(values):
        return ""
    low, high = interval([float(value) for value in values])
    return _digits(float(np.mean(values))) + (f" ± {_rounded((high - low) / 2):.2g}" if len(values) > 1 else "")


def over_seeds(rows: list[Row]) -> str:
    """`plus_minus` of the rows' values."""
    return plus_minus([row["value"] for row in rows])


def _lines_of(rows: list[Row]) -> list[tuple[str, int]]:
    return list(dict.fromkeys((row["method"], row["steps"]) for row in rows if row["method"] != "real"))


def table_1(rows: list[Row], ws: Sequence[float], metric: str) -> tuple[list[str], list[list[Any]]]:
    """Header and lines of a part of Table 1: a line for each method and step count, a metric at each w.

    Evaluations are those of guided sampling; at w = 0 a pair needs half of them.
    """
    header = ["method", "steps", "evaluations", *(f"w = {w:g}" for w in ws)]
    lines = []
    for method, n_steps in _lines_of(rows):
        selected = select(rows, method=method, steps=n_steps)
        cells = [over_seeds(select(selected, w=w, metric=metric)) for w in ws]
        if any(cells):
            lines.append([label(method), n_steps, max(row["nfe"] for row in selected), *cells])
    return header, lines


def table_of_strength(rows: list[Row], w: float) -> tuple[list[str], list[list[Any]]]:
    """Header and lines of all metrics at one w; seconds are those of a batch, where they were measured."""
    metrics = {"fid": "FID", "fid_teacher": "to teacher", "kid": "KID", "is": "IS", "accuracy": "accuracy"}
    metrics |= {"fid_inf": "FID without bias", "mmd_teacher": "MMD² to teacher"}
    metrics |= {name: name for name in ("margin", "precision", "recall", "sharpness", "seconds")}
    lines = []
    for method, n_steps in _lines_of(select(rows, w=w)):
        selected = select(rows, method=method, steps=n_steps, w=w)
        cells = [over_seeds(select(selected, metric=metric)) for metric in metrics]
        lines.append([label(method), n_steps, selected[0]["nfe"], *cells])
    return ["method", "steps", "evaluations", *metrics.values()], lines


def spread_table(rows: list[Row]) -> tuple[list[str], list[list[Any]]]:
    """Header and lines of g-seeds: how far a metric moves over draws of noise, and over trainings with equal noise."""

    def spread(groups: list[list[float]]) -> str:
        """Root of the mean variance within the groups that hold more than one value."""
        variances = [np.var(group, ddof=1) for group in groups if len(group) > 1]
        return f"{np.sqrt(np.mean(variances)):.2g}" if variances else ""

    lines = []
    for method, n_steps, metric in dict.fromkeys((row["method"], row["steps"], row["metric"]) for row in rows):
        selected = select(rows, method=method, steps=n_steps, metric=metric)
        seeds, draws = ({row[key] for row in selected} for key in ("seed", "draw"))
        noise = [[row["value"] for row in select(selected, seed=seed)] for seed in seeds]
        trained = [[row["value"] for row in select(selected, draw=draw)] for draw in draws]
        mean = float(np.mean([row["value"] for row in selected]))
        again = "" if method == "teacher" else spread(trained)  # the teacher is trained once
        lines.append([label(method), n_steps, label(metric), mean, spread(noise), again])
    return ["method", "steps", "metric", "mean", "spread over noise", "spread over trainings"], lines

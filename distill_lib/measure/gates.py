"""Gates of a world of text to image: what has to hold before anything is distilled on it, as rows and their limits.

    autoencoder    glyphs_read, psnr, and sharpness_kept = sharpness / sharpness of the real pictures             (1)
    early teacher  prompt_accuracy at w = 0 and at w = 2, beside that of real pictures                            (2)
    one step       sharpness_kept and legible_kept of a student by squares: a share of the teacher's              (3)
    cut            prediction_error of the untrained cut, over that of the cut of the first world                 (4)
    DDIM           floors = mmd_teacher / its own standard error, of few steps                                    (5)
    features       deficit_removed = (S - S_squares) / (S_teacher - S_squares), S the sharpness of one step       (6)

A world passes if one step by squares is visibly worse, if prompts can be told apart by guidance, and if the cut costs
something: what distillation repairs has to be broken first. The limits were set before anything was measured.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from distill_lib.diffusion.samplers import nfe
from distill_lib.measure.compression import Probe
from distill_lib.measure.metrics import laplacian_variance, psnr
from distill_lib.measure.prompts import PromptBenchmark
from distill_lib.measure.readers.studio import glyph_probabilities, glyphs_read, legible, legible_agreement
from distill_lib.measure.rows import Row, select, tidy
from distill_lib.networks.adapter import Network

FIRST_CUT = 0.0018
"""(4) of the first world: error of its untrained cut, as a share of v^2, as the review of that world found it."""

DEFICIT = 0.7
"""(6) that a matcher has to reach after 400 updates before it is used."""


@dataclass(frozen=True)
class Gate:
    """Bounds of a metric of one method's rows, both inclusive; `w` chooses among strengths."""

    method: str
    metric: str
    low: float = -float("inf")
    high: float = float("inf")
    w: float | None = None


GATES = (
    Gate("autoencoder", "glyphs_read", low=0.95),
    Gate("autoencoder", "psnr", low=29.0),
    Gate("autoencoder", "sharpness_kept", low=0.95),
    Gate("early", "prompt_accuracy", low=0.40, high=0.70, w=0.0),
    Gate("early", "prompt_accuracy", low=0.75, high=0.92, w=2.0),
    Gate("real", "prompt_accuracy", low=0.97),
    Gate("squares", "sharpness_kept", high=0.75),
    Gate("squares", "legible_kept", high=0.50),
    Gate("cut", "prediction_error", low=10 * FIRST_CUT),
    Gate("ddim", "floors", low=3.0),
)
"""Of the world `studio`, as issue 27 sets them."""


def autoencoder_rows(reader: nn.Module, image: Tensor, back: Tensor, glyph: Tensor, seed: int = 0) -> list[Row]:
    """(1) of real pictures and of what an autoencoder makes of them, uint8 (n, 3, R, R), with the glyphs (n,).

    The real pictures' own glyphs_read stands beside it: a reader that misreads them bounds what can be reached.
    """
    values = {
        "glyphs_read": glyphs_read(glyph_probabilities(reader, back), glyph),
        "psnr": psnr(back, image),
        "sharpness_kept": laplacian_variance(back) / laplacian_variance(image),
    }
    real = {"glyphs_read": glyphs_read(glyph_probabilities(reader, image), glyph)}
    columns = {"n": len(image), "seed": seed}
    return tidy(values, method="autoencoder", **columns) + tidy(real, method="real", **columns)


def prompt_rows(
    benchmark: PromptBenchmark, early: Network, n_steps: int, ws: tuple[float, ...] = (0.0, 2.0)
) -> list[Row]:
    """(2) of a teacher cut off early, at each strength, and of real pictures of the same kind of prompts."""
    rows = []
    for w in ws:
        judged = benchmark.judged(benchmark.pictures(early, n_steps, w))
        columns = {"steps": n_steps, "w": w, "nfe": nfe(n_steps, w, not early.takes_w), "n": benchmark.n}
        rows += tidy(judged, method="early", **columns, seed=benchmark.seed)
    real = benchmark.judged(benchmark.real, benchmark.shows)
    return rows + tidy(real, method="real", n=benchmark.n, seed=benchmark.seed)


def one_step_rows(reader: nn.Module, image: Tensor, truth: Tensor, seed: int = 0) -> list[Row]:
    """(3) of a student's pictures and the teacher's from the same noise, uint8 (n, 3, R, R).

    legible_kept compares how far the reader's certainty lies above chance, 1/10.
    """
    probability, wanted = glyph_probabilities(reader, image), glyph_probabilities(reader, truth)
    chance = 1 / probability.shape[1]
    values = {
        "sharpness_kept": laplacian_variance(image) / laplacian_variance(truth),
        "legible": legible(probability),
        "legible_agreement": legible_agreement(probability, wanted),
        "legible_kept": (legible(probability) - chance) / (legible(wanted) - chance),
    }
    columns = {"n": len(image), "seed": seed}
    return tidy(values, method="squares", steps=1, **columns) + tidy(
        {"legible": legible(wanted)}, method="teacher", **columns
    )


def deficit_rows(rows: list[Row]) -> list[Row]:
    """(6) of every method with a row of sharpness beside those of "squares" and "teacher", by seed.

    Raises:
        ValueError: one of the two is not there, or squares have no deficit.
    """
    known = select(rows, metric="sharpness")
    result: list[Row] = []
    for seed in sorted({row["seed"] for row in known}):
        values = {row["method"]: row["value"] for row in select(known, seed=seed)}
        if not {"squares", "teacher"} <= set(values):
            raise ValueError(f"seed={seed}: the deficit needs the sharpness of squares and of the teacher")
        squares, teacher = values.pop("squares"), values.pop("teacher")
        if squares >= teacher:
            raise ValueError(f"seed={seed}: squares are as sharp as the teacher, {squares:.4g}; there is no deficit")
        for method, value in values.items():
            result += tidy({"deficit_removed": (value - squares) / (teacher - squares)}, method=method, seed=seed)
    return result


def cut_rows(probe: Probe, cut: Network) -> list[Row]:
    """(4) of a cut network with the teacher's weights: the mean over noise levels, in one row."""
    values = [row["value"] for row in probe.prediction_rows(cut, "cut")]
    mean = torch.tensor(values, dtype=torch.float64).mean().item()
    return tidy({"prediction_error": mean}, method="cut", n=len(probe.held), seed=probe.seed)


def floor_rows(measured: list[Row]) -> list[Row]:
    """(5) from rows of mmd_teacher (`measure.rulers`), which hold its standard error; one row for each of them."""
    rows = []
    for row in select(measured, metric="mmd_teacher"):
        columns = {key: value for key, value in row.items() if key not in ("metric", "value", "error")}
        rows += tidy({"floors": row["value"] / row["error"]}, **columns)
    return rows


def gate_rows(rows: list[Row], gates: tuple[Gate, ...] = GATES) -> list[Row]:
    """One row for each gate that was measured: its value (the mean over seeds), limits, and 1 under `passed` or 0.

    Raises:
        ValueError: no row was measured for a gate, which names it.
    """
    judged = []
    for gate in gates:
        wanted = {"method": gate.method, "metric": gate.metric} | ({} if gate.w is None else {"w": gate.w})
        values = [row["value"] for row in select(rows, **wanted)]
        if not values:
            raise ValueError(f"{gate.method} {gate.metric} has no row; measure it before the gates are judged")
        value = sum(values) / len(values)
        limits = {"low": gate.low, "high": gate.high, "passed": int(gate.low <= value <= gate.high)}
        judged.append(wanted | {"value": value} | limits)
    return judged

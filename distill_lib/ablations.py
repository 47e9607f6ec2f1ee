"""What is varied in notebook 04: settings of a halving one at a time, and the noise that a student is sampled from."""

from dataclasses import replace
from typing import Any

from distill_lib.evaluation import Measured
from distill_lib.models import Network
from distill_lib.training import TrainSettings

__all__ = ["one_at_a_time", "resampled"]


def one_at_a_time(base: TrainSettings, reuse: int) -> dict[str, tuple[TrainSettings, dict[str, Any]]]:
    """Label -> (settings, clamp and reuse) of one halving: as it is, and with one thing changed."""
    half = max(1, base.steps // 2)
    varied = {
        "as in the profile": {},
        "lr / 3": {"lr": base.lr / 3},
        "lr x 3": {"lr": base.lr * 3},
        "half the updates": {"steps": half},
        "twice the updates": {"steps": 2 * base.steps},
        "half the batch": {"batch_size": base.batch_size // 2},
        "half the batch, twice the updates": {"batch_size": base.batch_size // 2, "steps": 2 * base.steps},
        "no average of weights": {"ema": 0.0},
    }
    as_it_is = {"clamp": 100.0, "reuse": reuse}
    found = {label: (replace(base, **changed), as_it_is) for label, changed in varied.items()}
    label, other = ("each target once", 1) if reuse > 1 else ("each target twice", 2)
    found[label] = (base, as_it_is | {"reuse": other})
    return found | {"weight 1 at all times": (base, as_it_is | {"clamp": 1.0})}


def resampled(
    measured: Measured, method: str, net: Network, n_steps: int, w: float, draws: int
) -> list[dict[str, Any]]:
    """Rows of one network from several draws of noise, numbered by `draw`; draw 0 of seed 0 is that of every table."""
    rows = []
    for draw in range(draws):
        found = measured.with_noise(draw).rows(method, net, n_steps, w)
        rows += [row | {"draw": draw, "seed": measured.seed} for row in found]
    return rows

"""`plans`: count what the table of docs/distil-your-own.md shows, and keep it in figures/laptop/plans.json.

python -m distill_lib.run plans

One update of each training on fake tensors, a quarter of an hour in all; `make readme` makes the table of what is kept.
Savings are those of profile `gpu` for another teacher; without them a batch is as large as one of their slices.
"""

import argparse
import json
from collections.abc import Iterator
from dataclasses import asdict
from typing import Any

from distill_lib import profiles
from distill_lib.engine.files import atomic
from distill_lib.engine.savings import Savings, in_bf16
from distill_lib.experiments.fitting import RESTING
from distill_lib.measure.memory import bytes_of, fake, held_by
from distill_lib.measure.plan import Needed, Plan, beside_bytes, drawing_bytes, moment_tensors, needed
from distill_lib.measure.roles import network
from distill_lib.networks.adapter import Network
from distill_lib.networks.unet import W_FEATURES
from distill_lib.paths import COMMITTED, figures_folder
from distill_lib.run.plan import ARCHITECTURES

TEACHERS = {"sd-1.5": [512], "sd-2.1": [512, 768], "sdxl": [1024]}
"""By name, the sides of pictures that each was trained for."""
TRAININGS = ("stage-one", "halving", "scores")
"""Of another teacher, those that decide which card is enough."""


def variants() -> dict[str, tuple[int, Savings]]:
    """Batch and savings by name: without, and with those of profile `gpu`."""
    training = profiles.load("gpu").other.halving
    return {
        "none": (training.batch_size // training.savings.slices, Savings()),
        "lean": (training.batch_size, training.savings),
    }


def rows() -> Iterator[dict[str, Any]]:
    """A row for each teacher, side, training and variant, moments of 8 bits beside the savings being the third: bytes
    and weights by role, and the reserve."""
    for teacher, sides in TEACHERS.items():
        model = ARCHITECTURES[teacher]
        for pixels in sides:
            drawing = drawing_bytes(model, Plan(pixels=pixels))
            for training in TRAININGS:
                of = {"teacher": teacher, "pixels": pixels, "training": training}
                for name, (batch, savings) in variants().items():
                    beside = {"savings": savings, "resting": RESTING.get(training, 0)}
                    need = needed(model, Plan(method=training, pixels=pixels, batch=batch, **beside), drawing)
                    yield of | {"variant": name, "batch": batch} | _kept(need)
                yield of | {"variant": "lean, 8 bits", "batch": batch} | _kept(need.by("adamw8bit"))


def _kept(need: Needed) -> dict[str, Any]:
    return asdict(need) | {"reserve": need.reserve}


def weights() -> Iterator[dict[str, Any]]:
    """A row for each teacher: its student's weights, and bytes of what follows from their number alone."""
    for teacher in TEACHERS:
        model = ARCHITECTURES[teacher]
        with fake():
            student, frozen = (network(model, True, time_cond_proj_dim=W_FEATURES) for _ in range(2))
            parameters = [*student.module.parameters()]
            row = {"teacher": teacher, "weights": sum(p.numel() for p in parameters), "student": _bytes(student)}
            for name in ("adamw", "adamw8bit"):
                row[name] = bytes_of([part for p in parameters for part in moment_tensors(p, name)])
            in_bf16(frozen.module)
            yield row | {"rounded": _bytes(frozen), "beside": beside_bytes(model)[1]}


def _bytes(net: Network) -> int:
    return bytes_of(held_by(net.module))


def main(arguments: list[str] | None = None) -> None:
    """Command line."""
    argparse.ArgumentParser(prog="distill_lib.run plans", description=__doc__.splitlines()[0]).parse_args(arguments)
    kept: dict[str, list] = {"weights": [*weights()], "trainings": []}
    for row in rows():
        print(*(row[name] for name in ("teacher", "pixels", "training", "variant")), row["bytes"]["peak"], flush=True)
        kept["trainings"].append(row)
    folder = figures_folder(COMMITTED)
    folder.mkdir(parents=True, exist_ok=True)
    with atomic(folder / "plans.json") as part:
        part.write_text(json.dumps(kept, indent=1) + "\n")

"""How hard a world is for few steps, and what halving wins on it.

Two numbers a world and step count, both against the same teacher's many steps from the same noise: what the plain DDIM
sampler loses (guided, w = 1), and what a chain of short halvings without guidance (w = 0) loses at the same number of
evaluations. Distances are read in units of the real-against-real floor, since every world has its own scale.
"""

from typing import Any

from distill_lib import pretrained
from distill_lib.artefacts import select
from distill_lib.evaluation import Measured, measure
from distill_lib.methods.step_halving import halve_steps
from distill_lib.metrics import Reader
from distill_lib.models import Network, student_of
from distill_lib.profiles import Hardness, Profile
from distill_lib.store import Run
from distill_lib.training import finish
from distill_lib.worlds.datasets import DatasetSpec, load

__all__ = ["ddim_rows", "halving_rows", "table"]

Row = dict[str, Any]
_KEPT = ("fid_teacher", "sharpness", "accuracy", "paired")


def _measured(world: str, profile: Profile, reader: Reader, seed: int) -> Measured:
    teacher = Network(pretrained.teacher(world).requires_grad_(False))
    return Measured(reader, teacher, world, profile.hardness.samples, profile.sizes.teacher_steps, seed)


def _of_world(world: str, rows: list[Row]) -> list[Row]:
    return [row | {"world": world} for row in rows if row["metric"] in (*_KEPT, "floor_fid")]


def ddim_rows(world: str, profile: Profile, reader: Reader, seed: int) -> list[Row]:
    """The plain sampler at w = 1 for each step count and at the teacher's many steps, and the world's floor."""
    measured = _measured(world, profile, reader, seed)
    steps = dict.fromkeys([*profile.hardness.steps, profile.sizes.teacher_steps], measured.teacher)
    return _of_world(world, measure(measured, "ddim", steps, [1.0]) + measured.floor_rows())


def halving_rows(world: str, profile: Profile, reader: Reader, seed: int) -> list[Row]:
    """Students of a short chain of halvings at w = 0, and the plain sampler at w = 0 with the same step counts.

    At w = 0 the teacher is one network, so that no first stage is needed and both pay one evaluation a step.
    """
    settings = profile.hardness
    measured = _measured(world, profile, reader, seed)
    pictures = load(DatasetSpec(name=world, count=profile.sizes.pictures))
    last = Network(student_of(measured.teacher.module).requires_grad_(False))
    rows, n_steps, parent = [], settings.start, pretrained.made(f"teacher-{world}")["weights"]
    while n_steps > 1:
        n_steps //= 2
        seeded = settings.training.with_seed(1000 * seed + n_steps)
        student = Network(student_of(last.module))
        config = {"steps": n_steps, "training": seeded, "pictures": len(pictures), "parent": parent}
        run = Run(f"hardness-{world}-{n_steps}", config, "distill_lib.methods.step_halving")
        training = halve_steps(student, last, n_steps, pictures, seeded, run, w_range=(0.0, 0.0))
        finish(student, training, run, f"{world}: {2 * n_steps} -> {n_steps} steps")
        rows += measure(measured, "ours-D", {n_steps: student}, [0.0])
        rows += measure(measured, "ddim", {n_steps: measured.teacher}, [0.0])
        last, parent = student, run.key
    return _of_world(world, rows)


def table(rows: list[Row], settings: Hardness) -> list[list[Any]]:
    """Lines (world, steps, distance in floors, share of the teacher's sharpness, accuracy) of the plain sampler."""
    lines = []
    for world in settings.worlds:
        here = [row for row in rows if row["world"] == world]
        floor = select(here, metric="floor_fid")[0]["value"]
        ddim = {row["steps"]: row for row in select(here, method="ddim", w=1.0, metric="sharpness")}
        most = ddim[max(ddim)]["value"]
        for n_steps in ddim:
            value = {m: select(here, method="ddim", w=1.0, steps=n_steps, metric=m)[0]["value"] for m in _KEPT}
            lines.append([world, n_steps, value["fid_teacher"] / floor, value["sharpness"] / most, value["accuracy"]])
    return lines

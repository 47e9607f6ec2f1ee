"""How hard a world is for few steps, and what halving wins on it.

Two numbers a world and step count, both against the same teacher's many steps from the same noise: what the plain DDIM
sampler loses (guided, w = 1), and what a chain of short halvings without guidance (w = 0) loses at the same number of
evaluations. Distances are read in units of the real-against-real floor, since every world has its own scale.
"""

from typing import Any

from distill_lib.measure.classes import Measured, measure
from distill_lib.measure.draw import held_out
from distill_lib.measure.metrics import Reader, fid
from distill_lib.measure.rows import select
from distill_lib.networks.adapter import Trained
from distill_lib.profiles import Hardness, Profile
from distill_lib.worlds.pictures import REAL, DatasetSpec, load

Row = dict[str, Any]
_KEPT = ("fid_teacher", "sharpness", "accuracy", "paired")


def _of_world(world: str, rows: list[Row]) -> list[Row]:
    return [row | {"world": world} for row in rows if row["metric"] in (*_KEPT, "floor_fid")]


def ddim_rows(measured: Measured, profile: Profile) -> list[Row]:
    """The plain sampler at w = 1 for each step count and at the teacher's many steps, and the world's floor."""
    steps = dict.fromkeys([*profile.hardness.steps, profile.sizes.teacher_steps], measured.teacher)
    return _of_world(measured.world, measure(measured, "ddim", steps, [1.0]) + measured.floor_rows())


def halving_rows(measured: Measured, chain: dict[int, Trained]) -> list[Row]:
    """Students of a short chain of halvings at w = 0, and the plain sampler at w = 0 with the same step counts.

    At w = 0 the teacher is one network, so that no first stage is needed and both pay one evaluation a step.
    """
    rows = measure(measured, "ours-D", {n: student.net for n, student in chain.items()}, [0.0])
    rows += measure(measured, "ddim", dict.fromkeys(chain, measured.teacher), [0.0])
    return _of_world(measured.world, rows)


def most_held_out(world: str, wanted: int) -> int:
    """Pictures in each of two sets that no training has seen: half of the test pictures of real data, else `wanted`."""
    return len(load(DatasetSpec(name=world, split="test"))) // 2 if world in REAL else wanted


def floors(world: str, reader: Reader, counts: list[int]) -> list[Row]:
    """The distance of real pictures from other real ones, for growing numbers of pictures."""
    columns = {"method": "real", "metric": "floor_fid"}
    return [columns | {"n": n, "value": fid(reader, held_out(world, n, part=1), held_out(world, n))} for n in counts]


def table(rows: list[Row], settings: Hardness) -> list[list[Any]]:
    """Lines (world, steps, distance in floors, share of the teacher's sharpness, accuracy) of the plain sampler."""
    lines = []
    for world in settings.worlds:
        world_rows = [row for row in rows if row["world"] == world]
        floor = select(world_rows, metric="floor_fid")[0]["value"]
        ddim = {row["steps"]: row for row in select(world_rows, method="ddim", w=1.0, metric="sharpness")}
        most = ddim[max(ddim)]["value"]
        for n_steps in ddim:
            value = {m: select(world_rows, method="ddim", w=1.0, steps=n_steps, metric=m)[0]["value"] for m in _KEPT}
            lines.append([world, n_steps, value["fid_teacher"] / floor, value["sharpness"] / most, value["accuracy"]])
    return lines

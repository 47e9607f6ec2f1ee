"""What figures/laptop/plans.json says of trainings of another teacher: weights by role, and bytes by training.

`run.plans` counts it. Nothing in it depends on a machine.
"""

import json
from pathlib import Path
from typing import Any

from distill_lib.paths import COMMITTED
from distill_lib.report.claims import table

_GB = 10**9
_CARD = 24 * 2**30
_TEACHERS = {"sd-1.5": "SD 1.5", "sd-2.1": "SD 2.1", "sdxl": "SDXL"}
_TRAININGS = {"stage-one": "stage one", "halving": "a halving", "scores": "SDXS, one step"}
_VARIANTS = {"none": "none", "lean": "those of `gpu`", "lean, 8 bits": "and 8-bit moments"}
_WEIGHTS = ["student of", "weights, millions", "student, its gradients, its average: each"]
_WEIGHTS += ["moments in float32, in 8 bits", "teacher in float32, in bfloat16", "text encoders and autoencoder"]
_PLANS = ["teacher, pixels", "training", "savings", "networks", "moments", "gradients, average"]
_PLANS += ["kept for the way back", "peak", "with the reserve", "24 GB"]
_UNCOUNTED = "Not counted yet: `.venv/bin/python -m distill_lib.run plans`."


def _rows(figures: Path, kind: str) -> list[dict[str, Any]]:
    path = figures / COMMITTED / "plans.json"
    return json.loads(path.read_text())[kind] if path.exists() else []


def _gb(size: int, digits: int = 1) -> str:
    return f"{size / _GB:.{digits}f}"


def weights_table(figures: Path) -> str:
    """Bytes of the roles that follow from numbers of weights alone, a line for each teacher."""
    lines = []
    for row in _rows(figures, "weights"):
        student, *sizes = (
            _gb(row[name], 2) for name in ("student", "adamw", "adamw8bit", "student", "rounded", "beside")
        )
        pairs = (", ".join(sizes[i : i + 2]) for i in (0, 2))
        lines.append([_TEACHERS[row["teacher"]], f"{row['weights'] / 1e6:,.1f}", student, *pairs, sizes[-1]])
    return table(_WEIGHTS, lines) if lines else _UNCOUNTED


def _line(row: dict[str, Any]) -> list[str]:
    size = row["bytes"]
    whole = max(size["peak"], size["drawing"]) + row["reserve"]
    networks = sum(size[role] for role in row["weights"]) + size["resting"]
    numbers = (networks, size["moments"], size["gradients"] + size["average"], size["kept for the way back"])
    words = [f"{_TEACHERS[row['teacher']]}, {row['pixels']:,}", _TRAININGS[row["training"]], _VARIANTS[row["variant"]]]
    return [*words, *map(_gb, (*numbers, size["peak"], whole)), "yes" if whole <= _CARD else "no"]


def plans_table(figures: Path) -> str:
    """A line for each teacher, side of pictures, training and savings; below it what drawing holds."""
    rows = _rows(figures, "trainings")
    if not rows:
        return _UNCOUNTED
    drawn = {f"{_TEACHERS[row['teacher']]} at {row['pixels']:,} pixels": row["bytes"]["drawing"] for row in rows}
    words = ", ".join(f"{name} {_gb(size)}" for name, size in drawn.items())
    lines = table(_PLANS, [_line(row) for row in rows])
    return f"{lines}\n\nWhile it draws 64 pictures at once, before a training, a teacher holds: {words}."

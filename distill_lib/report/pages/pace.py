"""What figures/laptop/pace.json tells of whole runs: minutes, memory, and the day (`run.pace` writes it)."""

import json
from pathlib import Path
from typing import Any

from distill_lib.paths import COMMITTED
from distill_lib.report.claims import table


def _runs(figures: Path) -> dict[str, dict[str, Any]]:
    path = figures / COMMITTED / "pace.json"
    return json.loads(path.read_text()) if path.exists() else {}


def _gigabytes(run: dict[str, Any]) -> str:
    return f"{max(spent['memory'] for spent in run['notebooks'].values()) / 2**30:.1f}"


def spent(figures: Path, profile: str) -> dict[str, str]:
    """Of a whole run at a profile: `minutes`, `gigabytes` of the notebook that took most, `day`; empty if unknown."""
    run = _runs(figures).get(profile)
    return {"minutes": f"{run['seconds'] / 60:.0f}", "gigabytes": _gigabytes(run), "day": run["day"]} if run else {}


def pace_table(figures: Path) -> str:
    """Minutes of whole runs by profile and by notebook, and the most memory that one of its notebooks took."""
    lines, texts = [], []
    for profile, run in _runs(figures).items():
        at_once = f"{run['at_once']} of {run['threads']} thread{'s' * (run['threads'] != 1)}"
        lines.append([f"`{profile}`", f"{run['seconds'] / 60:.1f}", str(run["cores"]), at_once, _gigabytes(run)])
        minutes = (f"{name[:2]} {spent['seconds'] / 60:.1f}" for name, spent in run["notebooks"].items())
        texts.append(f"Minutes of each notebook, others beside it, at `{profile}`: {', '.join(minutes)}.")
    head = ["profile", "minutes", "cores", "notebooks at once", "GB of memory per notebook, at most"]
    return "\n\n".join([table(head, lines), *texts]) if lines else "Not measured yet: `make figures`, then `make pace`."

"""`verify`: redraw the committed figures apart, and compare row by row."""

import json
import os
import subprocess
import sys
from typing import Any

from distill_lib.paths import COMMITTED, ROOT, runs_folder, suffix_of
from distill_lib.run.stale import rows_of

# what rests on seconds, which are the machine's
_TIMED = ("total", "sum", "share", "gain", "ratio", "seconds_ratio", "sum_ratio", "pictures", "speedup", "speedup_best")
_TOLERANCE = {"fid": 0.1, "fid_teacher": 0.1, "kid": 0.2, "is": 0.03, "seconds": 1.0, "images_per_second": 1.0}
_TOLERANCE |= {"fid_target": 0.1, "fid_look": 0.1, "training_seconds": 1.0}
_TOLERANCE |= dict.fromkeys(("fid_inf", "mmd_teacher", "mmd_look"), 0.1)
_TOLERANCE |= dict.fromkeys(_TIMED, 1.0)


def verify() -> None:
    """Draw the laptop figures again, from nothing and in folders of their own, and compare with the committed ones.

    Every committed seed is drawn; a row that is gone or new counts as moved. A run that was cut off is resumed. Real
    data is left aside: its files are not here. So are networks of true size, which are only timed.
    """
    from distill_lib.run.true_scale import TABLES  # with torch, which the other commands do without
    from distill_lib.worlds.pictures import REAL

    real = tuple(suffix_of(name) for name in REAL)
    files = sorted((ROOT / "figures" / COMMITTED).glob("[gsx]-*.json"))
    committed = {path.stem: rows_of(path) for path in files if not path.stem.endswith(real) and path.stem not in TABLES}
    seeds = sorted({row.get("seed", 0) for rows in committed.values() for row in rows})
    folder = runs_folder() / "verify"
    environment = os.environ | {"DISTILL_RUNS": str(folder / "runs"), "DISTILL_FIGURES": str(folder / "figures")}
    for seed in seeds:
        command = [sys.executable, "-m", "distill_lib.run", "figures", "--profile", COMMITTED, "--seed", str(seed)]
        if code := subprocess.run(command, cwd=ROOT, env=environment, check=False).returncode:
            raise SystemExit(code)
    redrawn = {name: rows_of(folder / "figures" / COMMITTED / f"{name}.json") for name in committed}
    moved = [line for name, rows in committed.items() for line in differences(name, rows, redrawn[name])]
    print("\n".join(moved))
    print(f"{len(moved)} values moved by more than the tolerance of their metric; remove {folder} to draw anew")
    raise SystemExit(bool(moved))


def differences(name: str, old: list[dict[str, Any]], new: list[dict[str, Any]]) -> list[str]:
    """A line for each row of `old` that `new` lacks, or has moved by more than its metric's tolerance, or adds."""
    was, now = ({_key(row): row for row in rows} for rows in (old, new))
    lines = [f"{name}: {key} is gone" for key in was.keys() - now.keys()]
    lines += [f"{name}: {key} is new" for key in now.keys() - was.keys()]
    for key in was.keys() & now.keys():
        a, b, near = was[key]["value"], now[key]["value"], _TOLERANCE.get(was[key]["metric"], 0.05)
        if not abs(b - a) <= near * max(abs(a), 1e-3):  # so that a value that is no number has moved
            lines.append(f"{name}: {key} was {a:.4g}, is {b:.4g}")
    return sorted(lines)


def _key(row: dict[str, Any]) -> str:
    return json.dumps({key: value for key, value in row.items() if key not in ("value", "error")}, sort_keys=True)

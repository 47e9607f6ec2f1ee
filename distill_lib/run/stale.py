"""What is stale, by content alone: no clock, no time of a file, counts.

Beside an executed notebook lies its stamp, `.<name>.json`: a digest of all that it was made of, the folder of figures,
and a hash of each file that it wrote. A notebook is stale where the digest or the folder differs, or a file is missing
or changed.
"""

import hashlib
import json
from collections.abc import Iterable, Mapping
from functools import cache
from pathlib import Path
from typing import Any

from distill_lib.engine.reach import notebook_files
from distill_lib.measure.rows import Row, read_rows
from distill_lib.paths import COMMITTED, ROOT, figures_folder
from distill_lib.run.notebooks import NOTEBOOKS, read


def _hash(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


_kept_hash = cache(_hash)  # of what no run changes
_files = cache(notebook_files)


def digest(name: str, profile: str) -> str:
    """Hash of a notebook's cells, the library files that it reaches by import, profile, shipped weights and lock.

    Of one that judges, the committed rows as well. Outputs of cells do not count: `publish` writes those.
    """
    library = _files(NOTEBOOKS / f"{name}.ipynb")
    beside = {path.parent for path in library if path.parent.name in ("papers", "report", "run")}
    data = sorted(path for folder in beside for path in folder.glob("*.yaml"))
    files = [*library, *data, ROOT / "distill_lib" / "profiles" / f"{profile}.yaml"]
    files += [ROOT / "requirements.lock", *sorted((ROOT / "pretrained").glob("*/made.json"))]
    if judges(name):
        files += sorted((ROOT / "figures" / COMMITTED).glob("[gs]-*.json"))
    whole = hashlib.sha256()
    for cell in read(name).cells:
        whole.update(f"{cell.cell_type}\0{cell.source}\0".encode())
    for path in files:
        whole.update(f"{path.relative_to(ROOT)}\0{_kept_hash(path)}\0".encode())
    return whole.hexdigest()


def judges(name: str) -> bool:
    """Whether a notebook reads the committed rows that the others write."""
    return ROOT / "distill_lib" / "papers" / "claims.py" in _files(NOTEBOOKS / f"{name}.ipynb")


def stamp_path(executed: Path) -> Path:
    """Where the stamp of an executed notebook lies."""
    return executed.with_name(f".{executed.stem}.json")


def read_stamp(executed: Path) -> dict[str, Any]:
    """The stamp of an executed notebook; empty where there is none that can be read."""
    try:
        stamp = json.loads(stamp_path(executed).read_text())
    except (OSError, ValueError):
        return {}
    return stamp if isinstance(stamp, dict) else {}


def write_stamp(
    executed: Path, made_of: str, seed: int, written: Iterable[Path], spent: Mapping[str, float] | None = None
) -> None:
    """Keep what an executed notebook was made of, what it wrote, and what it took (`pace`)."""
    files = {str(path): _state(path, seed) for path in sorted(set(written)) if path.exists()}
    stamp = {"made_of": made_of, "figures": str(figures_folder("")), "executed": _hash(executed), "written": files}
    stamp |= spent or {}
    part = stamp_path(executed).with_suffix(".part")
    part.write_text(json.dumps(stamp, indent=1))
    part.replace(stamp_path(executed))


def is_stale(executed: Path, made_of: str, seed: int) -> bool:
    """Whether a notebook has to run: it never ended, is made of something else, or a file is missing or changed.

    A file of rows has changed where the rows of this seed have. The notebook of seed 0 is the one that is published,
    and shows the rows of all seeds: it runs again where other rows came after it. Tables and pictures are drawn anew by
    the run of any seed, and only compared while the rows are the same.
    """
    try:
        stamp = read_stamp(executed)
        same = stamp["made_of"] == made_of and stamp["figures"] == str(figures_folder(""))
        if not same or stamp["executed"] != _hash(executed) or not stamp["written"]:
            return True
        states = {Path(path): (was, _state(Path(path), seed)) for path, was in stamp["written"].items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return True
    rows = {path: state for path, state in states.items() if path.suffix == ".json"}
    if any(was["own"] != now["own"] for was, now in rows.values()):
        return True
    others_came = any(was != now for was, now in rows.values())
    if others_came:
        return seed == 0
    return any(was != now for was, now in states.values())


def _state(path: Path, seed: int) -> dict[str, str]:
    """Hashes of a file of rows, all of them and the seed's own, or of the bytes of any other file."""
    if path.suffix != ".json":
        return {"bytes": _hash(path)}
    rows = rows_of(path)
    own = [row for row in rows if row.get("seed", seed) == seed]
    return {"all": _rows_hash(rows), "own": _rows_hash(own) if own else "none"}


def rows_of(path: Path) -> list[Row]:
    """The rows of a file of results; none where there is no file, or a broken one."""
    try:
        return read_rows(path)
    except (OSError, ValueError):
        return []


def _rows_hash(rows: list[Row]) -> str:
    return hashlib.sha256(json.dumps(rows, sort_keys=True).encode()).hexdigest()

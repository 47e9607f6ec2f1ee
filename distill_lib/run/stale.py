"""What is stale, told by content alone: no clock, no time of a file, counts.

Beside an executed notebook lies its stamp, `.<name>.json`: a digest of all that it was made of, and the files that it
wrote with a hash of each file of rows. A notebook is stale where the digest differs or a file is missing.
"""

import hashlib
import json
from collections.abc import Iterable
from functools import cache
from pathlib import Path
from typing import Any

from distill_lib.engine.reach import notebook_files
from distill_lib.paths import ROOT
from distill_lib.run.notebooks import NOTEBOOKS, read

__all__ = ["digest", "is_stale", "rows_of", "stamp_path", "write_stamp"]


@cache
def _bytes_hash(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def digest(name: str, profile: str) -> str:
    """Hash of a notebook's cells, the library files that it reaches by import, profile, shipped weights and lock.

    Outputs of cells do not count: `publish` writes those.
    """
    library = notebook_files(NOTEBOOKS / f"{name}.ipynb")
    papers = (ROOT / "distill_lib" / "papers").glob("*.yaml") if any("papers" in p.parts for p in library) else []
    files = [*library, *sorted(papers), ROOT / "distill_lib" / "profiles" / f"{profile}.yaml"]
    files += [ROOT / "requirements.lock", *sorted((ROOT / "pretrained").glob("*/made.json"))]
    whole = hashlib.sha256()
    for cell in read(name).cells:
        whole.update(f"{cell.cell_type}\0{cell.source}\0".encode())
    for path in files:
        whole.update(f"{path.relative_to(ROOT)}\0{_bytes_hash(path)}\0".encode())
    return whole.hexdigest()


def stamp_path(executed: Path) -> Path:
    """Where the stamp of an executed notebook lies."""
    return executed.with_name(f".{executed.stem}.json")


def write_stamp(executed: Path, made_of: str, written: Iterable[Path]) -> None:
    """Keep what an executed notebook was made of, and what it wrote."""
    files = {str(p): _rows_hash(p) if p.suffix == ".json" else "" for p in sorted(set(written)) if p.exists()}
    part = stamp_path(executed).with_suffix(".part")
    part.write_text(json.dumps({"made_of": made_of, "written": files}, indent=1))
    part.replace(stamp_path(executed))


def is_stale(executed: Path, made_of: str, seed: int) -> bool:
    """Whether a notebook has to run: it never ended, is made of something else, or lacks a file or this seed's rows.

    The notebook of seed 0 is the one that is published, and shows the rows of all seeds: it runs again where other
    rows came after it.
    """
    try:
        stamp = json.loads(stamp_path(executed).read_text())
        if not executed.exists() or stamp["made_of"] != made_of or not stamp["written"]:
            return True
        files = {Path(path): was for path, was in stamp["written"].items()}
    except (OSError, ValueError, KeyError, TypeError):
        return True
    for path, was in files.items():
        if not path.exists():
            return True
        if path.suffix == ".json" and not any(row.get("seed", seed) == seed for row in rows_of(path)):
            return True
        if path.suffix == ".json" and seed == 0 and _rows_hash(path) != was:
            return True
    return False


def rows_of(path: Path) -> list[dict[str, Any]]:
    """The rows of a file of results; none where there is no file, or a broken one."""
    try:
        return json.loads(path.read_text())["rows"]
    except (OSError, ValueError, KeyError, TypeError):
        return []


def _rows_hash(path: Path) -> str:
    return hashlib.sha256(json.dumps(rows_of(path), sort_keys=True).encode()).hexdigest()

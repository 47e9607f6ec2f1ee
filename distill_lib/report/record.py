"""Writing results: figures/<profile>/<artefact>.{json,csv,md,png,svg}, each moved into place whole.

The JSON file holds tidy rows, one measured value a row, and where they came from; pictures and tables are drawn from it
alone. Rows of another seed are kept, rows of the same seed replaced. Rows of another seed that were measured in another
way (another number of samples `n`, other shipped weights) are no repeat of the same measurement: they are left out.
"""

import contextlib
import csv
import hashlib
import io
import json
import math
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from distill_lib.engine.files import atomic, locked
from distill_lib.engine.origin import origin
from distill_lib.measure.rows import Row, read_rows
from distill_lib.paths import COMMITTED, ROOT, figures_folder
from distill_lib.report.motion import gif
from distill_lib.shipped import pretrained


def own_folder(**settings: Any) -> str:
    """What the folder of a profile's artefacts ends in for settings of one's own, empty where none is given.

    Other settings give another folder, so that no table holds the rows of two experiments.
    """
    given = {key: value for key, value in settings.items() if value}
    digest = hashlib.sha256(json.dumps(given, sort_keys=True, default=str).encode()).hexdigest()
    return f"-own-{digest[:8]}" if given else ""


def load_record(profile: str, artefact: str) -> dict[str, Any]:
    """The file of an artefact: its rows and where they came from, last and by seed; empty if it has not been made."""
    path = figures_folder(profile) / f"{artefact}.json"
    if not path.exists():
        return {}
    try:
        record = json.loads(path.read_text())
        if all(isinstance(row, dict) for row in record["rows"]):
            return record
    except (ValueError, KeyError, TypeError):
        pass
    broken = path.replace(path.with_suffix(".broken"))
    print(f"{path} is damaged; it is kept as {broken.name}, and its rows are drawn anew", file=sys.stderr, flush=True)
    return {}


def load_rows(profile: str, artefact: str) -> list[Row]:
    """The rows of an artefact; none if it has not been made."""
    return load_record(profile, artefact).get("rows", [])


def curve_rows(method: str, curves: dict[int, list[tuple[float, float]]], seed: int) -> list[Row]:
    """Training curves (step, loss) by number of sampling steps as tidy rows, some fifty points each."""
    columns = {"method": method, "metric": "loss", "seed": seed}
    return [
        columns | {"steps": n, "update": update, "value": loss}
        for n, points in curves.items()
        for update, loss in points[:: max(1, len(points) // 50)]
    ]


def _check(artefact: str, rows: list[Row]) -> None:
    for row in rows:
        bad = [key for key, value in row.items() if isinstance(value, float) and not math.isfinite(value)]
        if bad:
            named = {key: value for key, value in row.items() if key not in (*bad, "metric")}
            where = ", ".join(f"{key}={value}" for key, value in named.items())
            raise ValueError(
                f"{artefact}: {bad[0]} of {row.get('metric', 'a row')} is {row[bad[0]]} at {where}; nothing was "
                "written: leave out what is undefined, or look for what is not finite"
            )


_MEASURED = ("seed", "n", "value", "error")  # all other columns say which cell a row belongs to


def _sizes(rows: list[Row]) -> dict[str, set[int]]:
    """The numbers of samples, `n`, behind each cell; rows without the column are passed over."""
    sizes: dict[str, set[int]] = {}
    for row in rows:
        if "n" in row:
            cell = ", ".join(f"{key}={value}" for key, value in sorted(row.items()) if key not in _MEASURED)
            sizes.setdefault(cell, set()).add(row["n"])
    return sizes


def _shipped(parents: list[str]) -> dict[str, str]:
    """The shipped folders among the keys of parents: name to key."""
    named = {key.rpartition("-")[0]: key for key in parents}
    return {name: key for name, key in named.items() if name and (pretrained.PRETRAINED / name).is_dir()}


def _unlike(old: list[Row], rows: list[Row], old_parents: list[str], parents: list[str]) -> str:
    """Why old rows of another seed are no repeat of the same measurement as new rows; empty if they are."""
    before, now = _sizes(old), _sizes(rows)
    for cell in before.keys() & now.keys():
        if before[cell] != now[cell]:
            return f"n={sorted(before[cell])} where the new rows have n={sorted(now[cell])} at {cell}"
    before, now = _shipped(old_parents), _shipped(parents)
    other = [f"{before[name]}, not {now[name]}" for name in before.keys() & now.keys() if before[name] != now[name]]
    return f"they rest on {other[0]}" if other else ""


class Recorder:
    """Writes the artefacts of one notebook run.

    Args:
        profile: name of the profile, and of the folder.
        dataset: what the pictures are.
        parents: keys of the runs and shipped folders that the results rest on.
        suffix: what the names of all artefacts end in, for real data.

    Raises:
        ValueError: the folder cannot be written to. Said at once, before anything is computed.
    """

    def __init__(self, profile: str, dataset: str, parents: list[str], suffix: str = "") -> None:
        self.profile, self.dataset, self.parents, self.suffix = profile, dataset, parents, suffix
        self.start = time.perf_counter()
        with atomic(figures_folder(profile) / ".writable"):
            pass
        (figures_folder(profile) / ".writable").unlink(missing_ok=True)  # another notebook may have done so

    def committed(self, artefact: str) -> list[Row]:
        """The rows that the repository holds of an artefact; none if it holds none."""
        return read_rows(ROOT / "figures" / COMMITTED / f"{artefact}{self.suffix}.json")

    def rows(self, artefact: str, rows: list[Row]) -> list[Row]:
        """Write rows as JSON and CSV; returns them with the kept rows of other seeds, which keep their own origin.

        Rows of other data are not kept. Rows of a seed that has another `n` in some cell, or rests on other weights of
        the same shipped folder, are not kept either, and a sentence says so. Rows without `n`, and seeds without
        parents, are as old files have them, and are kept. Nothing is written where there is nothing to add.

        Raises:
            ValueError: a number in a row is not finite.
        """
        artefact += self.suffix
        if not rows:
            return load_rows(self.profile, artefact)
        with _others_waiting():
            return self._merged(artefact, rows)

    def _merged(self, artefact: str, rows: list[Row]) -> list[Row]:
        seeds = {row.get("seed") for row in rows}
        old = load_record(self.profile, artefact)
        old_rows = old["rows"] if old.get("dataset") == self.dataset else []
        before = old.get("made", {})
        kept = []
        for seed in dict.fromkeys(row.get("seed") for row in old_rows if row.get("seed") not in seeds):
            of_seed = [row for row in old_rows if row.get("seed") == seed]
            if reason := _unlike(of_seed, rows, before.get(str(seed), {}).get("parents", []), self.parents):
                message = f"{artefact}: the rows of seed {seed} are left out, draw that seed again: {reason}"
                print(message, file=sys.stderr, flush=True)
            else:
                kept += of_seed
        rows = sorted(kept + rows, key=lambda row: row.get("seed", 0))
        _check(artefact, rows)
        paper = {"g": "guided", "s": "sdxs", "x": "both"}[artefact[0]]
        record = {"artefact": artefact, "paper": paper, "profile": self.profile, "dataset": self.dataset, "rows": rows}
        made = origin() | {"seconds": round(time.perf_counter() - self.start, 1), "parents": self.parents}
        known = {str(row.get("seed")) for row in kept}
        by_seed = {seed: made_by for seed, made_by in before.items() if seed in known} | {
            str(seed): made for seed in seeds
        }
        record |= made | {"made": dict(sorted(by_seed.items()))}
        self._write(artefact, "json", json.dumps(record, indent=1, allow_nan=False))
        table = io.StringIO()
        writer = csv.DictWriter(table, list(dict.fromkeys(key for row in rows for key in row)), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
        self._write(artefact, "csv", table.getvalue())
        return rows

    def table(self, artefact: str, markdown: str) -> str:
        """Write a table as Markdown; returns it."""
        with _others_waiting():
            self._write(artefact + self.suffix, "md", markdown)
        return markdown

    def figure(self, artefact: str, figure: Figure) -> Figure:
        """Write a figure as PNG and SVG; returns it."""
        for suffix in ("png", "svg"):
            path = figures_folder(self.profile) / f"{artefact}{self.suffix}.{suffix}"
            with _others_waiting(), atomic(path) as part:
                # no date inside: the same rows draw the same file
                figure.savefig(part, format=suffix, metadata={"Date": None} if suffix == "svg" else None)
            _tell(path)
        return figure

    def motion(self, artefact: str, frames: Sequence[Figure], milliseconds: Sequence[int]) -> Path:
        """Write an animation as GIF (`motion.gif`); returns its path."""
        path = figures_folder(self.profile) / f"{artefact}{self.suffix}.gif"
        with _others_waiting(), atomic(path) as part:
            part.write_bytes(gif(frames, milliseconds))
        _tell(path)
        return path

    def _write(self, artefact: str, suffix: str, text: str) -> None:
        path = figures_folder(self.profile) / f"{artefact}.{suffix}"
        with atomic(path) as part:
            part.write_text(text)
        _tell(path)


def _others_waiting() -> contextlib.AbstractContextManager[None]:
    """A block in which no other process writes results: the same notebook may run with another seed meanwhile."""
    return locked(figures_folder("") / ".rows.lock")


def _tell(path: Path) -> None:
    """Name a written file to the command that runs this notebook, which so knows when one is missing."""
    if listing := os.environ.get("DISTILL_WRITTEN"):
        with Path(listing).open("a") as file:
            file.write(f"{path}\n")

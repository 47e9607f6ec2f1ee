"""What a claim measures, computed from the tidy rows under figures/.

For each seed, of the rows that a part names:

    point = compare(value, reference) / limit      one for each combination of the fields in `each`               (1)
    cell  = reduce(points), or each point          max, median or min, where the part reduces                     (2)

Rows of a training of half the length, with its own decay, stand in an artefact of their own, `<artefact>-half`, in the
same form. They replace all rows of the methods that they name; the teacher's and other rows stay.                (3)
"""

import json
import math
from collections.abc import Callable
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from statistics import median
from typing import Any

from distill_lib.measure.rows import Row, read_rows
from distill_lib.papers.editions import Part, Select
from distill_lib.paths import figures_folder

Tables = dict[str, list[Row]]
HALF = "-half"
COMPARE: dict[str, Callable[[float, float], float]] = {
    "ratio": lambda value, reference: value / reference,
    "difference": lambda value, reference: value - reference,
    "distance": lambda value, reference: abs(value - reference),
    "change": lambda value, reference: (value - reference) / abs(reference),
    "departure": lambda value, reference: abs(value - reference) / abs(reference),
    "lack": lambda value, reference: reference - value,
    "shortfall": lambda value, reference: (reference - value) / abs(reference),
}
REDUCE: dict[str, Callable[[list[float]], float]] = {"max": max, "median": median, "min": min}


class MissingRows(LookupError):
    """A claim cannot be judged for a seed; the message says which row is absent or unusable."""


@dataclass(frozen=True)
class Place:
    """Where rows are: figures/<profile>, unless another folder of profiles is given, and names that end in `suffix`."""

    profile: str
    figures: Path | None = None
    suffix: str = ""

    @property
    def folder(self) -> Path:
        """The folder of the profile."""
        return self.figures / self.profile if self.figures else figures_folder(self.profile)

    def record(self, artefact: str) -> dict[str, Any]:
        """The file of an artefact, its rows and where they came from; {"rows": []} without; raises as `read_rows`."""
        rows = self.rows(artefact)
        return json.loads(self._path(artefact).read_text()) if rows else {"rows": rows}

    def rows(self, artefact: str) -> list[Row]:
        """The tidy rows of an artefact, as `read_rows`."""
        return read_rows(self._path(artefact))

    def _path(self, artefact: str) -> Path:
        return self.folder / f"{artefact}{self.suffix}.json"


def artefacts_of(parts: list[Part]) -> list[str]:
    """What parts read, in order of first appearance."""
    names = [select.artefact or part.artefact for part in parts for select in part.selects()]
    return list(dict.fromkeys(names))


def tables_of(parts: list[Part], place: Place) -> Tables:
    """The rows of all artefacts that parts read."""
    return {artefact: place.rows(artefact) for artefact in artefacts_of(parts)}


def half_tables(parts: list[Part], place: Place) -> tuple[Tables, Tables]:
    """Formula (3) for the seeds that were trained for half the length, and the rows of those trainings alone."""
    whole = tables_of(parts, place)
    half = {artefact: place.rows(artefact + HALF) for artefact in whole}
    seeds = {row.get("seed") for table in half.values() for row in table}
    mixed = {}
    for artefact, table in whole.items():
        trained = {row.get("method") for row in half[artefact]}
        others = [row for row in table if row.get("method") not in trained and row.get("seed") in seeds | {None}]
        mixed[artefact] = half[artefact] + others
    return mixed, half


def seeds_of(parts: list[Part], tables: Tables) -> list[int]:
    """The seeds of the rows that parts measure."""
    return sorted(
        {row["seed"] for part in parts for row in fitting(tables[part.artefact], part.value) if "seed" in row}
    )


def cells_of(part: Part, tables: Tables, seed: int) -> dict[str, float]:
    """Formula (2) for one seed, by names that say which cells they are; raises as `points_of`."""
    points, beside = points_of(part, tables, seed), _beside(part)
    if part.reduce:
        method = part.value.method
        of = f" of {method}" if isinstance(method, str) else ""
        return {f"{part.reduce} {part.value.metric}{of}{beside}": REDUCE[part.reduce](list(points.values()))}
    return {name + beside: point for name, point in points.items()}


def _beside(part: Part) -> str:
    """What of the reference is not the value's: " beside ddim, steps 2"."""
    if not part.reference:
        return ""
    pins, own = part.reference.pins(), part.value.pins()
    other = [str(pins[f]) if f in ("method", "metric") else f"{f} {pins[f]}" for f in pins if pins[f] != own.get(f)]
    return f" beside {', '.join(other)}" if other else ""


def points_of(part: Part, tables: Tables, seed: int) -> dict[str, float]:
    """The points (1) of a part for one seed, by a question that says which they are.

    Raises:
        MissingRows: a row is absent, or the number that comes out is not finite.
        ValueError: two rows answer the same question.
    """
    of_seed = {question: [row for row in table if row.get("seed", seed) == seed] for question, table in tables.items()}
    chosen = [row for row in fitting(of_seed[part.artefact], part.value) if all(field in row for field in part.each)]
    keys = [tuple(row[field] for field in part.each) for row in chosen]
    question = f"{part.artefact}: {_words(part.value.pins())}, seed {seed}"
    if len(set(keys)) < len(keys):
        raise ValueError(f"{question} has several rows; draw {part.artefact} again")
    lists = part.value.lists()
    wanted = set(product(*lists.values()))
    if not chosen or wanted - {tuple(row.get(field) for field in lists) for row in chosen}:
        raise MissingRows(f"{question} has no row" + (f", or not each {' and '.join(lists)}" if lists else ""))
    try:
        points = [_point(part, row, of_seed) for row in chosen]
    except ZeroDivisionError as error:
        raise MissingRows(f"{question} would be divided by 0") from error
    if not all(map(math.isfinite, points)):
        raise MissingRows(f"{question} is not finite")
    return dict(zip((_name(part, row) for row in chosen), points, strict=True))


def _name(part: Part, row: dict[str, Any]) -> str:
    """Which point a row gives: "fid of ours-D, steps 8, w 4"."""
    at = {field: row[field] for field in ("steps", "t", "w") if field in row}
    at |= {field: row[field] for field in part.each if field == "kind"}
    method = f" of {row['method']}" if "method" in row else ""
    return f"{part.value.metric}{method}" + (f", {_words(at)}" if at else "")


def _point(part: Part, row: dict[str, Any], of_seed: Tables) -> float:
    """Formula (1) for one row of the value."""
    at = {field: row[field] for field in part.each}

    def other(select: Select) -> float:
        return _only_value(of_seed[select.artefact or part.artefact], select, at, select.artefact or part.artefact)

    number = _read(row, part.value)
    if part.floor and part.reference:
        low = other(part.floor)
        number = (number - low) / (other(part.reference) - low)
    elif part.reference and part.compare:
        number = COMPARE[part.compare](number, other(part.reference))
    return number / (other(part.limit) if isinstance(part.limit, Select) else part.limit)


def _only_value(table: list[Row], select: Select, at: dict[str, Any], artefact: str) -> float:
    """The number of the only row that fits, at the same point as the value."""
    at = {field: x for field, x in at.items() if field not in select.pins()}
    matching = [row for row in fitting(table, select) if all(row.get(field, x) == x for field, x in at.items())]
    if not matching:
        raise MissingRows(f"{artefact} has no row for {_words(select.pins() | at)}")
    if len(matching) > 1:
        raise ValueError(f"{artefact}: {len(matching)} rows for {_words(select.pins() | at)}; draw it again")
    return _read(matching[0], select)


def fitting(table: list[Row], select: Select) -> list[Row]:
    """The rows that a selection names."""
    pins = {field: wanted for field, wanted in select.pins().items() if wanted != "most"}
    matching = [
        row
        for row in table
        if all(row.get(field) in (wanted if isinstance(wanted, list) else [wanted]) for field, wanted in pins.items())
    ]
    if select.steps != "most":
        return matching
    most = max((row.get("steps", 0) for row in matching), default=0)
    return [row for row in matching if row.get("steps", 0) == most]


def _read(row: dict[str, Any], select: Select) -> float:
    number = {"value": row["value"], "nfe": row.get("nfe"), "value_per_nfe": row["value"]}[select.read]
    number = number / row["nfe"] if select.read == "value_per_nfe" else number
    return math.nan if number is None else float(number)


def _words(fields: dict[str, Any]) -> str:
    return ", ".join(f"{field} {value}" for field, value in fields.items())

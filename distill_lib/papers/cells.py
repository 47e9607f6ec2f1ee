"""What a claim measures, computed from the tidy rows under figures/.

For each seed, of the rows that a part names:

    point = compare(value, reference) / limit      one for each combination of the fields in `each`               (1)
    cell  = reduce(points), or each point          max, median or min, where the part reduces                     (2)

Rows of a training of half the length, with its own decay, stand in an artefact of their own, `<artefact>-half`, in the
same form. They replace all rows of the methods that they name; the teacher's and other rows stay.                (3)

A reference r_s whose metric is one of `editions.UNBIASED` may be 0 or less at seed s, and a mean of ratios to noisy
numbers is biased. There a ratio, change, shortfall or departure is judged by a difference, on one scale R for all
seeds, with M the margin and l the limit of the part:

    cell_s = M + (N_s - M l r_s) / (l R)           R = the mean of r over seeds                                    (4)
    N_s    = value (ratio),  value - r_s (change),  r_s - value (shortfall),  +-(value - r_s) (departure: two cells)

For numbers without noise (4) equals (1). Its mean is the ratio of means, N / (l R), which lies at M where the mean of
N - M l r is 0: the interval over seeds is that of a paired difference, moved to M. R has to be above two of its
standard errors, the larger of the one from the column `error` of the rows and the one from the spread over seeds; else
the cell is not usable.
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
from distill_lib.papers.editions import Part, Rules, Select
from distill_lib.paths import figures_folder

Tables = dict[str, list[Row]]
Expected = dict[str, list[float | str]]
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
NUMERATOR: dict[str, Callable[[float, float], float]] = {
    "ratio": lambda value, reference: value,
    "change": lambda value, reference: value - reference,
    "shortfall": lambda value, reference: reference - value,
    "departure": lambda value, reference: value - reference,
}
_SIDES = {"departure": {", too high": 1.0, ", too low": -1.0}}
REDUCE: dict[str, Callable[[list[float]], float]] = {"max": max, "median": median, "min": min}


class MissingRows(LookupError):
    """A claim cannot be judged for a seed; the message says which row is absent or unusable."""


@dataclass(frozen=True)
class Point:
    """Formula (1) for one seed; of a part by difference N_s / l, with r_s and its standard error."""

    number: float
    reference: float = 0.0
    error: float = 0.0


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


def counted(rows: list[Row], rule: Rules) -> list[Row]:
    """The rows of the seeds that count, and those without a seed, once these seeds are as many as a verdict needs.

    Until then all rows. Pages and verdicts then show the same seeds, and none from before the definitions.
    """
    seeds = {row["seed"] for row in rows if row.get("seed", -1) >= rule.first_seed}
    return [row for row in rows if row.get("seed") in seeds | {None}] if len(seeds) >= rule.seeds else rows


def seeds_of(parts: list[Part], tables: Tables) -> list[int]:
    """The seeds of the rows that parts measure."""
    return sorted(
        {row["seed"] for part in parts for row in fitting(tables[part.artefact], part.value) if "seed" in row}
    )


def named_points(part: Part, tables: Tables, seed: int, expects: Expected) -> dict[str, Point]:
    """The points of a part for one seed, by names that say what is compared with what.

    Raises:
        MissingRows: a row is absent, that of an expected value of a field included, or a number is not finite.
        ValueError: two rows answer the same question.
    """
    beside = _beside(part)
    return {name + beside: point for name, point in _points(part, tables, seed, expects).items()}


def reduced(part: Part, points: dict[str, Point]) -> dict[str, Point]:
    """Formula (2): one cell if the part reduces, else each point."""
    if not part.reduce:
        return points
    method = part.value.method
    of = f" of {method}" if isinstance(method, str) else ""
    name = f"{part.reduce} {part.value.metric}{of}{_beside(part)}"
    return {name: Point(REDUCE[part.reduce]([point.number for point in points.values()]))}


def _beside(part: Part) -> str:
    """The fields in which the reference differs from the value: " beside ddim, steps 2"."""
    if not part.reference:
        return ""
    pins, own = part.reference.pins(), part.value.pins()
    other = [str(pins[f]) if f in ("method", "metric") else f"{f} {pins[f]}" for f in pins if pins[f] != own.get(f)]
    return f" beside {', '.join(other)}" if other else ""


def points_of(part: Part, tables: Tables, seed: int) -> dict[str, float]:
    """The numbers (1) of a part for one seed, by names of the value alone; raises as `named_points`."""
    return {name: point.number for name, point in _points(part, tables, seed, {}).items()}


def _points(part: Part, tables: Tables, seed: int, expects: Expected) -> dict[str, Point]:
    of_seed = {artefact: [row for row in table if row.get("seed", seed) == seed] for artefact, table in tables.items()}
    chosen = [row for row in fitting(of_seed[part.artefact], part.value) if all(field in row for field in part.each)]
    keys = [tuple(row[field] for field in part.each) for row in chosen]
    question = f"{part.artefact}: {_words(part.value.pins())}, seed {seed}"
    if len(set(keys)) < len(keys):
        raise ValueError(f"{question} has several rows; draw {part.artefact} again")
    lists = part.value.lists() | {field: expects[field] for field in part.each if field in expects}
    absent = set(product(*lists.values())) - {tuple(row.get(field) for field in lists) for row in chosen}
    if not chosen or absent:
        raise MissingRows(f"{question} has no row" + (f", or not each {' and '.join(lists)}" if lists else ""))
    try:
        points = {
            _name(part, row) + side: point for row in chosen for side, point in _compared(part, row, of_seed).items()
        }
    except ZeroDivisionError as error:
        raise MissingRows(f"{question} would be divided by 0") from error
    if not all(math.isfinite(x) for point in points.values() for x in (point.number, point.reference)):
        raise MissingRows(f"{question} is not finite")
    return points


def _name(part: Part, row: dict[str, Any]) -> str:
    """Which point a row gives: "fid of ours-D, steps 8, w 4"."""
    at = {field: row[field] for field in ("steps", "t", "w") if field in row}
    at |= {field: row[field] for field in part.each if field == "kind"}
    method = f" of {row['method']}" if "method" in row else ""
    return f"{part.value.metric}{method}" + (f", {_words(at)}" if at else "")


def _compared(part: Part, row: Row, of_seed: Tables) -> dict[str, Point]:
    """The point of one row of the value, or the two sides of a departure, by what their names end in."""
    if not part.by_difference or part.compare is None:
        return {"": Point(_number(part, row, of_seed))}
    other = _other(part, row, of_seed, part.reference)
    reference, error = _read(other, part.reference), float(other.get("error", 0.0))
    number = NUMERATOR[part.compare](_read(row, part.value), reference) / part.limit
    sides = _SIDES.get(part.compare, {"": 1.0})
    return {side: Point(sign * number, reference, error) for side, sign in sides.items()}


def _number(part: Part, row: Row, of_seed: Tables) -> float:
    """Formula (1) for one row of the value."""

    def other(select: Select) -> float:
        return _read(_other(part, row, of_seed, select), select)

    number = _read(row, part.value)
    if part.floor and part.reference:
        low = other(part.floor)
        number = (number - low) / (other(part.reference) - low)
    elif part.reference and part.compare:
        number = COMPARE[part.compare](number, other(part.reference))
    return number / (other(part.limit) if isinstance(part.limit, Select) else part.limit)


def _other(part: Part, row: Row, of_seed: Tables, select: Select) -> Row:
    """The only row of another selection of the part at the same point as a row of the value."""
    artefact = select.artefact or part.artefact
    at = {field: row[field] for field in part.each if field not in select.pins()}
    matching = [o for o in fitting(of_seed[artefact], select) if all(o.get(field, x) == x for field, x in at.items())]
    if not matching:
        raise MissingRows(f"{artefact} has no row for {_words(select.pins() | at)}")
    if len(matching) > 1:
        raise ValueError(f"{artefact}: {len(matching)} rows for {_words(select.pins() | at)}; draw it again")
    return matching[0]


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

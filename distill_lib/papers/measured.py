"""The cells of a claim over all seeds that count: formulas (2) and (4) of `cells`, seed by seed.

A seed counts from `first_seed` on. It is complete if it has all cells: those that the claim expects, and those that any
other seed has. An incomplete seed gives no value, is named in a note, and stands in the way of `supported`.

A cell that reads shipped weights has one value per training, the mean over its seeds; any other has one per seed. A
cost takes all seeds, those below `first_seed` too.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from statistics import fmean, stdev

from distill_lib.measure.metrics import interval
from distill_lib.measure.rows import SEEDS
from distill_lib.papers.cells import Expected, MissingRows, Point, Tables, fitting, named_points, reduced, seeds_of
from distill_lib.papers.editions import Direction, Judged, Part, Select

Points = dict[str, Point]
Draws = dict[int | None, list[Points]]
"""By unit, a seed or a training of shipped weights: the points of each of its seeds."""
_ERRORS_ABOVE = 2.0  # standard errors of a reference above 0


@dataclass(frozen=True, eq=False)
class Cell:
    """One number that a claim sets a limit to, measured once a seed or training.

    part: the place of its part in the claim.
    units: the seed, or the training of shipped weights, of each value.
    scale: R of formula (4) of `cells`, where it judges the cell.
    usable: whether R is told from 0; else the cell neither passes nor fails.
    """

    part: int
    name: str
    values: list[float]
    once: bool = False
    units: list[int | None] = field(default_factory=list)
    scale: float | None = None
    usable: bool = True

    @property
    def mean(self) -> float:
        """Over seeds or trainings."""
        return fmean(self.values)

    def interval(self, confidence: float) -> tuple[float, float]:
        """Mean -+ formula (2) of `verdicts`; the number itself for a cost that was measured fewer than three times."""
        few = self.once and len(self.values) < SEEDS
        low, high = (self.mean, self.mean) if few else interval(self.values, confidence)
        return float(low), float(high)  # numpy's numbers compare to what JSON does not know

    def passes(self, margin: float, direction: Direction, confidence: float) -> bool:
        """Formula (3) of `verdicts` for this cell."""
        low, high = self.interval(confidence)
        return self.usable and (high <= margin if direction == "at_most" else low >= margin)

    def fails(self, margin: float, direction: Direction, confidence: float) -> bool:
        """Formula (4) of `verdicts` for this cell, at a confidence that is corrected already."""
        low, high = self.interval(confidence)
        return self.usable and (low > margin if direction == "at_most" else high < margin)


@dataclass(frozen=True)
class Measured:
    """The cells of a claim or gate.

    seeds: those that count and are complete; of a claim of costs alone all.
    left_out: a sentence for each incomplete seed.
    trainings: the fewest trainings of shipped weights that a cell rests on; None if none reads shipped weights.
    """

    cells: list[Cell]
    seeds: list[int]
    left_out: list[str]
    trainings: int | None = None

    @property
    def units(self) -> int:
        """The fewest seeds or trainings that a cell rests on, costs apart."""
        return min((len(cell.values) for cell in self.cells if not cell.once), default=0)


def measured(claim: Judged, tables: Tables, first_seed: int) -> Measured:
    """The cells of a claim or gate; none where no seed is complete or a cost is not measured.

    Raises:
        ValueError: two rows answer the same question.
    """
    parts = dict(enumerate(claim.effect))
    seeded = {place: part for place, part in parts.items() if not part.once}
    counted = [seed for seed in seeds_of(list(seeded.values()), tables) if seed >= first_seed]
    seeds, draws, absent = _complete(claim, seeded, tables, counted)
    left_out = [f"seed {seed} left out: {reason}" for seed, reason in absent.items()]
    for place, part in parts.items():
        if part.once:
            every = seeds_of([part], tables) or [0]
            at_seeds, cost, absent = _complete(claim, {place: part}, tables, every)
            draws |= cost
            left_out += [f"cost of seed {seed} left out: {reason}" for seed, reason in absent.items()]
            seeds = seeds if seeded else sorted({*seeds, *at_seeds})
    if not all(draws.values()):
        return Measured([], seeds, left_out)
    cells = [cell for place, part in parts.items() for cell in cells_of(place, part, draws[place], claim.margin)]
    shipped = [cell for cell in cells if _shipped(parts[cell.part], claim.one_training)]
    return Measured(cells, seeds, left_out, min((len(cell.units) for cell in shipped), default=None))


def _complete(
    claim: Judged, parts: dict[int, Part], tables: Tables, seeds: list[int]
) -> tuple[list[int], dict[int, Draws], dict[int, str]]:
    """The complete ones of these seeds, what they give for each part, and why each other seed is incomplete."""
    at_seed: dict[int, dict[int, dict[int | None, Points]]] = {}
    absent = {}
    for seed in seeds:
        try:
            at_seed[seed] = {
                place: draws_of(part, claim.one_training, claim.expects, tables, seed) for place, part in parts.items()
            }
        except MissingRows as reason:
            absent[seed] = str(reason)
    names = {place: [n for of in at_seed.values() for points in of[place].values() for n in points] for place in parts}
    for seed, of_part in at_seed.items():
        of_draws = [(place, points) for place, draws in of_part.items() for points in draws.values()]
        if lacking := {name: None for place, points in of_draws for name in names[place] if name not in points}:
            absent[seed] = f"no {', '.join(lacking)}, which another seed has"
    complete = [seed for seed in at_seed if seed not in absent]
    return complete, {place: gathered(at_seed[seed][place] for seed in complete) for place in parts}, absent


def draws_of(
    part: Part, methods: Sequence[str], expects: Expected, tables: Tables, seed: int
) -> dict[int | None, Points]:
    """The points of a part for one seed, by unit: the seed, or each training of shipped weights.

    `methods` are of shipped weights. None stands for the one training of their rows without a column `training`. Raises
    as `cells.named_points`.
    """
    shipped = _shipped(part, methods)
    if not shipped:
        return {seed: named_points(part, tables, seed, expects)}
    rows = [row for select in shipped for row in fitting(tables[select.artefact or part.artefact], select)]
    trainings = {row["training"] for row in rows if "training" in row and row.get("seed") == seed}
    of_training = {training: _restricted(tables, methods, training) for training in sorted(trainings)}
    return {
        training: named_points(part, rows_of, seed, expects)
        for training, rows_of in (of_training or {None: tables}).items()
    }


def _shipped(part: Part, methods: Sequence[str]) -> list[Select]:
    """The selections of a part that name one of these methods."""
    return [x for x in part.selects() if set(x.method if isinstance(x.method, list) else [x.method]) & set(methods)]


def _restricted(tables: Tables, methods: Sequence[str], training: int) -> Tables:
    """The tables with, of the rows of these methods, those of one training alone."""
    return {
        artefact: [
            row for row in table if row.get("method") not in methods or row.get("training", training) == training
        ]
        for artefact, table in tables.items()
    }


def gathered(draws: Iterable[dict[int | None, Points]]) -> Draws:
    """What several seeds give, by unit."""
    of_unit: Draws = {}
    for draw in draws:
        for unit, points in draw.items():
            of_unit.setdefault(unit, []).append(points)
    return of_unit


def cells_of(place: int, part: Part, draws: Draws, margin: float) -> list[Cell]:
    """The cells of one part, each of its values the mean over the seeds of a unit."""
    cells = []
    for name in reduced(part, next(iter(draws.values()))[0]):
        scale, usable = _scale(name, draws) if part.by_difference else (None, True)
        values = values_of(name, part, draws, margin, scale)
        cells.append(Cell(place, name, list(values.values()), part.once, list(values), scale, usable))
    return cells


def values_of(name: str, part: Part, draws: Draws, margin: float, scale: float | None) -> dict[int | None, float]:
    """The values of a cell by unit, by formula (2) or (4) of `cells`; without the units that lack it."""
    of_unit = {unit: [reduced(part, points).get(name) for points in of] for unit, of in draws.items()}
    return {
        unit: fmean(
            point.number if scale is None else margin + (point.number - margin * point.reference) / scale
            for point in points
        )
        for unit, points in of_unit.items()
        if all(points)
    }


def _scale(name: str, draws: Draws) -> tuple[float, bool]:
    """R of formula (4) of `cells`, and whether it is told from 0; where it is not, twice its standard error instead."""
    points = [[of_seed[name] for of_seed in of_unit] for of_unit in draws.values()]
    references = [fmean(point.reference for point in of_unit) for of_unit in points]
    errors = [point.error for of_unit in points for point in of_unit]
    by_rows = math.sqrt(sum(error**2 for error in errors)) / len(errors)
    by_spread = stdev(references) / math.sqrt(len(references)) if len(references) > 1 else 0.0
    mean, least = fmean(references), _ERRORS_ABOVE * max(by_rows, by_spread)
    return max(mean, least) or 1.0, mean > least


def mean_of(part: Part, shipped: Sequence[str], tables: Tables, seeds: list[int]) -> float:
    """The mean of the first cell of a part that is told beside a verdict; raises as `cells.named_points`."""
    return cells_of(0, part, gathered(draws_of(part, shipped, {}, tables, seed) for seed in seeds), 1.0)[0].mean

"""The two rules that make a verdict of cells (`cells`, formula 2).

First edition, frozen:

    part   = reduce(points)                    once a seed
    effect = max(parts)  if direction is at_most,  min(parts)  if it is at_least: the worst part decides           (1)

`supported` if all of the 95 % t interval of (1) over seeds lies on the right side of `margin`, `contradicted` if all of
it lies on the wrong side, else `inconclusive`; always the last with fewer than three seeds.

Second edition, of m cells, with x the mean of a cell over seeds, s its deviation, n their number:

    half(a)      = t(1 - a / 2; n - 1) s / sqrt(n)                                                                 (2)
    supported      if every cell passes: x + half(0.05) <= margin      (at_least: x - half(0.05) >= margin)        (3)
    contradicted   if a cell fails:      x - half(0.05 / m) > margin   (Bonferroni)                                (4)
    detectable   = (t(0.975; n - 1) + t(0.8; n - 1)) s / sqrt(n)       of the cell that decides                    (5)

(3) is an intersection-union test: no correction is due where all must pass. (5) is the distance from the margin that
as many seeds tell in four of five repeats. A cost that is measured once, or less often than three times, passes or
fails by its number. Effect and interval of a claim are those of the cell that decides: of those that fail (4) the one
with the worst mean, else the one whose interval reaches farthest towards, or beyond, the margin.

A claim that rests on a training is `still learning` where each cell that fails (4) moved with the second half of the
training by more than a quarter of its distance to the margin:

    |effect - effect of half the length| > 0.25 |effect - margin|      for a seed that has both                    (6)

Without rows of half the length the verdict is `contradicted`, and `half_length` says "not run". A cost that fails needs
none.
"""

import math
from dataclasses import dataclass
from itertools import product
from statistics import fmean, median
from typing import Any, Literal

from distill_lib.measure.metrics import interval
from distill_lib.measure.rows import SEEDS
from distill_lib.papers.cells import (
    REDUCE,
    MissingRows,
    Place,
    Tables,
    cells_of,
    fitting,
    half_tables,
    points_of,
    seeds_of,
    tables_of,
)
from distill_lib.papers.editions import First, Gate, Part, Rules, Second

Direction = Literal["at_most", "at_least"]
PLUMBING = "smoke: plumbing only"
_LISTED = 3  # failing cells that a note names


# --- first edition


def part_value(part: Part, tables: Tables, seed: int) -> float:
    """The reduced points of a part for one seed; raises as `cells.points_of`."""
    points = list(points_of(part, tables, seed).values())
    return REDUCE[part.reduce](points) if part.reduce else points[0]


def first_effect(claim: First, tables: Tables, seed: int) -> float:
    """Formula (1) for one seed; raises as `cells.points_of`."""
    parts = [part_value(part, tables, seed) for part in claim.effect]
    return max(parts) if claim.direction == "at_most" else min(parts)


def first_verdict(effects: list[float], claim: First, profile: str) -> tuple[str, str]:
    """The verdict on an effect measured once a seed, and a note that says why it is no stronger (or nothing)."""
    if profile == "smoke":
        return "inconclusive", PLUMBING
    if claim.one_training:
        return "inconclusive", "one training, whatever the seed of the noise"
    if len(effects) < SEEDS:
        return "inconclusive", f"{len(effects)} of the {SEEDS} seeds that a verdict needs"
    low, high, margin, direction = *interval(effects), float(claim.margin or 0), claim.direction
    if (high <= margin) if direction == "at_most" else (low >= margin):
        return "supported", ""
    if (low > margin) if direction == "at_most" else (high < margin):
        return "contradicted", ""
    return "inconclusive", "the interval holds the margin"


def first_misses(claim: First, tables: Tables, seeds: list[int]) -> list[str]:
    """Where a claim fails: the points whose mean over seeds lies beyond the margin, the worst first."""
    margin, beyond = float(claim.margin or 0), {}
    for part in claim.effect:
        of_seed = [points_of(part, tables, seed) for seed in seeds]
        if part.reduce == "median":  # no single point of it decides
            of_seed = [{f"median {part.value.metric}": median(points.values())} for points in of_seed]
        means = {name: fmean(points[name] for points in of_seed) for name in of_seed[0]}
        beyond |= {n: x for n, x in means.items() if (x > margin if claim.direction == "at_most" else x < margin)}
    return misses(beyond, margin)


def misses(cells: dict[str, float], margin: float, heading: str = "fails at") -> list[str]:
    """A note that names cells, those farthest from the margin first; none where there are none."""
    worst = sorted(cells, key=lambda name: abs(cells[name] - margin), reverse=True)
    listed = [f"{name}: {cells[name]:.3g}" for name in worst[:_LISTED]]
    rest = [f"and {len(worst) - _LISTED} more"] if len(worst) > _LISTED else []
    return [f"{heading} {'; '.join(listed + rest)}"] if worst else []


# --- second edition


@dataclass(frozen=True, eq=False)
class Cell:
    """One number that a claim sets a limit to, measured once a seed; `part` is the place of its part in the claim."""

    part: int
    name: str
    values: list[float]
    once: bool = False

    @property
    def mean(self) -> float:
        """Over seeds."""
        return fmean(self.values)

    def interval(self, confidence: float) -> tuple[float, float]:
        """Mean -+ formula (2); the number itself for a cost that was measured fewer than three times."""
        few = self.once and len(self.values) < SEEDS
        low, high = (self.mean, self.mean) if few else interval(self.values, confidence)
        return float(low), float(high)  # numpy's numbers compare to what JSON does not know

    def passes(self, margin: float, direction: Direction, confidence: float) -> bool:
        """Formula (3) for this cell."""
        low, high = self.interval(confidence)
        return high <= margin if direction == "at_most" else low >= margin

    def fails(self, margin: float, direction: Direction, confidence: float) -> bool:
        """Formula (4) for this cell, at a confidence that is corrected already."""
        low, high = self.interval(confidence)
        return low > margin if direction == "at_most" else high < margin


def measured(effect: list[Part], tables: Tables, first_seed: int) -> tuple[list[Cell], list[int], list[str]]:
    """The cells of a claim, the seeds that count (all, of costs alone), and a sentence for each that is left out."""
    seeded = [part for part in effect if not part.once]
    of_seed, left_out = {}, []
    for seed in (seed for seed in seeds_of(seeded, tables) if seed >= first_seed):
        try:
            of_seed[seed] = [{} if part.once else cells_of(part, tables, seed) for part in effect]
        except MissingRows as reason:
            left_out.append(f"seed {seed} left out: {reason}")
    cells = []
    for i, part in enumerate(effect):
        try:
            costs = [cells_of(part, tables, seed) for seed in seeds_of([part], tables) or [0]] if part.once else []
        except MissingRows as reason:
            return [], list(of_seed), [*left_out, f"no cost: {reason}"]
        of_part = costs or [parts[i] for parts in of_seed.values()]
        names = of_part[0] if of_part else {}
        cells += [Cell(i, name, [numbers[name] for numbers in of_part], part.once) for name in names]
    return (cells if of_seed or not seeded else []), list(of_seed) if seeded else seeds_of(effect, tables), left_out


def worst(cells: list[Cell], direction: Direction) -> Cell:
    """The cell with the largest mean, or the smallest if direction is at_least."""
    return (max if direction == "at_most" else min)(cells, key=lambda cell: cell.mean)


def deciding(claim: Second, cells: list[Cell], failing: list[Cell], rule: Rules) -> Cell:
    """The cell whose effect and interval are the claim's."""
    if failing or any(math.isnan(cell.interval(rule.confidence)[0]) for cell in cells):
        return worst(failing or cells, claim.direction)
    if claim.direction == "at_most":
        return max(cells, key=lambda cell: cell.interval(rule.confidence)[1])
    return min(cells, key=lambda cell: cell.interval(rule.confidence)[0])


def holds(gate: Gate, place: Place, first_seed: int) -> bool | None:
    """Whether the mean of a gate's worst cell lies on the right side of its margin; None without rows."""
    cells, _, _ = measured(gate.effect, tables_of(gate.effect, place), first_seed)
    if not cells:
        return None
    mean = worst(cells, gate.direction).mean
    return mean <= gate.margin if gate.direction == "at_most" else mean >= gate.margin


def second_verdict(claim: Second, cells: list[Cell], rule: Rules) -> tuple[str, list[Cell]]:
    """`supported`, `contradicted` or `inconclusive` by (3) and (4), and the cells that fail (4)."""
    margin, direction = claim.margin, claim.direction
    if all(cell.passes(margin, direction, rule.confidence) for cell in cells):
        return "supported", []
    corrected = 1 - (1 - rule.confidence) / len(cells)
    failing = [cell for cell in cells if cell.fails(margin, direction, corrected)]
    return ("contradicted" if failing else "inconclusive"), failing


def learning(claim: Second, failing: list[Cell], seeds: list[int], place: Place, rule: Rules) -> str:
    """Formula (6) for cells that fail: "moving" if all do, "steady" if one does not, else "not run"."""
    tables, half = half_tables(claim.effect, place)
    trained = {row.get("seed") for table in half.values() for row in table} & set(seeds)
    moved: dict[Cell, bool] = {}
    for cell, seed in product(failing, trained):
        part = claim.effect[cell.part]
        if not any(fitting(half[select.artefact or part.artefact], select) for select in part.selects()):
            continue  # all that this cell reads was trained for the whole length
        try:
            then = cells_of(part, tables, seed)[cell.name]
        except MissingRows:
            continue
        now = cell.values[seeds.index(seed)]
        moves = abs(now - then) > rule.moved * abs(now - claim.margin)
        moved[cell] = moved.get(cell, False) or moves
    if not all(moved.values()):
        return "steady"
    return "moving" if len(moved) == len(failing) else "not run"


def trainings_of(claim: Second, place: Place, seeds: list[int]) -> set[int]:
    """The trainings that the rows of these seeds number, in a column `training`, of shipped weights."""
    tables = tables_of(claim.effect, place)
    rows = [row for part in claim.effect for row in fitting(tables[part.artefact], part.value)]
    return {row["training"] for row in rows if "training" in row and row.get("seed") in seeds}


def detectable(cell: Cell, rule: Rules) -> float | None:
    """Formula (5); None for fewer seeds than a verdict needs."""
    from scipy.stats import t

    n = len(cell.values)
    if n < rule.seeds:
        return None
    low, high = interval(cell.values, rule.confidence)
    two_sided = t.ppf(0.5 + rule.confidence / 2, n - 1)
    smallest = (high - low) / 2 * (1 + t.ppf(rule.power, n - 1) / two_sided)
    return float(smallest) if math.isfinite(smallest) else None


def notes_of(claim: Second, cells: list[Cell], rule: Rules) -> list[str]:
    """Which cells fail by their mean, and, from enough seeds on, which pass by their mean alone."""
    sign = 1 if claim.direction == "at_most" else -1
    beyond = {cell.name: cell.mean for cell in cells if sign * cell.mean > sign * claim.margin}
    undecided = {
        cell.name: cell.mean
        for cell in cells
        if cell.name not in beyond
        and len(cell.values) >= rule.seeds
        and not cell.passes(claim.margin, claim.direction, rule.confidence)
    }
    return misses(beyond, claim.margin) + misses(undecided, claim.margin, "undecided at")


def table_of(cells: list[Cell], claim: Second, rule: Rules) -> list[dict[str, Any]]:
    """The cells as data: name, mean, interval, and whether each passes."""
    table = []
    for cell in cells:
        low, high = (x if math.isfinite(x) else None for x in cell.interval(rule.confidence))
        passed = cell.passes(claim.margin, claim.direction, rule.confidence)
        table.append({"cell": cell.name, "effect": cell.mean, "low": low, "high": high, "passes": passed})
    return table

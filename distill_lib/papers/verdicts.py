"""The two rules that make a verdict of cells (`cells`, formula 2).

First edition, frozen:

    part   = reduce(points)                    once a seed
    effect = max(parts)  if direction is at_most,  min(parts)  if it is at_least: the worst part decides           (1)

`supported` if all of the 95 % t interval of (1) over seeds lies on the right side of `margin`, `contradicted` if all of
it lies on the wrong side, else `inconclusive`; always the last with fewer than three seeds.

Second edition, of m cells, with x the mean of a cell over seeds (`measured`), s its deviation, n their number:

    half(a)      = t(1 - a / 2; n - 1) s / sqrt(n)                                                                 (2)
    supported      if every cell passes: x + half(0.05) <= margin      (at_least: x - half(0.05) >= margin)        (3)
    contradicted   if a cell fails:      x - half(0.05 / m) > margin   (Bonferroni)                                (4)
    detectable   = (t(0.975; n - 1) + t(0.8; n - 1)) s / sqrt(n)       of the cell that decides                    (5)

(3) is an intersection-union test: where all cells have to pass, the error of the whole is no larger than that of one,
and no correction for their number is needed. (5) is the distance from the margin that as many seeds tell in about four
of five repeats (with 3 seeds 77 in a hundred). A cost that is measured once, or less often than three times, passes or
fails by its number. Effect and interval of a claim are those of the cell that decides: of the cells that fail (4) the
one with the worst mean, else the one whose interval ends farthest beyond the margin, or nearest to it.

There is no `supported` while a seed that counts is incomplete, or where the reference of a cell is not told from 0
(`cells`, formula 4); such a cell does not contradict either. Less than that may still be `contradicted`.

A claim that rests on a training is `still learning` where each cell that fails (4) moved towards the margin with the
second half of the training, by more than a quarter of its distance and by more than the seeds scatter:

    move = mean of (half - full), at_least: of (full - half), over the seeds that have both lengths
    move > 0.25 |x - margin|  and  move > 2 s                                                                      (6)

s is that of the whole length; both lengths share their noise, so that the second condition is a cautious one. With
fewer than three seeds s is not known, and without rows of half the length there is no move: then the verdict is
`contradicted`, and `half_length` says "not run". A cost that fails needs none.
"""

import math
from collections.abc import Iterator
from contextlib import suppress
from statistics import fmean, median, stdev
from typing import Any

from distill_lib.measure.metrics import interval
from distill_lib.measure.rows import SEEDS
from distill_lib.papers.cells import REDUCE, MissingRows, Place, Tables, fitting, half_tables, points_of, tables_of
from distill_lib.papers.editions import First, Gate, Judged, Part, Rules, Second
from distill_lib.papers.measured import Cell, Points, draws_of, gathered, measured, values_of

SIGN = {"at_most": 1, "at_least": -1}
"""The direction of what is beyond the margin."""
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


def worst(cells: list[Cell], direction: str) -> Cell:
    """The cell with the largest mean, or the smallest if direction is at_least."""
    return max(cells, key=lambda cell: SIGN[direction] * cell.mean)


def deciding(claim: Judged, cells: list[Cell], failing: list[Cell], rule: Rules) -> Cell:
    """The cell whose effect and interval are the claim's, one that is usable if there is any."""
    cells = [cell for cell in cells if cell.usable] or cells
    if failing or any(math.isnan(cell.interval(rule.confidence)[0]) for cell in cells):
        return worst(failing or cells, claim.direction)
    if claim.direction == "at_most":
        return max(cells, key=lambda cell: cell.interval(rule.confidence)[1])
    return min(cells, key=lambda cell: cell.interval(rule.confidence)[0])


def holds(gate: Gate, place: Place, rule: Rules) -> bool | None:
    """Whether a gate is passed, by the rule of the claims; None where its rows support and contradict neither."""
    of_gate = measured(gate, tables_of(gate.effect, place), rule.first_seed)
    if of_gate.units < rule.seeds:
        return None
    verdict, _ = second_verdict(gate, of_gate.cells, rule)
    return {"contradicted": False, "supported": None if of_gate.left_out else True}.get(verdict)


def second_verdict(claim: Judged, cells: list[Cell], rule: Rules) -> tuple[str, list[Cell]]:
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
    trained = sorted({row["seed"] for table in half.values() for row in table if "seed" in row} & set(seeds))
    moving: dict[Cell, bool] = {}
    for cell in failing:
        part = claim.effect[cell.part]
        if not any(fitting(half[select.artefact or part.artefact], select) for select in part.selects()):
            continue  # all that this cell reads was trained for the whole length
        draws = gathered(_draws_that_are_there(claim, part, tables, trained))
        then = values_of(cell.name, part, draws, claim.margin, cell.scale)
        now = dict(zip(cell.units, cell.values, strict=True))
        moves = [(then[unit] - now[unit]) * SIGN[claim.direction] for unit in then if unit in now]
        if moves and len(cell.values) >= rule.seeds:
            least = max(rule.moved * abs(cell.mean - claim.margin), rule.beyond_noise * stdev(cell.values))
            moving[cell] = fmean(moves) > least
    if not all(moving.values()):
        return "steady"
    return "moving" if len(moving) == len(failing) else "not run"


def _draws_that_are_there(
    claim: Second, part: Part, tables: Tables, seeds: list[int]
) -> Iterator[dict[int | None, Points]]:
    """What the seeds of half the length give, which may have fewer cells, but no cell reduced from fewer points."""
    expects = claim.expects if part.reduce else {}
    for seed in seeds:
        with suppress(MissingRows):
            yield draws_of(part, claim.one_training, expects, tables, seed)


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
    """Which cells fail by their mean; with enough seeds, which pass by their mean alone; and which are not usable."""
    sign, untold = SIGN[claim.direction], [cell.name for cell in cells if not cell.usable]
    beyond = {cell.name: cell.mean for cell in cells if cell.usable and sign * cell.mean > sign * claim.margin}
    undecided = {
        cell.name: cell.mean
        for cell in cells
        if cell.usable
        and cell.name not in beyond
        and len(cell.values) >= rule.seeds
        and not cell.passes(claim.margin, claim.direction, rule.confidence)
    }
    notes = misses(beyond, claim.margin) + misses(undecided, claim.margin, "undecided at")
    return [*notes, *(f"the reference is not told from 0: {name}" for name in untold)]


def table_of(cells: list[Cell], claim: Second, rule: Rules) -> list[dict[str, Any]]:
    """The cells as data: name, mean, interval, whether each passes, and whether its reference is told from 0."""
    table = []
    for cell in cells:
        low, high = (x if math.isfinite(x) else None for x in cell.interval(rule.confidence))
        passed = cell.passes(claim.margin, claim.direction, rule.confidence)
        columns = {"cell": cell.name, "effect": cell.mean, "low": low, "high": high}
        table.append(columns | {"passes": passed, "usable": cell.usable})
    return table

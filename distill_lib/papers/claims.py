"""The manifest of a paper, and the verdicts on its claims, computed from the rows under figures/.

What a claim measures is data. For each seed, from the tidy rows of an artefact:

    point  = compare(value, reference) / limit      one for each combination of the fields in `each`               (1)
    part   = reduce(points)                         max, median or min                                             (2)
    effect = max(parts)  if direction is at_most,  min(parts)  if it is at_least: the worst part decides           (3)

The 95 % t interval of (3) over seeds gives the verdict: `supported` if all of it lies on the right side of `margin`,
`contradicted` if all of it lies on the wrong side, else `inconclusive`; always the last with fewer than three seeds, or
where all seeds share one training (`one_training`).

Results on real data, whose artefacts end in a suffix of their own, are judged apart, by the same margins.
"""

import json
import math
import sys
from collections.abc import Callable
from itertools import product
from pathlib import Path
from statistics import fmean, median
from typing import Any

from distill_lib.engine.files import atomic
from distill_lib.measure.metrics import interval
from distill_lib.measure.rows import SEEDS, Row, read_rows
from distill_lib.papers.manifest import PAPERS, Claim, Part, Select, load_paper
from distill_lib.paths import figures_folder

COMPARE: dict[str, Callable[[float, float], float]] = {
    "ratio": lambda value, reference: value / reference,
    "difference": lambda value, reference: value - reference,
    "distance": lambda value, reference: abs(value - reference),
    "change": lambda value, reference: (value - reference) / abs(reference),
    "departure": lambda value, reference: abs(value - reference) / abs(reference),
}
_NAMED = 3  # failing points that a note names
REDUCE: dict[str, Callable[[list[float]], float]] = {"max": max, "median": median, "min": min}


class MissingRows(LookupError):
    """A claim cannot be judged for a seed; the message says which row is absent or unusable."""


def _folder(profile: str, figures: Path | None) -> Path:
    return figures / profile if figures else figures_folder(profile)


def rows(profile: str, artefact: str, figures: Path | None = None) -> list[Row]:
    """The tidy rows of figures/<profile>/<artefact>.json, as `read_rows`; `figures` is the folder of all profiles."""
    return read_rows(_folder(profile, figures) / f"{artefact}.json")


def effect(claim: Claim, tables: dict[str, list[Row]], seed: int) -> float:
    """Formula (3) for one seed; raises as `part_value`."""
    parts = [part_value(part, tables[part.artefact], seed) for part in claim.effect]
    return max(parts) if claim.direction == "at_most" else min(parts)


def part_value(part: Part, table: list[Row], seed: int) -> float:
    """Formula (2) for one seed; raises as `part_points`."""
    points = list(part_points(part, table, seed).values())
    return REDUCE[part.reduce](points) if part.reduce else points[0]


def part_points(part: Part, table: list[Row], seed: int) -> dict[str, float]:
    """The points (1) that (2) reduces, for one seed, by a name that says which they are.

    Raises:
        MissingRows: a row is absent, or the number that comes out is not finite.
        ValueError: two rows answer the same question.
    """
    of_seed = [row for row in table if row.get("seed", seed) == seed]
    chosen = [row for row in _fitting(of_seed, part.value) if all(field in row for field in part.each)]
    keys = [tuple(row[field] for field in part.each) for row in chosen]
    subject = f"{part.artefact}: {_words(part.value.pins())}, seed {seed}"
    if len(set(keys)) < len(keys):
        raise ValueError(f"{subject} has several rows; draw {part.artefact} again")
    lists = part.value.lists()
    wanted = set(product(*lists.values()))
    if not chosen or wanted - {tuple(row.get(field) for field in lists) for row in chosen}:
        raise MissingRows(f"{subject} has no row" + (f", or not each {' and '.join(lists)}" if lists else ""))
    try:
        points = [_point(part, row, of_seed) for row in chosen]
    except ZeroDivisionError as error:
        raise MissingRows(f"{subject} would be divided by 0") from error
    if not all(map(math.isfinite, points)):
        raise MissingRows(f"{subject} is not finite")
    return dict(zip((_name(part, row) for row in chosen), points, strict=True))


def _name(part: Part, row: dict[str, Any]) -> str:
    """Which point a row gives: "fid of ours-D, steps 8, w 4"."""
    at = {field: row[field] for field in ("steps", "t", "w") if field in row}
    method = f" of {row['method']}" if "method" in row else ""
    return f"{part.value.metric}{method}" + (f", {_words(at)}" if at else "")


def _point(part: Part, row: dict[str, Any], of_seed: list[Row]) -> float:
    """Formula (1) for one row of the value."""
    at = {field: row[field] for field in part.each}
    number = _read(row, part.value)
    if part.reference and part.compare:
        number = COMPARE[part.compare](number, _single(of_seed, part.reference, at, part.artefact))
    return number / (_single(of_seed, part.limit, at, part.artefact) if isinstance(part.limit, Select) else part.limit)


def _single(table: list[Row], select: Select, at: dict[str, Any], artefact: str) -> float:
    """The number of the only row that fits, at the same point as the value."""
    at = {field: x for field, x in at.items() if field not in select.pins()}
    rows = [row for row in _fitting(table, select) if all(row.get(field, x) == x for field, x in at.items())]
    if not rows:
        raise MissingRows(f"{artefact} has no row for {_words(select.pins() | at)}")
    if len(rows) > 1:
        raise ValueError(f"{artefact}: {len(rows)} rows for {_words(select.pins() | at)}; draw it again")
    return _read(rows[0], select)


def _fitting(table: list[Row], select: Select) -> list[Row]:
    """The rows that a selection names."""
    pins = {field: wanted for field, wanted in select.pins().items() if wanted != "most"}
    rows = [
        row
        for row in table
        if all(row.get(field) in (wanted if isinstance(wanted, list) else [wanted]) for field, wanted in pins.items())
    ]
    if select.steps != "most":
        return rows
    most = max((row.get("steps", 0) for row in rows), default=0)
    return [row for row in rows if row.get("steps", 0) == most]


def _read(row: dict[str, Any], select: Select) -> float:
    number = {"value": row["value"], "nfe": row.get("nfe"), "value_per_nfe": row["value"]}[select.read]
    number = number / row["nfe"] if select.read == "value_per_nfe" else number
    return math.nan if number is None else float(number)


def _words(fields: dict[str, Any]) -> str:
    return ", ".join(f"{field} {value}" for field, value in fields.items())


def _verdict(effects: list[float], claim: Claim, profile: str) -> tuple[str, str]:
    """The verdict on an effect measured once a seed, and a note that says why it is no stronger (or nothing)."""
    if profile == "smoke":
        return "inconclusive", "smoke: plumbing only"
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


def judge(profile: str, figures: Path | None = None, suffix: str = "") -> list[dict[str, Any]]:
    """All claims of both papers, in the form of claims.json; on the artefacts that end in `suffix`.

    A claim without a verdict (verdict, effect, low, high are None) says why in `not_judged`.
    """
    return [judge_claim(claim, name, profile, figures, suffix) for name in PAPERS for claim in load_paper(name).claims]


def judge_claim(
    claim: Claim, paper: str, profile: str, figures: Path | None = None, suffix: str = ""
) -> dict[str, Any]:
    """One entry of claims.json."""
    tables = {artefact: rows(profile, artefact + suffix, figures) for artefact in claim.artefacts}
    effects, left_out = {}, []
    for seed in _seeds(claim, tables):
        try:
            effects[seed] = effect(claim, tables, seed)
        except MissingRows as reason:
            left_out.append(f"seed {seed} left out: {reason}")
    entry = claim.model_dump(include={"id", "sentence", "source", "confidence", "direction", "margin"})
    entry |= dict.fromkeys(("verdict", "effect", "low", "high")) | {"paper": paper, "profile": profile, "note": ""}
    entry |= {"seeds": list(effects), "artefacts": [artefact + suffix for artefact in claim.artefacts]}
    if not effects:
        reason = "; ".join(left_out) or f"no rows yet at profile {profile} in {', '.join(entry['artefacts'])}"
        return entry | {"not_judged": claim.not_judged or reason}
    word, note = _verdict(list(effects.values()), claim, profile)
    low, high = (x if math.isfinite(x) else None for x in interval(list(effects.values())))
    notes = [note, *left_out, *_misses(claim, tables, list(effects)), *_also(claim, tables, list(effects))]
    outcome = {"verdict": word, "effect": fmean(effects.values()), "low": low, "high": high}
    return entry | outcome | {"note": "; ".join(filter(None, notes))}


def _seeds(claim: Claim, tables: dict[str, list[Row]]) -> list[int]:
    return sorted(
        {row["seed"] for part in claim.effect for row in _fitting(tables[part.artefact], part.value) if "seed" in row}
    )


def _misses(claim: Claim, tables: dict[str, list[Row]], seeds: list[int]) -> list[str]:
    """Where a claim fails: the points whose mean over seeds lies beyond the margin, the worst first."""
    margin, misses = float(claim.margin or 0), {}
    for part in claim.effect:
        of_seed = [part_points(part, tables[part.artefact], seed) for seed in seeds]
        if part.reduce == "median":  # no single point of it decides
            of_seed = [{f"median {part.value.metric}": median(points.values())} for points in of_seed]
        means = {name: fmean(points[name] for points in of_seed) for name in of_seed[0]}
        misses |= {n: x for n, x in means.items() if (x > margin if claim.direction == "at_most" else x < margin)}
    worst = sorted(misses, key=lambda name: abs(misses[name] - margin), reverse=True)
    points = [f"{name}: {misses[name]:.3g}" for name in worst[:_NAMED]]
    rest = [f"and {len(worst) - _NAMED} more"] if len(worst) > _NAMED else []
    return [f"fails at {'; '.join(points + rest)}"] if worst else []


def _also(claim: Claim, tables: dict[str, list[Row]], seeds: list[int]) -> list[str]:
    notes = []
    for label, part in claim.also.items():
        try:
            notes.append(f"{label} {fmean(part_value(part, tables[part.artefact], seed) for seed in seeds):.3g}")
        except MissingRows as reason:
            notes.append(f"{label}: {reason}")
    return notes


def write_claims(profile: str, figures: Path | None = None) -> Path:
    """Judge at a profile and write figures/<profile>/claims.json atomically; returns its path.

    Beside it, for each kind of real data that has a Table 1, claims-<kind>.json with what could be judged there.
    """
    folder = _folder(profile, figures)
    kinds = {path.stem.removeprefix("g-tab1") for path in folder.glob("g-tab1-*.json")}
    for suffix in ("", *sorted(kinds)):
        judged = [claim for claim in judge(profile, figures, suffix) if claim["verdict"] or not suffix]
        with atomic(folder / f"claims{suffix}.json") as part:
            part.write_text(json.dumps(judged, indent=1, ensure_ascii=False) + "\n")
    return folder / "claims.json"


if __name__ == "__main__":
    write_claims(sys.argv[1])

"""The verdicts on all claims of both papers: figures/<profile>/claims.json.

An entry is a claim of the second edition, with the verdict of the claim of the first that it replaces. Each edition
counts its own seeds: the first those below `first_seed`, which it was judged on, the second those from it on: no row
that was in view when a definition was written decides it. A cost is no matter of seeds: all its measurements count.

    verdict        of the second edition; None, with `not_judged`, until there are rows of seeds that nobody had seen
    verdict_v1     as first set; `v1` holds its effect, interval, margin, seeds and note
    half_length    "not run", "steady" or "moving", where a training failed; else None
    premises       what has to hold here, and whether it does; where one fails, the verdict is `not assessable here`
    cause          where neither edition's latest verdict is `supported`: scale, world, metric, under-specified, finding
    from_dirty_tree    "n of m seeds", of the rows that the latest verdict rests on

Results on real data, whose artefacts end in a suffix of their own, are judged apart, by the same margins.
"""

import json
import math
import sys
from pathlib import Path
from statistics import fmean
from typing import Any

from distill_lib.engine.files import atomic
from distill_lib.measure.metrics import interval
from distill_lib.papers.cells import HALF, MissingRows, Place, Tables, artefacts_of, seeds_of, tables_of
from distill_lib.papers.editions import First, Part, Rules, Second, first_edition, rules, second_edition
from distill_lib.papers.evidence import dirty_share, notebook_cell
from distill_lib.papers.manifest import PAPERS
from distill_lib.papers.verdicts import (
    PLUMBING,
    Cell,
    deciding,
    detectable,
    first_effect,
    first_misses,
    first_verdict,
    holds,
    learning,
    measured,
    notes_of,
    part_value,
    second_verdict,
    table_of,
    trainings_of,
)

Entry = dict[str, Any]


def judge(place: Place, rule: Rules | None = None) -> list[Entry]:
    """All claims of both papers, in the form of claims.json."""
    rule, entries = rule or rules(), []
    for paper in PAPERS:
        edition = second_edition(paper)
        first = {claim.id: judge_first(claim, place, rule.first_seed) for claim in first_edition(paper)}
        judged = {claim.id: judge_second(claim, place, rule) for claim in edition.claims}
        known = {gate.id: (gate.sentence, holds(gate, place, rule.first_seed)) for gate in edition.gates}
        known |= {
            name: (entry["sentence"], entry["verdict"] and entry["verdict"] != "contradicted")
            for name, entry in judged.items()
        }
        for claim in edition.claims:
            entry = {"id": claim.id, "paper": paper} | judged[claim.id] | _premises(claim, judged[claim.id], known)
            entries.append(_evidence(entry, claim, first[claim.replaces], place))
    return entries


def judge_first(claim: First, place: Place, first_seed: int) -> Entry:
    """The verdict as first set, from the seeds below `first_seed`."""
    tables = tables_of([*claim.effect, *claim.also.values()], place)
    effects, left_out = {}, []
    for seed in (seed for seed in seeds_of(claim.effect, tables) if seed < first_seed):
        try:
            effects[seed] = first_effect(claim, tables, seed)
        except MissingRows as reason:
            left_out.append(f"seed {seed} left out: {reason}")
    entry: Entry = {"id": claim.id, "verdict": None, "effect": None, "low": None, "high": None}
    entry |= {"direction": claim.direction, "margin": claim.margin, "seeds": list(effects)}
    entry |= {"artefacts": [artefact + place.suffix for artefact in claim.artefacts], "note": ""}
    if not effects:
        return entry | {"note": claim.not_judged or "; ".join(left_out) or _no_rows(entry["artefacts"], place)}
    word, note = first_verdict(list(effects.values()), claim, place.profile)
    low, high = _finite(interval(list(effects.values())))
    notes = [note, *left_out, *first_misses(claim, tables, list(effects)), *_also(claim.also, tables, list(effects))]
    return entry | {
        "verdict": word,
        "effect": fmean(effects.values()),
        "low": low,
        "high": high,
        "note": "; ".join(filter(None, notes)),
    }


def judge_second(claim: Second, place: Place, rule: Rules) -> Entry:
    """The verdict of the second edition, whatever its premises; None with `not_judged` where no row counts."""
    tables = tables_of([*claim.effect, *claim.also.values()], place)
    cells, seeds, left_out = measured(claim.effect, tables, rule.first_seed)
    artefacts = [artefact + place.suffix for artefact in artefacts_of([*claim.effect, *claim.also.values()])]
    entry: Entry = {key: getattr(claim, key) for key in ("sentence", "tests", "source", "confidence")}
    entry |= {"verdict": None, "effect": None, "low": None, "high": None, "direction": claim.direction}
    entry |= {"margin": claim.margin, "limits": claim.limits, "seeds": seeds, "profile": place.profile}
    entry |= {"artefacts": artefacts, "cells": [], "cells_passed": 0, "detectable": None, "half_length": None}
    if not cells:
        unseen = f"not judged yet: no rows of seeds from {rule.first_seed} on"
        return entry | {"note": "", "not_judged": claim.not_judged or "; ".join(left_out) or unseen}
    verdict, failing, half_length, note = _decide(claim, cells, seeds, place, rule)
    decisive, table = deciding(claim, cells, failing, rule), table_of(cells, claim, rule)
    low, high = _finite(decisive.interval(rule.confidence))
    notes = [note, *left_out, *notes_of(claim, cells, rule), *_also(claim.also, tables, seeds)]
    return entry | {
        "verdict": verdict,
        "effect": decisive.mean,
        "low": low,
        "high": high,
        "cells": table,
        "cells_passed": sum(cell["passes"] for cell in table),
        "detectable": detectable(decisive, rule),
        "half_length": half_length,
        "note": "; ".join(filter(None, notes)),
    }


def _decide(
    claim: Second, cells: list[Cell], seeds: list[int], place: Place, rule: Rules
) -> tuple[str, list[Cell], str | None, str]:
    """Verdict, the cells that fail, what is known of half the length, and why there is no more (or nothing)."""
    if reason := _too_little(claim, seeds, place, rule):
        return "inconclusive", [], None, reason
    verdict, failing = second_verdict(claim, cells, rule)
    if claim.once:
        return verdict, failing, None, "a cost, which needs no seeds: its rows may be older than this definition"
    if verdict == "contradicted" and claim.training and not any(cell.once for cell in failing):
        half_length = learning(claim, failing, seeds, place, rule)
        return ("still learning" if half_length == "moving" else verdict), failing, half_length, ""
    return verdict, failing, None, ""


def _too_little(claim: Second, seeds: list[int], place: Place, rule: Rules) -> str:
    """Why there can be no verdict yet; empty where there can."""
    if place.profile == "smoke":
        return PLUMBING
    trainings = trainings_of(claim, place, seeds) if claim.one_training else ()
    if claim.one_training and len(trainings) < rule.seeds:
        return f"{len(trainings) or 1} of the {rule.seeds} trainings that a verdict needs"
    if not claim.once and len(seeds) < rule.seeds:
        return f"{len(seeds)} of the {rule.seeds} seeds that a verdict needs"
    return ""


def _premises(claim: Second, entry: Entry, known: dict[str, tuple[str, bool | None]]) -> Entry:
    """The premises of a claim, and the verdict where one of them fails."""
    listed = [{"id": name, "sentence": known[name][0], "holds": known[name][1]} for name in claim.premises]
    failing = [f"{premise['sentence']} ({premise['id']})" for premise in listed if premise["holds"] is False]
    if not failing or entry["verdict"] is None:
        return {"premises": listed}
    note = "; ".join(filter(None, [f"not so here: {', '.join(failing)}", entry["note"]]))
    return {"premises": listed, "verdict": "not assessable here", "note": note}


def _evidence(entry: Entry, claim: Second, first: Entry, place: Place) -> Entry:
    """The entry with the verdict as first set, its cause, the origin of its rows and the cell that shows it."""
    latest = entry if entry["verdict"] else first
    plain = [artefact.removesuffix(place.suffix) for artefact in latest["artefacts"]]
    shown_in = [cell for cell in map(notebook_cell, plain) if cell]
    cause = claim.cause if latest["verdict"] not in (None, "supported") else None
    return entry | {
        "verdict_v1": first["verdict"],
        "v1": first,
        "cause": cause and cause.model_dump(),
        "from_dirty_tree": dirty_share(plain, latest["seeds"], place),
        "notebook_cell": shown_in[0] if shown_in else None,
    }


def _also(also: dict[str, Part], tables: Tables, seeds: list[int]) -> list[str]:
    """The numbers told beside a verdict: the mean over the seeds that count, or over all where it is a cost."""
    notes = []
    for label, part in also.items():
        try:
            values = [part_value(part, tables, seed) for seed in (seeds_of([part], tables) if part.once else seeds)]
            notes.append(f"{label} {fmean(values):.3g}" if values else f"{label}: no rows")
        except MissingRows as reason:
            notes.append(f"{label}: {reason}")
    return notes


def _no_rows(artefacts: list[str], place: Place) -> str:
    return f"no rows yet at profile {place.profile} in {', '.join(artefacts)}"


def _finite(numbers: tuple[float, float]) -> tuple[float | None, float | None]:
    low, high = numbers
    return (low if math.isfinite(low) else None), (high if math.isfinite(high) else None)


def write_claims(profile: str, figures: Path | None = None) -> Path:
    """Judge at a profile and write figures/<profile>/claims.json atomically; returns its path.

    Beside it, for each kind of real data that has a Table 1, claims-<kind>.json with what could be judged there.
    """
    folder = Place(profile, figures).folder
    kinds = {path.stem.removeprefix("g-tab1") for path in folder.glob("g-tab1-*.json")}
    for suffix in ("", *sorted(kind for kind in kinds if not kind.startswith(HALF))):
        judged = judged_there(Place(profile, figures, suffix))
        with atomic(folder / f"claims{suffix}.json") as part:
            part.write_text(json.dumps(judged, indent=1, ensure_ascii=False) + "\n")
    return folder / "claims.json"


def judged_there(place: Place) -> list[Entry]:
    """What claims.json of a place holds: all claims, or, of real data, those with a verdict of either edition."""
    return [entry for entry in judge(place) if not place.suffix or entry["verdict"] or entry["verdict_v1"]]


if __name__ == "__main__":
    write_claims(sys.argv[1])

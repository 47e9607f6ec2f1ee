"""The verdicts on all claims of both papers: figures/<profile>/claims.json.

An entry is a claim of the second edition, with the verdict of the claim of the first that it replaces. Each edition
counts its own seeds: the first those below `first_seed`, which it was judged on, the second those from it on: no row
that was in view when a definition was written decides it. A cost does not depend on the seed: all its rows count.

    verdict        of the second edition; None, with `not_judged`, until there are rows of seeds that nobody had seen
    verdict_v1     as first set; `v1` holds its effect, interval, margin, seeds and note
    half_length    "not run", "steady" or "moving", where a training failed; else None
    premises       what has to hold here, and whether it does. Where one fails, the verdict is `not assessable here`;
                   where it is not known whether one holds (null), the verdict is no more than `inconclusive`
    cause          where neither edition's latest verdict is `supported`: scale, world, metric, under-specified, finding
    from_dirty_tree    "n of m seeds", of the rows that the latest verdict rests on

Results on real data, whose artefacts end in a suffix of their own, are judged apart, by the same margins.
"""

import json
import math
import sys
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

from distill_lib.engine.files import atomic
from distill_lib.measure.metrics import interval
from distill_lib.papers.cells import HALF, MissingRows, Place, Tables, artefacts_of, seeds_of, tables_of
from distill_lib.papers.editions import First, Part, Rules, Second, first_edition, rules, second_edition
from distill_lib.papers.evidence import dirty_share, notebook_cell
from distill_lib.papers.manifest import PAPERS
from distill_lib.papers.measured import Cell, Measured, mean_of, measured
from distill_lib.papers.verdicts import (
    PLUMBING,
    deciding,
    detectable,
    first_effect,
    first_misses,
    first_verdict,
    holds,
    learning,
    notes_of,
    second_verdict,
    table_of,
)

Entry = dict[str, Any]


def judge(place: Place, rule: Rules | None = None) -> list[Entry]:
    """All claims of both papers, in the form of claims.json."""
    rule, entries = rule or rules(), []
    for paper in PAPERS:
        edition = second_edition(paper)
        first = {claim.id: judge_first(claim, place, rule.first_seed) for claim in first_edition(paper)}
        judged = {claim.id: judge_second(claim, place, rule) for claim in edition.claims}
        gates = {gate.id: (gate.sentence, holds(gate, place, rule)) for gate in edition.gates}
        premises_of = {claim.id: claim.premises for claim in edition.claims}
        for claim in edition.claims:
            entry = {"id": claim.id, "paper": paper} | _under_premises(claim.id, premises_of, judged, gates)
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
    beside = [_beside(label, part, (), tables, list(effects)) for label, part in claim.also.items()]
    notes = [note, *left_out, *first_misses(claim, tables, list(effects)), *beside]
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
    of_claim = measured(claim, tables, rule.first_seed)
    cells, seeds, left_out = of_claim.cells, of_claim.seeds, of_claim.left_out
    artefacts = [artefact + place.suffix for artefact in artefacts_of([*claim.effect, *claim.also.values()])]
    entry: Entry = {key: getattr(claim, key) for key in ("sentence", "tests", "source", "confidence")}
    entry |= {"verdict": None, "effect": None, "low": None, "high": None, "direction": claim.direction}
    entry |= {"margin": claim.margin, "limits": claim.limits, "seeds": seeds, "profile": place.profile}
    entry |= {"artefacts": artefacts, "cells": [], "cells_passed": 0, "detectable": None, "half_length": None}
    if not cells:
        unseen = f"not judged yet: no rows of seeds from {rule.first_seed} on"
        return entry | {"note": "", "not_judged": claim.not_judged or "; ".join(left_out) or unseen}
    verdict, failing, half_length, note = _decide(claim, of_claim, place, rule)
    decisive, table = deciding(claim, cells, failing, rule), table_of(cells, claim, rule)
    low, high = _finite(decisive.interval(rule.confidence))
    beside = [_beside(label, part, claim.one_training, tables, seeds) for label, part in claim.also.items()]
    notes = [note, *left_out, *notes_of(claim, cells, rule), *beside]
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


def _decide(claim: Second, of_claim: Measured, place: Place, rule: Rules) -> tuple[str, list[Cell], str | None, str]:
    """Verdict, the cells that fail, what is known of half the length, and why there is no more (or nothing)."""
    if reason := _too_little(claim, of_claim, place, rule):
        return "inconclusive", [], None, reason
    verdict, failing = second_verdict(claim, of_claim.cells, rule)
    if verdict == "supported" and of_claim.left_out:
        return "inconclusive", [], None, "not supported while a seed is incomplete"
    if claim.once:
        return verdict, failing, None, "a cost, which needs no seeds: its rows may be older than this definition"
    if verdict == "contradicted" and claim.training and not any(cell.once for cell in failing):
        half_length = learning(claim, failing, of_claim.seeds, place, rule)
        return ("still learning" if half_length == "moving" else verdict), failing, half_length, ""
    return verdict, failing, None, ""


def _too_little(claim: Second, of_claim: Measured, place: Place, rule: Rules) -> str:
    """Why there can be no verdict yet; empty where there can."""
    if place.profile == "smoke":
        return PLUMBING
    if of_claim.trainings is not None and of_claim.trainings < rule.seeds:
        return f"{of_claim.trainings} of the {rule.seeds} trainings that a verdict needs"
    if not claim.once and of_claim.units < rule.seeds:
        return f"{of_claim.units} of the {rule.seeds} seeds that a verdict needs"
    return ""


_HOLDS = {"supported": True, "contradicted": False, "not assessable here": False}


def _under_premises(
    name: str, premises_of: dict[str, list[str]], judged: dict[str, Entry], gates: dict[str, tuple[str, bool | None]]
) -> Entry:
    """The entry of a claim, by what is known of its premises, which may have premises of their own."""
    entry, listed = judged[name], []
    for premise in premises_of[name]:
        if premise in gates:
            sentence, known = gates[premise]
        else:
            other = _under_premises(premise, premises_of, judged, gates)
            sentence, known = other["sentence"], _HOLDS.get(other["verdict"] or "")
        listed.append({"id": premise, "sentence": sentence, "holds": known})
    entry = entry | {"premises": listed}
    words = [(False, "not assessable here", "not so here"), (None, "inconclusive", "not known to be so here")]
    for known, verdict, heading in words:
        named = [f"{premise['sentence']} ({premise['id']})" for premise in listed if premise["holds"] is known]
        if named and entry["verdict"]:
            note = "; ".join(filter(None, [f"{heading}: {', '.join(named)}", entry["note"]]))
            return entry | {"verdict": verdict, "note": note}
    return entry


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


def _beside(label: str, part: Part, shipped: Sequence[str], tables: Tables, seeds: list[int]) -> str:
    """A number told beside a verdict: the mean over the seeds that count, or over all where it is a cost."""
    try:
        seeds = seeds_of([part], tables) if part.once else seeds
        return f"{label} {mean_of(part, shipped, tables, seeds):.3g}" if seeds else f"{label}: no rows"
    except MissingRows as reason:
        return f"{label}: {reason}"


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

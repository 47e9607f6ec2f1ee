"""LIMITS.md: what does not hold here, by cause, and where a paper does not agree with itself."""

from pathlib import Path
from typing import Literal

import yaml
from pydantic import Field, TypeAdapter

from distill_lib.papers.manifest import Strict
from distill_lib.report.claims import PAPER_NAMES, numbers_of, reason_of, table
from distill_lib.report.pages.claims import UNMEASURED, latest_of, linked, read_claims

CAUSES = {
    "scale": "Scale: trained too briefly or too small, or too few seeds",
    "world": "World: our pictures do not ask the question",
    "metric": "Metric: what was measured answers another question",
    "under-specified": "Under-specified: the paper does not say how",
    "finding": "Finding: a reason why the sentence itself may not hold",
}
"""Titles of the causes of papers/editions.py."""
_OTHER = "Not settled: no cause is known"


class Erratum(Strict):
    """A place where a paper does not agree with itself: what it says, what is the case, and by what."""

    paper: Literal["guided", "sdxs"]
    where: str
    says: str
    fact: str
    by: str
    claims: list[str] = Field(min_length=1)


def errata() -> list[Erratum]:
    """errata.yaml."""
    text = (Path(__file__).parent / "errata.yaml").read_text(encoding="utf-8")
    return TypeAdapter(list[Erratum]).validate_python(yaml.safe_load(text))


def errata_table(figures: Path) -> str:
    """A line for each erratum.

    Args:
        figures: not looked into: a paper's own numbers are no artefact.
    """
    del figures
    lines = [[f"{PAPER_NAMES[e.paper]}, {e.where}", e.says, e.fact, e.by, linked(e.claims)] for e in errata()]
    return table(["where", "says", "found", "by", "claims"], lines)


def limits_table(figures: Path) -> str:
    """The claims whose latest verdict is not `supported`, a table for each cause."""
    results = read_claims(figures)
    if not results:
        return UNMEASURED
    groups: dict[str, list[list[str]]] = {title: [] for title in [*CAUSES.values(), _OTHER]}
    for entry in results:
        latest = latest_of(entry)
        if latest["verdict"] in (None, "supported"):
            continue
        kind = entry["cause"]["kind"] if entry["cause"] else ""
        kind = "world" if entry["verdict"] == "not assessable here" else kind
        edition = "second edition" if entry["verdict"] else "as first set"
        verdict = f"{latest['verdict']}, {edition}: {numbers_of(latest)}"
        line = [linked([entry["id"]]), entry["sentence"], verdict, reason_of(entry).removeprefix(f"{kind}: ")]
        groups[CAUSES.get(kind, _OTHER)].append(line)
    head = ["claim", "says", "latest verdict", "why"]
    return "\n\n".join(f"### {title}\n\n{table(head, lines)}" for title, lines in groups.items() if lines)

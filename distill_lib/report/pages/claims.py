"""CLAIMS.md: all claims by theme, with both verdicts."""

import json
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

from distill_lib.papers.page import themes
from distill_lib.paths import COMMITTED
from distill_lib.report.claims import UNJUDGED, Entry, reason_of, table, verdict_of

UNMEASURED = "The claims are not measured yet."
HEAD = ["claim", "says", "source", "as first set", "second edition", "cells passed", "seeds", "cause", "shown in"]
"""What a line of CLAIMS.md says of a claim."""


def read_claims(figures: Path) -> list[Entry]:
    """The entries of the committed claims.json; none where it is not there."""
    path = figures / COMMITTED / "claims.json"
    return json.loads(path.read_text()) if path.exists() else []


def verdict_counts(results: list[Entry]) -> dict[str, Counter[str]]:
    """How many claims have each verdict, by edition; a claim that was split counts once as first set."""
    first = {entry["v1"]["id"]: entry["verdict_v1"] for entry in results}
    words = {"as first set": first.values(), "second edition": [entry["verdict"] for entry in results]}
    return {edition: Counter(word or UNJUDGED for word in of_edition) for edition, of_edition in words.items()}


def latest_of(entry: Entry) -> Entry:
    """The part of an entry that holds its latest verdict: the second edition, or the first where that has none."""
    return entry if entry["verdict"] else entry["v1"]


def linked(names: Iterable[str]) -> str:
    """Claims as links to their lines in CLAIMS.md."""
    return ", ".join(f"[{name}](CLAIMS.md#{name.lower()})" for name in names)


def claims_table(figures: Path) -> str:
    """A table for each theme: what is claimed and by which source, both verdicts with their numbers, and the cause."""
    results = read_claims(figures)
    if not results:
        return UNMEASURED
    entries = {entry["id"]: entry for entry in results}
    texts = []
    for theme in themes():
        texts += [f"### {theme.title}", table(HEAD, [line_of(entries[name]) for name in theme.claims])]
    return "\n\n".join(texts)


def line_of(entry: Entry) -> list[str]:
    """The cells of HEAD for a claim."""
    first, judged = entry["v1"], entry["verdict"] or entry["verdict_v1"]
    split = f" ({first['id']})" if first["id"] != entry["id"] else ""
    dirty = f"; {entry['from_dirty_tree']} from a dirty tree" if entry["from_dirty_tree"] else ""
    notebook = (entry["notebook_cell"] or "").partition("#")[0]
    return [
        f'<a id="{entry["id"].lower()}"></a>{entry["id"]}',
        entry["sentence"],
        f"{entry['source']} ({entry['confidence']})",
        verdict_of(first) + split,
        verdict_of(entry),
        f"{entry['cells_passed']} of {len(entry['cells'])}" if entry["cells"] else "",
        f"{len(latest_of(entry)['seeds'])}{dirty}" if judged else "",
        reason_of(entry) if judged else entry["not_judged"],
        f"[{notebook}](notebooks/{notebook}.ipynb)" if notebook else "",
    ]

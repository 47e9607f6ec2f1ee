"""Tables of verdicts for README, made from claims.json: both editions, and real data beside the embedded world."""

import json
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from distill_lib.paths import COMMITTED

Entry = dict[str, Any]
AS_HERE = "as here"
_SIGNS = {"at_most": "≤", "at_least": "≥"}
UNJUDGED = "not judged yet"


def table(head: list[str], lines: Iterable[list[str]]) -> str:
    """A table in Markdown."""
    return "\n".join(f"| {' | '.join(line)} |" for line in [head, ["---"] * len(head), *lines])


def fold(pairs: Iterable[tuple[str, str]]) -> list[list[str]]:
    """One line a reason, [names, reason], in order of first appearance."""
    names: dict[str, list[str]] = {}
    for name, reason in pairs:
        names.setdefault(reason, []).append(name)
    return [[", ".join(of_reason), reason] for reason, of_reason in names.items()]


def numbers_of(part: Entry) -> str:
    """Effect, interval and margin of an edition that has a verdict."""
    spread = "" if part["low"] is None else f" [{part['low']:.3g}, {part['high']:.3g}]"
    return f"{part['effect']:.3g}{spread} {_SIGNS[part['direction']]} {part['margin']:g}"


def verdict_of(part: Entry) -> str:
    """Verdict, effect, interval and margin of an edition in one cell of a table."""
    if not part["verdict"]:
        return UNJUDGED
    word = part["verdict"] + " (half length not run)" * (part.get("half_length") == "not run")
    return f"**{word}** {numbers_of(part)}"


def reason_of(entry: Entry) -> str:
    """Cause or failing premise of a claim that is not supported."""
    failing = [premise["sentence"] for premise in entry["premises"] if premise["holds"] is False]
    if entry["verdict"] == "not assessable here":
        return f"not so here: {'; '.join(failing)}"
    if entry["cause"]:
        return f"{entry['cause']['kind']}: {entry['cause']['reason']}"
    return "" if entry["verdict"] in (None, "supported") else "not settled"


def _line(entry: Entry) -> list[str]:
    latest = entry if entry["verdict"] else entry["v1"]
    cells = f"{entry['cells_passed']} of {len(entry['cells'])}" if entry["cells"] else ""
    dirty = f"; {entry['from_dirty_tree']} from a dirty tree" if entry["from_dirty_tree"] else ""
    notebook = (entry["notebook_cell"] or "").partition("#")[0]
    return [
        entry["id"],
        entry["sentence"],
        f"{entry['source']} ({entry['confidence']})",
        verdict_of(entry["v1"]) + (f" ({entry['v1']['id']})" if entry["v1"]["id"] != entry["id"] else ""),
        verdict_of(entry),
        cells,
        f"{len(latest['seeds'])}{dirty}",
        reason_of(entry),
        f"[{notebook}](notebooks/{notebook}.ipynb)" if notebook else "",
    ]


def _counted(words: Iterable[str | None]) -> str:
    counts = Counter(word or UNJUDGED for word in words)
    return ", ".join(f"{n} {word}" for word, n in counts.most_common())


def claims_table(figures: Path) -> str:
    """The verdicts of both editions; the claims that nothing can judge follow, one line a reason."""
    path = figures / COMMITTED / "claims.json"
    if not path.exists():
        return "The claims are not measured yet."
    entries: list[Entry] = json.loads(path.read_text())
    first = {entry["v1"]["id"]: entry["verdict_v1"] for entry in entries}
    texts = [
        f"As first set, {len(first)} claims: {_counted(first.values())}. "
        f"Second edition, {len(entries)} claims: {_counted(entry['verdict'] for entry in entries)}."
    ]
    head = [
        "claim",
        "says",
        "source",
        "as first set",
        "second edition",
        "cells that pass",
        "seeds",
        "why not",
        "shown in",
    ]
    judged = [entry for entry in entries if entry["verdict"] or entry["verdict_v1"]]
    for title, wanted in [("Claims of the papers", False), ("Our hypotheses", True)]:
        lines = [_line(entry) for entry in judged if (entry["confidence"] == "M") == wanted]
        if lines:
            texts.append(f"{title}:\n\n{table(head, lines)}")
    rest = fold((entry["id"], entry["not_judged"]) for entry in entries if entry not in judged)
    return "\n\n".join([*texts, table(["not judged", "why"], rest)] if rest else texts)


def _holds(part: Entry) -> bool:
    """Whether the mean of each cell lies on the right side of the margin, whatever its interval; of v1 the effect."""
    sign, cells = (1 if part["direction"] == "at_most" else -1), part.get("cells") or [part]
    return all(cell.get("usable", True) and sign * cell["effect"] <= sign * part["margin"] for cell in cells)


def compared(embedded: list[Entry], real: list[Entry]) -> list[list[str]]:
    """A line for each claim that both worlds judge, by the second edition where it has effects in both, else by v1."""
    of_id, lines = {entry["id"]: entry for entry in embedded}, {}
    for other in real:
        pair = (of_id[other["id"]], other)
        if any(part["effect"] is None for part in pair):
            pair = (pair[0]["v1"], pair[1]["v1"])
        ours, judged = pair
        if ours["effect"] is not None and judged["effect"] is not None:
            lines[ours["id"]] = [
                ours["id"],
                f"{_SIGNS[judged['direction']]} {judged['margin']:g}",
                f"{ours['effect']:.3g}",
                f"{judged['effect']:.3g}",
                _conclusion(_holds(ours), _holds(judged)),
                judged["note"],
            ]
    return list(lines.values())


def _conclusion(embedded: bool, real: bool) -> str:
    words = {True: "holds", False: "fails"}
    return AS_HERE if embedded == real else f"**otherwise**: {words[embedded]} here, {words[real]} there"

"""Verdicts in words, from claims.json: both editions, and real data beside the embedded world."""

from collections.abc import Iterable
from typing import Any

Entry = dict[str, Any]
AS_HERE = "as here"
_SIGNS = {"at_most": "≤", "at_least": "≥"}
UNJUDGED = "not judged yet"
PAPER_NAMES = {"guided": "Meng et al.", "sdxs": "SDXS", "successors": "Later papers"}
"""What tables and figures call each paper."""


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

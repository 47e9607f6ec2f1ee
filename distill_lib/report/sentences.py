"""What a notebook says in words, computed: banner, captions, a sentence for each comparison, a last cell with verdicts.

A sentence has the mean over seeds ± formula (1) of each side, and the ratio of the two, paired by seed:

    ratio = exp(mean_s log(first_s / second_s)), with Student's t interval of the logarithm

It has no interval with fewer than SEEDS seeds. Where a value is not above 0, it is the difference first_s - second_s.
At its end stand the number of seeds and, by `labels.yaml`, which direction of the metric is the better one.
"""

import json
import math
import re
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

from distill_lib.measure.metrics import interval
from distill_lib.measure.rows import SEEDS, Row, select
from distill_lib.papers.manifest import PAPERS, load_paper
from distill_lib.paths import COMMITTED, ROOT
from distill_lib.report.claims import PAPER_NAMES, UNJUDGED, Entry, reason_of
from distill_lib.report.notebook_map import artefacts, minutes
from distill_lib.report.style import BETTER, label
from distill_lib.report.tables import PLUS_MINUS, over_seeds

FIGURES = ROOT / "figures" / COMMITTED
_UNITS = {"steps": ("step", "steps"), "nfe": ("evaluation", "evaluations"), "seed": ("seed", "seeds")}
_CONFIDENCE = 0.95
_KINDS = {"fig": "Fig.", "tab": "Table", "alg": "Algorithm", "eq": "Eq."}


def banner(notebook: str, profile: str, seed: int, folder: Path = FIGURES) -> str:
    """What the outputs below are: profile and seed of the run, seeds and commits of the committed figures, minutes, and
    what a plus-minus means."""
    records = [json.loads(path.read_text()) for path in _written(notebook, folder)]
    made = {int(seed): by["commit"] for record in records for seed, by in record.get("made", {}).items()}
    lines = [f"**Outputs below:** profile `{profile}`, seed {seed}."]
    if made:
        commits = ", ".join(f"`{commit}`" for commit in sorted(set(made.values())))
        word = "seeds" if len(made) > 1 else "seed"
        lines.append(f"**Committed figures:** profile `{COMMITTED}`, {word} {_list(sorted(made))}, drawn by {commits}.")
    elif artefacts(notebook) and not records:
        lines.append("**Committed figures:** none yet; tables and figures of this notebook show in a run alone.")
    lines += [f"**Time** on two cores: {spent}." if (spent := times(notebook, folder)) else ""]
    lines += [f"**{PLUS_MINUS[0]}**{PLUS_MINUS[1:]} A seed changes the noise and the trainings of this notebook; each "
              "shipped network is one training."]  # fmt: skip
    return "  \n".join(f"> {line}" for line in lines if line) + "\n"


def _written(notebook: str, folder: Path) -> list[Path]:
    return [path for name in sorted(artefacts(notebook)) if (path := folder / f"{name}.json").exists()]


def times(notebook: str, folder: Path) -> str:
    """Minutes of a whole run, by profile, as they were measured."""
    pace = json.loads((folder / "pace.json").read_text()) if (folder / "pace.json").exists() else {}
    spent = {name: run["notebooks"].get(notebook, {}).get("seconds") for name, run in pace.items()}
    spent = {name: math.ceil(seconds / 60) for name, seconds in spent.items() if seconds}
    if at_committed := minutes(notebook, folder):
        spent[COMMITTED] = at_committed
    return ", ".join(f"{count} min at `{name}`" for name, count in spent.items())


def _list(numbers: list[int]) -> str:
    """1, 2 and 5."""
    words = [str(number) for number in numbers]
    return " and ".join([", ".join(words[:-1]), words[-1]] if len(words) > 1 else words)


Columns = str | Mapping[str, Any]
"""The name of a method, or several columns of rows with their values."""


def sentence(rows: list[Row], metric: str, sides: tuple[Columns, ...], where: Mapping[str, Any]) -> str:
    """One or two sides of a comparison in one sentence.

    Args:
        rows: tidy rows; other metrics may be among them.
        metric: what is compared.
        sides: one side or two.
        where: columns that both sides share.

    Returns:
        Markdown. Where a side has no rows, as in a small profile, it says so.

    Raises:
        ValueError: a side names more than one value for a seed, or there are not one or two sides.
    """
    if len(sides) not in (1, 2):
        raise ValueError(f"a sentence compares one side or two, not {len(sides)}")
    chosen = [{"method": side} if isinstance(side, str) else dict(side) for side in sides]
    values_of = [_by_seed(rows, {"metric": metric} | dict(where) | columns) for columns in chosen]
    shared = f" of {label(where['method'])}" if "method" in where else ""
    shared += f" in the world {where['world']}" if "world" in where else ""
    if rest := {key: value for key, value in where.items() if key not in ("method", "world")}:
        shared += f" at {_words(rest)}"
    for columns, values in zip(chosen, values_of, strict=True):
        if not values:
            return f"*{_capital(label(metric))}{shared} for {_words(columns)}: no rows at this profile.*\n\n"
    parts = [f"{_mean(values)} for {_words(columns)}" for columns, values in zip(chosen, values_of, strict=True)]
    counts = {len(values) for values in values_of}
    seeds = _list(sorted(counts)) + (" seed" if counts == {1} else " seeds")
    text = f"**{_capital(label(metric))}**{shared}: {' and '.join(parts)}"
    text += f"; {_compared(*values_of)}" if len(values_of) == 2 else ""
    direction = f"; {BETTER[metric]}" if metric in BETTER else ""
    return f"{text} ({seeds}{direction}).\n\n"


def _by_seed(rows: list[Row], wanted: Mapping[str, Any]) -> dict[int | None, Row]:
    chosen = select(rows, **wanted)
    by_seed = {row.get("seed"): row for row in chosen}
    if len(by_seed) < len(chosen):
        open_columns = sorted(
            key for key in chosen[0] if key not in (*wanted, "value", "error", "seed")
            and len({str(row.get(key)) for row in chosen}) > 1
        )  # fmt: skip
        raise ValueError(f"{dict(wanted)} has {len(chosen)} rows for {len(by_seed)} seeds: name {open_columns} too")
    return by_seed


def _mean(values: Mapping[Any, Row]) -> str:
    return over_seeds(list(values.values()))


def _words(columns: Mapping[str, Any]) -> str:
    """Columns as a reader says them: `student, 4 steps, w = 1`."""
    words = [label(columns["method"])] if "method" in columns else []
    for key, value in columns.items():
        if key in _UNITS:
            words.append(f"{value} {_UNITS[key][value != 1]}")
        elif key != "method":
            words.append(f"{label(key)} = {value:g}" if isinstance(value, int | float) else str(label(value)))
    return ", ".join(words)


def _capital(words: str) -> str:
    return words[:1].upper() + words[1:]


def _compared(first: Mapping[Any, Row], second: Mapping[Any, Row]) -> str:
    """The ratio, or the difference, of two sides over the seeds that both have; of all seeds if none is shared."""
    shared = [seed for seed in first if seed in second]
    pairs = [(first[seed]["value"], second[seed]["value"]) for seed in shared]
    if not pairs:
        return "no seed has both"
    as_ratio = all(a > 0 and b > 0 for a, b in pairs)
    values = [math.log(a / b) if as_ratio else a - b for a, b in pairs]
    back = math.exp if as_ratio else float
    text = f"{'ratio' if as_ratio else 'difference'} {back(sum(values) / len(values)):.3g}"
    if len(values) < SEEDS:
        return text
    low, high = interval(values, _CONFIDENCE)
    text += f" [{back(low):.3g}, {back(high):.3g}]"
    return f"{text}, not distinguishable" if low <= 0 <= high else text


def verdicts(notebook: str, folder: Path = FIGURES) -> str:
    """The claims whose numbers a notebook shows, each with its verdict, numbers and cause, from claims.json."""
    entries: list[Entry] = json.loads((folder / "claims.json").read_text())
    judged = [entry for entry in entries if (entry["notebook_cell"] or "").partition("#")[0] == notebook]
    if not judged:
        return "No claim of the papers is judged by this notebook.\n"
    head = (
        f"From the committed figures (profile `{COMMITTED}`), as [15_claims](15_claims.ipynb) judges them. *Decides*: "
        "the number behind the verdict, with its 95 % interval over seeds and its limit. Where a claim limits several "
        "numbers, each is in units of its own limit. A *cell* is one such number, for instance FID at one strength.\n"
    )
    return "\n".join([head, *map(_line, judged)]) + "\n"


def _line(entry: Entry) -> str:
    latest = entry if entry["verdict"] else entry["v1"]
    verdict = entry["verdict"] or f"{UNJUDGED} (as first set: {entry['verdict_v1'] or UNJUDGED})"
    parts = [f"- **{entry['id']}, {verdict}.** {entry['sentence']}"]
    if latest["effect"] is not None:
        spread = "" if latest["low"] is None else f" [{latest['low']:.3g}, {latest['high']:.3g}]"
        passed = f"; {entry['cells_passed']} of {len(entry['cells'])} cells pass" if entry["cells"] else ""
        limit = f"{latest['direction'].replace('_', ' ')} {latest['margin']:g}"
        parts.append(f"Decides: {_deciding(latest)}{latest['effect']:.3g}{spread}, limit: {limit}{passed}.")
    if reason := reason_of(entry):
        parts.append(f"*{_capital(reason)}.*")
    return " ".join(parts)


def _deciding(part: Entry) -> str:
    """What the effect of an edition is of: its cell, or the worst one that a note of the first edition names."""
    named = [cell["cell"] for cell in part.get("cells", []) if cell["effect"] == part["effect"]]
    named = named or re.findall(r"fails at ([^;]+): [-\d.e+]+", part.get("note", ""))
    return f"{_cell(named[0])}: " if named else ""


def _cell(name: str) -> str:
    """`fid_inf of ours-D, steps 4, w 0.3 beside teacher` in the words of figures."""
    sides = []
    for side in name.split(" beside "):
        first, *rest = side.split(", ")
        metric, of, method = first.partition(" of ")
        words = f"{label(metric)} of {label(method)}" if of else _column(first)
        sides.append(", ".join([words, *(_column(part) for part in rest if part != "steps most")]))
    return ", beside ".join(sides)


def _column(part: str) -> str:
    """`steps 4` as 4 steps, `w 0.3` as w = 0.3; anything else by its label."""
    column, _, value = part.partition(" ")
    if column in _UNITS and value:
        return f"{value} {_UNITS[column][value != '1']}"
    if column in ("w", "t") and value:
        return f"{column} = {float(value):g}"
    if column == "median":
        return f"median {label(value)}"
    return label(value if column == "kind" else part)


def caption(artefact: str) -> str:
    """What an artefact shows, in Markdown, after the figure or table of a paper that it answers; empty if none does."""
    return _captions().get(artefact, "")


@cache
def _captions() -> dict[str, str]:
    texts: dict[str, str] = {}
    for paper in PAPERS:
        manifest = load_paper(paper)
        for item in [*manifest.items, *manifest.ours]:
            place = f"**{PAPER_NAMES[paper]}, {place}.** " if (place := _place(item.id)) else ""
            texts = dict.fromkeys(item.artefacts, place + item.shows) | texts  # the first one stays
    return texts


def _place(item: str) -> str:
    """`fig-6` as Fig. 6, `v1-fig-4` as first version, Fig. 4; empty for what is ours alone."""
    first = "first version, " * item.startswith("v1-")
    kind, _, number = item.removeprefix("v1-").partition("-")
    return f"{first}{_KINDS[kind]} {number}" if kind in _KINDS and number[:1].isdigit() else ""

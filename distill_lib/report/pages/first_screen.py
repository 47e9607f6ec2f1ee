"""The numbers of README's first screen, in two languages: six results, the verdicts, and what a command costs.

first_screen.yaml    the words, and which rows each result is read from
costs.yaml           what commands cost, each with the day of its measurement; of whole runs by figures/laptop/pace.json
"""

from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import Field

from distill_lib.measure.rows import Row, select
from distill_lib.papers.cells import Place, counted
from distill_lib.papers.editions import rules, second_edition
from distill_lib.papers.manifest import PAPERS, Strict, load_paper
from distill_lib.paths import COMMITTED
from distill_lib.report.claims import table
from distill_lib.report.pages.claims import linked, read_claims, verdict_counts
from distill_lib.report.pages.pace import spent
from distill_lib.report.tables import plus_minus

Language = Literal["en", "zh"]
_FOLDER = Path(__file__).parent


class _Text(Strict):
    en: str
    zh: str


class _Value(Strict):
    """A metric, and the factor of its unit in the table."""

    metric: str
    times: float = 1.0


class _Side(Strict):
    """Fields of the rows, the metrics that are read from them, and a sentence with a place for each."""

    rows: dict[str, Any]
    values: list[_Value]
    shows: _Text


class Headline(Strict):
    """One result: the claim that it belongs to (`says` is its sentence in Chinese), what is measured, and two sides."""

    claim: str
    says: str
    measured: _Text
    artefact: str
    ours: _Side
    beside: _Side


class _Words(Strict):
    """What stands around the numbers: of `counts` a sentence for each edition, of `verdicts` a phrase for each."""

    head: list[str] = Field(min_length=5, max_length=5)
    cites: str
    plus_minus: str
    unmeasured: str
    bars: str
    counts: dict[str, str]
    comma: str
    verdicts: dict[str, str]
    costs: list[str] = Field(min_length=6, max_length=6)


class _FirstScreen(Strict):
    words: dict[Language, _Words]
    headlines: list[Headline]


class Cost(Strict):
    """What a command takes on two cores, as far as it was measured; `measured` is the day, or the days.

    Where a `profile` is named, texts have places for `{minutes}`, `{gigabytes}` and `{day}` of its last whole run.
    """

    command: str
    does: _Text
    profile: str = ""
    time: _Text | None = None
    disk: str = ""
    memory: str = ""
    measured: str


def _read(name: str) -> Any:
    return yaml.safe_load((_FOLDER / name).read_text(encoding="utf-8"))


FIRST_SCREEN = _FirstScreen.model_validate(_read("first_screen.yaml"))
COSTS = [Cost.model_validate(entry) for entry in _read("costs.yaml")]


def _notebooks() -> dict[str, str]:
    """The notebook that the manifests name first for each artefact, as a link."""
    papers = [load_paper(name) for name in PAPERS]
    items = [item for paper in papers for item in (*paper.items, *paper.ours)]
    return {
        artefact: f"[{item.notebook}](notebooks/{item.notebook}.ipynb)"
        for item in reversed(items)
        for artefact in item.artefacts
    }


def _side(side: _Side, rows: list[Row], language: Language) -> str:
    """The sentence of a side with its numbers; empty where one of them is not measured."""
    cells = []
    for value in side.values:
        measured = [row["value"] * value.times for row in select(rows, metric=value.metric, **side.rows)]
        if not measured:
            return ""
        cells.append(plus_minus(measured))
    return getattr(side.shows, language).format(*cells)


def headline_table(figures: Path, language: Language) -> str:
    """A line for each headline: what is measured, the sentence of the paper, our number, what stands beside it."""
    words, notebooks = FIRST_SCREEN.words[language], _notebooks()
    sentences = {claim.id: claim.sentence for paper in PAPERS for claim in second_edition(paper).claims}
    lines = []
    for headline in FIRST_SCREEN.headlines:
        rows = counted(Place(COMMITTED, figures).rows(headline.artefact), rules())
        ours, beside = (_side(side, rows, language) for side in (headline.ours, headline.beside))
        sentence = sentences[headline.claim] if language == "en" else headline.says
        lines.append(
            [
                getattr(headline.measured, language),
                words.cites.format(sentence=sentence, claim=linked([headline.claim])),
                f"**{ours}**" if ours else words.unmeasured,
                beside or words.unmeasured,
                notebooks[headline.artefact],
            ]
        )
    return f"{table(words.head, lines)}\n\n{words.plus_minus}"


def verdicts(figures: Path, language: Language) -> str:
    """The picture of all verdicts, and a sentence for each edition: how many claims have which one."""
    words, text = FIRST_SCREEN.words[language], ""
    for edition, counts in verdict_counts(read_claims(figures)).items():
        phrases = [phrase.format(n=counts[word]) for word, phrase in words.verdicts.items() if counts[word]]
        text += words.counts[edition].format(n=counts.total(), verdicts=words.comma.join(phrases))
    return f"![{words.bars}](docs/pictures/verdicts.svg)\n\n{text}"


def costs_table(figures: Path, language: Language) -> str:
    """What each command costs, and on which day that was measured; empty cells where nobody has measured it."""
    lines = []
    for cost in COSTS:
        numbers = spent(figures, cost.profile)
        measured = cost.time and getattr(cost.time, language), cost.disk, cost.memory, cost.measured
        cells = [_filled(text or "", numbers) for text in measured]
        lines.append([f"`{cost.command}`", getattr(cost.does, language), *cells])
    return table(FIRST_SCREEN.words[language].costs, lines)


def _filled(text: str, numbers: dict[str, str]) -> str:
    try:
        return text.format(**numbers)
    except KeyError:
        return ""

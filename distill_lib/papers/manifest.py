"""The manifest of a paper: figures, tables, equations, algorithms, claims and reported numbers, and what answers them.

`guided.yaml` and `sdxs.yaml` are checked against these models when they are read: an unknown or missing field, a claim
that is neither judged nor excused, or a number without a verified source is an error. What a claim measures is data as
well; `claims.py` gives the formulas.
"""

from pathlib import Path
from typing import Any, Literal, Self

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError, model_validator

PAPERS = ("guided", "sdxs")


class Strict(BaseModel):
    """A piece of a manifest: unknown fields are an error."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Select(Strict):
    """The rows whose fields have these values, all that a list names, and which number of theirs is read.

    steps: a number, a list of them, or `most`, the largest among the rows that fit otherwise (the many-step teacher of
        a profile).
    read: `value`, `nfe`, or `value_per_nfe` (of a row in seconds: seconds a network evaluation).
    """

    metric: str
    method: str | list[str] | None = None
    steps: int | list[int] | Literal["most"] | None = None
    w: float | list[float] | None = None
    read: Literal["value", "nfe", "value_per_nfe"] = "value"

    def lists(self) -> dict[str, list[float]]:
        """The fields of which several values are named."""
        return {field: value for field, value in self.pins().items() if isinstance(value, list)}

    def pins(self) -> dict[str, Any]:
        """The fields that are fixed."""
        return self.model_dump(exclude={"read"}, exclude_none=True)


class Part(Strict):
    """Formulas (1) and (2). A row without a field of `each`, or without a seed, serves all of its values."""

    artefact: str
    value: Select
    reference: Select | None = None
    compare: Literal["ratio", "difference", "distance", "change", "departure"] | None = None
    limit: float | Select = 1.0
    each: list[Literal["t", "w", "steps", "nfe", "method", "kind"]] = []
    reduce: Literal["max", "median", "min"] | None = None

    @model_validator(mode="after")
    def _complete(self) -> Self:
        if (self.reference is None) != (self.compare is None):
            raise ValueError("a reference and how to compare with it go together")
        if bool(self.each) != (self.reduce is not None):
            raise ValueError("`each` and `reduce` go together")
        if "w" in self.value.lists() and "w" not in self.each:
            raise ValueError("a list of w needs `each: [w]`")
        if "method" in self.value.lists() and "method" not in self.each:
            raise ValueError("a list of methods needs `each: [method]`")
        if "steps" in self.value.lists() and not {"steps", "nfe"} & set(self.each):
            raise ValueError("a list of steps needs steps or nfe in `each`")
        return self


class Claim(Strict):
    """One sentence that a paper holds true, and how it is judged or why it is not.

    confidence: V read in the work, S in a secondary source, D derived by arithmetic, M recalled only: our hypothesis.
    one_training: the effect is of shipped weights, trained once, so that its seeds are those of noise alone.
    also: numbers noted beside the verdict, which do not decide it.
    """

    id: str
    sentence: str
    source: str
    confidence: Literal["V", "S", "M", "D"]
    hypothesis: bool = False
    artefacts: list[str] = []
    effect: list[Part] = []
    direction: Literal["at_most", "at_least"] | None = None
    margin: float | None = None
    one_training: bool = False
    also: dict[str, Part] = {}
    not_judged: str | None = None

    @model_validator(mode="after")
    def _complete(self) -> Self:
        if self.hypothesis != (self.confidence == "M"):
            raise ValueError(f"{self.id}: a claim marked M, and no other, is a hypothesis")
        given = [bool(self.artefacts), bool(self.effect), self.direction is not None, self.margin is not None]
        if given != [self.not_judged is None] * 4:
            raise ValueError(f"{self.id}: needs artefacts, effect, direction and margin, or only not_judged")
        if {part.artefact for part in [*self.effect, *self.also.values()]} != set(self.artefacts):
            raise ValueError(f"{self.id}: artefacts differ from those that its effect reads")
        return self


class Item(Strict):
    """A figure, table, equation or algorithm: what shows it here, or why nothing does."""

    id: str
    shows: str
    artefacts: list[str] = []
    notebook: str | None = None
    functions: list[str] = []
    note: str | None = None
    not_reproduced: str | None = None

    @model_validator(mode="after")
    def _complete(self) -> Self:
        given = [bool(self.artefacts), self.notebook is not None, bool(self.functions)]
        if given != [self.not_reproduced is None] * 3:
            raise ValueError(f"{self.id}: needs artefacts, notebook and functions, or only not_reproduced")
        return self


class Reported(Strict):
    """Numbers of a paper, by metric; only those read in the work (V) or in a secondary source (S)."""

    item: str
    row: str
    values: dict[str, float]
    confidence: Literal["V", "S"]
    source: str


class Paper(Strict):
    """A manifest; `ours` holds what we show that the paper has no number for."""

    title: str
    authors: list[str]
    arxiv: str
    venue: str
    items: list[Item]
    ours: list[Item] = []
    claims: list[Claim]
    reported: list[Reported]


def load_paper(name: str) -> Paper:
    """The manifest of a paper, one of PAPERS.

    Raises:
        ValueError: no such paper, or its manifest has an unknown, missing or contradictory field.
    """
    if name not in PAPERS:
        raise ValueError(f"no paper {name!r}: choose one of {', '.join(PAPERS)}")
    path = Path(__file__).parent / f"{name}.yaml"
    try:
        return Paper.model_validate(yaml.safe_load(path.read_text()))
    except (yaml.YAMLError, ValidationError) as error:
        raise ValueError(f"{path.name} cannot be used: {error}; correct the manifest") from error

"""The manifest of a paper: figures, tables, equations, algorithms and reported numbers, and what answers them.

`guided.yaml` and `sdxs.yaml` are checked against these models when they are read: an unknown or missing field, an item
that is neither shown nor excused, or a number without a verified source is an error. Claims stand in `editions`.
"""

from pathlib import Path
from typing import Literal, Self, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError, model_validator

PAPERS = ("guided", "sdxs")


class Strict(BaseModel):
    """A piece of a manifest: unknown fields are an error."""

    model_config = ConfigDict(extra="forbid", frozen=True)


Model = TypeVar("Model", bound=Strict)


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
    reported: list[Reported]


def load_paper(name: str) -> Paper:
    """The manifest of a paper, one of PAPERS; raises as `read_model`."""
    if name not in PAPERS:
        raise ValueError(f"no paper {name!r}: choose one of {', '.join(PAPERS)}")
    return read_model(Paper, f"{name}.yaml")


def read_model(model: type[Model], name: str) -> Model:
    """A YAML file of this folder as a model.

    Raises:
        ValueError: the file has an unknown, missing or contradictory field.
    """
    path = Path(__file__).parent / name
    try:
        return model.model_validate(yaml.safe_load(path.read_text()))
    except (yaml.YAMLError, ValidationError) as error:
        raise ValueError(f"{path.name} cannot be used: {error}; correct the manifest") from error

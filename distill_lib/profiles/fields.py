"""What the fields of a profile may hold, beside numbers with bounds (`engine.bounds`)."""

from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from distill_lib.engine.bounds import Count, Number
from distill_lib.engine.loop import FrugalSettings, TrainSettings
from distill_lib.worlds.pictures import REAL, WORLDS


class Strict(BaseModel):
    """A part of a profile: unknown fields are an error."""

    model_config = ConfigDict(extra="forbid", frozen=True)


def _known(name: str) -> str:
    if name not in WORLDS and name not in REAL:
        raise ValueError(f"choose one of {', '.join([*WORLDS, *REAL])}")
    return name


def _look(name: str) -> str:
    if f"captioned-{name}" not in WORLDS:
        raise ValueError(f"choose of {', '.join(w.removeprefix('captioned-') for w in WORLDS if 'captioned-' in w)}")
    return name


World = Annotated[str, AfterValidator(_known)]
Look = Annotated[str, AfterValidator(_look)]
Worlds = Annotated[list[World], Field(min_length=1)]
Counts = Annotated[list[Count], Field(min_length=1)]
Strengths = Annotated[list[Number], Field(min_length=1)]
Training = TrainSettings | FrugalSettings
"""Without savings, which is every training of the committed runs, or with them."""

"""What a LoRA file and a ControlNet that somebody brings have in common: a teacher, its student of one step, names."""

from abc import abstractmethod
from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar

from distill_lib.experiments.one_step import Trials
from distill_lib.experiments.sdxs_task import SdxsTask
from distill_lib.networks.adapter import Network


@dataclass(frozen=True)
class OwnPart:
    """A part of a teacher that its student of one step is taught, under one profile and seed."""

    kind: ClassVar[str]
    job: SdxsTask

    @property
    @abstractmethod
    def digest(self) -> str:
        """Twelve letters that tell the part from others."""

    @property
    def source(self) -> str:
        """What results call their data."""
        return self.job.source

    @property
    def parents(self) -> list[str]:
        """Keys of all that the results rest on."""
        return [*self.job.parents, f"{self.kind}-{self.digest}"]

    @property
    def suffix(self) -> str:
        """What the names of the results end in: teacher, prompts and part."""
        return f"{self.job.suffix}-{self.digest[:6]}"

    @cached_property
    def trials(self) -> Trials:
        """The trainings of notebook 11 for this teacher."""
        return Trials.of(self.job)

    @cached_property
    def student(self) -> Network:
        """The student of one step of notebook 11; trained if it has not been."""
        return self.trials.by_scores(self.trials.by_loss("matching")).net

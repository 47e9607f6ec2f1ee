"""How Algorithm 1 of SDXS is set: lengths, turns, the segment of noise levels. Its loop is in `score_distillation`.

Fields of profiles and of recipes. The paper gives none of the numbers; what stands here as a default leaves a thing out
or is the value of the work that is cited.
"""

from dataclasses import replace
from typing import Protocol

import torch
from pydantic import ConfigDict
from pydantic.dataclasses import dataclass as validated
from torch import Tensor

from distill_lib.diffusion.noise import Draws
from distill_lib.engine.bounds import Count, NonNegative, Number, Positive, Share, Unit
from distill_lib.engine.loop import FrugalSettings, TrainSettings


@validated(frozen=True, config=ConfigDict(extra="forbid"))
class Segment:
    """How (11) is set, at the start and at the end of a training; in between both fall evenly.

    alpha: share of the noise levels at which scores are compared; 1 is Diff-Instruct with feature matching added.
    lambda_fm: weight of feature matching.

    The paper says that both start high and fall once the densities overlap, and gives no number; these are ours, of the
    shipped student and of every training of 11 to 13 that varies neither.
    """

    alpha: tuple[Unit, Unit] = (0.95, 0.7)
    lambda_fm: tuple[Number, Number] = (1.0, 0.3)

    def at(self, share: float) -> tuple[float, float]:
        """(alpha, lambda_FM) after a share of the training."""
        alpha, lambda_fm = (first + (last - first) * share for first, last in (self.alpha, self.lambda_fm))
        return alpha, lambda_fm


@validated(frozen=True, kw_only=True, config=ConfigDict(extra="forbid"))
class Adversary:
    """A critic on the bottleneck of the online model, at noised latents, as DMD2 has it (`critics`).

    weight: of fooling it, beside scores.
    start: updates of the student before it has a say; it learns from the first.
    body: weight of its own loss, which the online model learns as well.
    rate: learning rate of its head over that of the student.
    width: of its head.
    r1: weight of the penalty on its slope, halved as there; 0 leaves it out, as DMD2 does.
    """

    weight: Positive
    start: NonNegative
    body: Positive
    rate: Positive
    width: Count
    r1: Number = 0.0


@validated(frozen=True, config=ConfigDict(extra="forbid"))
class Scoring:
    """Settings of Algorithm 1.

    settings: of the training; steps, warm-up and average count updates of the student, so that trainings with another
        ratio are compared at equal updates of it.
    w: strength of guidance of the offline model's score.
    segment: alpha and lambda_FM.
    online_updates: of the online model, for one of the student; 5 as DMD2 has it.
    online_rate: learning rate of the online model over that of the student.
    normalised: as in `score_distillation.score_direction`.
    before: training of the online model alone, before the student moves; None: none.
    matched: share of a batch of the student that pairs are matched in; the paper says nothing of it.
    adversary: a critic beside scores; None: none.
    online_rank: of an adapter through which alone the online model learns, so that it keeps what it starts with, as in
        ProlificDreamer (Wang et al. 2023, arXiv 2305.16213); 0: all of its weights learn.
    """

    settings: TrainSettings | FrugalSettings
    w: Number = 1.0
    segment: Segment = Segment()
    online_updates: Count = 5
    online_rate: Number = 2.0
    normalised: bool = True
    before: TrainSettings | FrugalSettings | None = None
    matched: Share = 1.0
    adversary: Adversary | None = None
    online_rank: NonNegative = 0

    def of_run(self, seed: int, w: float) -> "Scoring":
        """The same for one run: with a seed, for the strength that the teacher drew the pairs with."""
        before = self.before and self.before.with_seed(seed)
        return replace(self, settings=self.settings.with_seed(seed), before=before, w=w)

    @property
    def paced(self) -> TrainSettings:
        """The settings of a loop that has one step an update of the online model."""
        k, own = self.online_updates, self.settings
        return replace(own, steps=own.steps * k, warmup=own.warmup * k, ema=own.ema ** (1 / k))

    def students_turn(self, step: int) -> bool:
        """Whether the student learns at a step of that loop, as it does at the last of every `online_updates`."""
        return step % self.online_updates == self.online_updates - 1

    @property
    def rates(self) -> dict[str, float]:
        """Learning rates over that of the student, by the start of names in a team."""
        return {"online.": self.online_rate} | ({"critic.": self.adversary.rate} if self.adversary else {})


class Answered(Protocol):
    """Noise with the teacher's answers, and more noise: `teachers.latents.Pairs`, and what has maps or no prompts."""

    def __len__(self) -> int: ...

    def batch(self, index: Tensor, device: torch.device | str = ...) -> tuple[Tensor, Tensor, Tensor]:
        """z_T, x and conditions of the pairs `index` (B,)."""

    def fresh(self, draws: Draws, device: torch.device | str = ...) -> tuple[Tensor, Tensor]:
        """Noise z_T (B, *D) that no pair has, and conditions (B, ..) that are drawn apart from it."""

"""What notebook 11 varies: trainings of one-step students that differ in one choice.

All start from the small U-Net, see the same pairs in the same order, and draw through the tiny decoder: the shipped
ones, or of another teacher those that 10 and 09 train. Networks of features are shipped for our world alone; another
teacher's students are matched by the encoder half of its own U-Net.
"""

import contextlib
import copy
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from diffusers import ModelMixin
from torch import Tensor

from distill_lib.engine import precision
from distill_lib.experiments.finished import finished
from distill_lib.experiments.sdxs_task import SdxsTask
from distill_lib.measure.prompts import PromptBenchmark
from distill_lib.measure.rows import Row, tidy
from distill_lib.networks.adapter import Network, Trained
from distill_lib.networks.autoencoders import TinyDecode
from distill_lib.profiles import Small
from distill_lib.profiles.sdxs import Features
from distill_lib.sdxs.feature_matching import ONE_STEP_LOSSES, View, one_step_loss, views
from distill_lib.sdxs.one_step import Matching, accumulation_error, fit_on_pairs
from distill_lib.sdxs.score_distillation import fit_by_scores
from distill_lib.sdxs.texture import tune_texture
from distill_lib.shipped import pretrained
from distill_lib.teachers.latents import Pairs, Remembered

FAILURES: dict[str, tuple[str, str, dict[str, Any]]] = {
    "online model stands still": ("it no longer learns what is drawn", "online_rate above 1", {"online_rate": 0.0}),
    "rate times 30": ("the student outruns the online model", "a rate of 1e-4 and less", {"lr": 30.0}),
    "scores without matching": (
        "nothing ties pictures to noise",
        "lambda_FM above 0",
        {"segment": {"lambda_fm": (0.0, 0.0)}},
    ),
}
"""Ways to ruin score distillation: name -> cause, cure, and what is changed."""
LAYER_WEIGHTS: dict[str, tuple[float, ...]] = {"fine": (8, 4, 2, 1), "coarse": (1, 2, 4, 8)}
"""w_l of feature matching on the four levels of the convolutional matcher, from the finest: which of them lead."""
SLICES = (4, 32)
"""Slices, and pairs in each, whose gradients are accumulated."""


@contextlib.contextmanager
def recomputed(*networks: ModelMixin) -> Iterator[None]:
    """A block in which a backward pass computes what is inside these networks once more, and little of it is kept.

    The gradient is the same to the last bit, since the same numbers are computed in the same order.
    """
    for network in networks:
        network.enable_gradient_checkpointing()
    try:
        yield
    finally:
        for network in networks:
            network.disable_gradient_checkpointing()


@dataclass(frozen=True)
class Trials:
    """Students of one teacher, by its pairs, under one profile and seed; `benchmark` holds prompts and judges.

    `start` is another teacher's small U-Net behind the decoder that its students draw through.
    """

    pairs: Pairs
    benchmark: PromptBenchmark
    sizes: Small
    seed: int
    start: Network | None = None

    @classmethod
    def of(cls, job: SdxsTask) -> "Trials":
        """Those of a teacher; of one that is not shipped the parts are trained first, unless 09 and 10 did so."""
        given = job.pairs.part(0, job.sizes.pairs), job.benchmark, job.sizes, job.seed
        if job.shipped:
            return cls(*given)
        small, decoder = job.finished_unet(), job.finished_decoder()
        return cls(*given, start=small.like(small.module, decode=TinyDecode(decoder)))

    @cached_property
    def decode(self) -> TinyDecode:
        """What students draw through."""
        return self.start.decode if self.start else TinyDecode(pretrained.tiny_decoder())

    @cached_property
    def first(self) -> Network:
        """The small U-Net, which draws in many steps, behind the tiny decoder."""
        if self.start:
            return self.start
        net = pretrained.tiny_unet("scenes", self.pairs.model)
        return net.like(net.module, decode=self.decode)

    def _copy(self, net: Network) -> Network:
        return net.like(copy.deepcopy(net.module).requires_grad_(True))

    @property
    def losses(self) -> tuple[str, ...]:
        """What students are held to here: of another teacher squares, and what comes first in the paper's training."""
        return ("square", "matching") if self.start else ONE_STEP_LOSSES

    def view(self, decode: Callable[[Tensor], Tensor], encoder: str = "", picture: bool = False) -> View:
        """How an encoder sees latents, by the pictures that `decode` makes of them; as in `feature_matching.views`."""
        encoder = encoder or ("unet" if self.start else "cnn")
        matcher = None if encoder == "unet" else pretrained.matcher(encoder)
        return views(encoder, matcher, self.pairs.model.network, decode, picture)

    def cost(self, loss: str, encoder: str = "", **varied: Any) -> Matching:
        """A loss of `ONE_STEP_LOSSES` on what an encoder sees of the student's picture and the teacher's own.

        Layers and windows are those of the profile (`Small.features`), but whole maps of all levels, with equal
        weights, where another encoder is named, or `window` or `weights` of `feature_matching.one_step_loss`.
        """
        features = Features(**varied) if encoder or varied or self.start else self.sizes.features
        known = self.decode if self.start else self._known  # another teacher's large pictures are never looked at
        see, wanted = (self.view(decode, encoder, features.picture) for decode in (self.decode, known))
        return one_step_loss(loss, see, wanted, features.window, features.weights)

    @cached_property
    def _known(self) -> Remembered:
        return Remembered(self.pairs)

    def by_loss(self, loss: str, batch: int = 0, steps: int = 0, **seen: Any) -> Trained:
        """A student by regression on pairs.

        Args:
            loss: one of `feature_matching.ONE_STEP_LOSSES`.
            batch: changes the number of pairs a step, at as many pairs in all unless `steps` says of how many updates.
            steps: updates.
            seen: other arguments of `cost`.
        """
        settings = self.sizes.matching.with_seed(self.seed)
        if batch:
            steps = steps or max(1, settings.steps * settings.batch_size // batch)
            settings = replace(settings, steps=steps, batch_size=batch)
        return finished(fit_on_pairs(self._copy(self.first), self.pairs, self.cost(loss, **seen), settings))

    def by_scores(
        self,
        warm: Trained | None,
        lr: float = 1.0,
        segment: dict[str, tuple[float, float]] | None = None,
        **changed: Any,
    ) -> Trained:
        """A student by Algorithm 1 after a warm-up, or without one.

        Args:
            warm: a student of `by_loss`; None starts from the small U-Net itself.
            lr: factor on the learning rate.
            segment: what differs of the profile's, fields of `sdxs.scoring.Segment`.
            changed: other fields of `sdxs.scoring.Scoring`.
        """
        scoring = self.sizes.scores.of_run(self.seed, self.benchmark.w)
        settings = replace(scoring.settings, lr=lr * scoring.settings.lr)
        scoring = replace(scoring, settings=settings, segment=replace(scoring.segment, **segment or {}), **changed)
        student = self._copy(warm.net if warm else self.first)
        return finished(fit_by_scores(student, self.pairs, self.cost("matching"), scoring))

    def by_critic(self, trained: Trained) -> Trained:
        """A student after adversarial tuning of an adapter, by a critic on features of another matcher."""
        settings, see = self.sizes.tuning.with_seed(self.seed), pretrained.matcher("vit").layers
        return finished(tune_texture(self._copy(trained.net), self.pairs, see, settings))

    def accumulated(self, loss: str = "matching") -> list[Row]:
        """A row: how far the gradient of SLICES is from that of all their pairs at once, in float32."""
        (slices, size), student = SLICES, self._copy(self.first)
        with precision.held("fp32"), recomputed(student.module, self.decode.tiny):
            error = accumulation_error(student, self.pairs, self.cost(loss), slices, size)
        columns = {"method": f"{slices} times {size} pairs", "seed": self.seed, "n": slices * size}
        return tidy({"gradient_error": error}, **columns)

    def rows(self, students: dict[str, Trained]) -> list[Row]:
        """All metrics of students in one step, by their names."""
        benchmark = self.benchmark
        row_sets = (
            benchmark.rows(name, student.net, 1, 0.0, truth_w=benchmark.w) for name, student in students.items()
        )
        return [row for rows in row_sets for row in rows]

    def bounds(self) -> list[Row]:
        """The teacher with many steps, and the same latents through the tiny decoder: what no student can pass."""
        teacher, steps, w = self.pairs.model.network, self.benchmark.teacher_steps, self.benchmark.w
        through = teacher.like(teacher.module, decode=self.decode)
        rows = self.benchmark.rows("teacher", teacher, steps, w)
        return rows + self.benchmark.rows("teacher, tiny decoder", through, steps, w)

    def failures(self, warm: Trained) -> dict[str, Trained]:
        """Students of FAILURES."""
        return {name: self.by_scores(warm, **changed) for name, (_, _, changed) in FAILURES.items()}


def finished_one_step(job: SdxsTask) -> tuple[Network, Path]:
    """The student of one step that 11 ends with, and its folder for diffusers: the shipped one, or another teacher's,
    which is trained if it has not been."""
    if job.shipped:
        return job.one_step(None)
    trials = Trials.of(job)
    return job.one_step(trials.by_scores(trials.by_loss("matching")))

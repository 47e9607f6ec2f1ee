"""What notebook 12 varies: where a style's LoRA sits while the shipped student of one step learns its own.

    teacher     answers the prompts, from the noise of the shipped pairs              pairs of noise and picture
    offline     the frozen model that says what should be drawn                       score difference of eq. 12
    online      starts as the offline model does, or without the style                what is drawn by now

SDXS (Song et al. 2024, arXiv 2403.16627, Fig. 4) puts the LoRA into the first two, and needs no warm-up; where the
teacher cannot take it, lambda_FM is lowered.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from typing import Any

from torch import Tensor

from distill_lib.experiments.finished import finished
from distill_lib.measure.styles import Looks
from distill_lib.networks.adapter import Network
from distill_lib.networks.lora import Lora, merged, styled, with_adapter
from distill_lib.profiles import Lora as Sizes
from distill_lib.sdxs.feature_matching import ByMatcher, one_step_loss
from distill_lib.sdxs.lora import TrainedLora
from distill_lib.sdxs.one_step import Matching, fit_on_pairs
from distill_lib.sdxs.score_distillation import fit_by_scores
from distill_lib.sdxs.scoring import Segment
from distill_lib.shipped import pretrained
from distill_lib.teachers.latents import Pairs, Remembered, teacher_pairs

Row = dict[str, Any]


@dataclass(frozen=True)
class Placement:
    """Which networks hold the style's LoRA, whether a warm-up comes first, and lambda_FM at the start and the end."""

    teacher: bool = True
    offline: bool = True
    online: bool = False
    warm_up: bool = False
    lambda_fm: tuple[float, float] = Segment.lambda_fm


PAPER = "as in the paper"
PLACEMENTS = {
    PAPER: Placement(),
    "in the online model too": Placement(online=True),
    "after a warm-up": Placement(warm_up=True),
    "plain teacher, lower lambda": Placement(teacher=False, lambda_fm=(0.1, 0.03)),
    "plain teacher, same lambda": Placement(teacher=False),
    "in the online model, not the teacher": Placement(teacher=False, online=True, lambda_fm=(0.1, 0.03)),
    "nowhere": Placement(teacher=False, offline=False),
}
"""By name; the last is the control: a LoRA that is trained, but towards no style."""


def placement_table() -> tuple[list[str], list[list[str]]]:
    """Header and lines of a table of PLACEMENTS: which networks hold the style's LoRA."""
    lines = []
    for name, placement in PLACEMENTS.items():
        where = ["yes" if used else "" for used in (placement.teacher, placement.offline, placement.online)]
        lines.append(
            [name, *where, "feature matching" if placement.warm_up else "", "{:g} to {:g}".format(*placement.lambda_fm)]
        )
    return ["placement", "teacher", "offline model", "online model", "warm-up", "lambda"], lines


@dataclass(frozen=True)
class StyleTrials:
    """Students of one step that learn a style, under one profile and seed; `looks` measures them.

    `plain` are shipped pairs of the teacher without a style; the others have the same prompts and noise.
    """

    plain: Pairs
    looks: Looks
    sizes: Sizes
    seed: int

    @cached_property
    def student(self) -> Network:
        """The shipped student of one step with its tiny decoder."""
        return pretrained.one_step("scenes", self.plain.model)

    def cost(self, pairs: Pairs) -> Matching:
        """Feature matching, through the tiny decoder for the student and the large one for the teacher's answers."""
        see = partial(ByMatcher, pretrained.matcher("cnn"))
        return one_step_loss("matching", see(self.student.decode), see(Remembered(pairs)))

    def pairs(self, look: str) -> Pairs:
        """The teacher's answers with the style, to the prompts and the noise of the plain ones."""
        recipe = pretrained.RECIPES["pairs"]["scenes"]
        model = styled(self.plain.model, (pretrained.lora(look), 1.0))
        name = f"{pretrained.key('pipeline-scenes')}, {pretrained.key(f'lora-{look}')}"
        arguments = recipe["teacher_steps"], recipe["w"], recipe["seed"], name, recipe["solver"]
        return teacher_pairs(model, self.plain.prompts, *arguments)

    def warm(self, look: str, placement: Placement = PLACEMENTS[PAPER], rank: int = 0) -> TrainedLora:
        """A student's LoRA by feature matching alone."""
        pairs, settings = self._pairs_of(look, placement), self.sizes.matching.with_seed(self.seed)
        adapted = with_adapter(self.student, rank or self.sizes.rank, self.seed)
        return TrainedLora.of(self.student, finished(fit_on_pairs(adapted, pairs, self.cost(pairs), settings)))

    def trained_lora(self, look: str, placement: Placement = PLACEMENTS[PAPER], rank: int = 0) -> TrainedLora:
        """A student's LoRA of a look by Algorithm 1, the style placed so; `rank` is the profile's unless given."""
        plain, pairs = self.plain.model.network, self._pairs_of(look, placement)
        style = merged(plain, (pretrained.lora(look), 1.0)) if placement.offline or placement.online else plain
        networks = (style if placement.offline else plain), (style if placement.online else plain)
        start = self.warm(look, placement, rank).lora if placement.warm_up else None
        adapted = with_adapter(self.student, rank or self.sizes.rank, self.seed, start)
        scoring = self.sizes.scores.of_run(self.seed, self.looks.w)
        scoring = replace(scoring, segment=replace(scoring.segment, lambda_fm=placement.lambda_fm))
        trained = finished(fit_by_scores(adapted, pairs, self.cost(pairs), scoring, networks))
        return TrainedLora.of(self.student, trained)

    def _pairs_of(self, look: str, placement: Placement) -> Pairs:
        return self.pairs(look) if placement.teacher else self.plain

    def rows(self, students: dict[str, Network], look: str, **columns: Any) -> list[Row]:
        """All metrics of students in one step, by their names, beside the student without a style."""
        before = self.looks.one_step(self.student)
        row_sets = [
            self.looks.rows(n, self.looks.one_step(net), look, before, **columns) for n, net in students.items()
        ]
        return [row for rows in row_sets for row in rows]

    def scaled(self, loras: Sequence[Lora], scales: Sequence[float]) -> dict[float, Network]:
        """The student with all of these LoRAs, at each scale."""
        return {scale: merged(self.student, *((lora, scale) for lora in loras)) for scale in scales}

    def teacher_pictures(self, look: str = "") -> Tensor:
        """The teacher's pictures of the prompts through the tiny decoder, with the LoRA of a look or without any."""
        net = self.plain.model.network
        style = merged(net, (pretrained.lora(look), 1.0)) if look else net
        return self.looks.many_steps(style.like(style.module, decode=self.student.decode))

    def bounds(self, look: str) -> list[Row]:
        """What styled students are read beside.

        The world's true pictures, also through the tiny decoder; the teacher of many steps with the style, through the
        tiny decoder; the student without a style; and that student from other noise, whose layout is another one. The
        teacher's layout is compared with its own before the style.
        """
        rows = self.looks.bound_rows(look, self.student.decode)
        rows += self.looks.rows("teacher, tiny decoder", self.teacher_pictures(look), look, self.teacher_pictures())
        plain = self.looks.one_step(self.student)
        rows += self.looks.rows("no LoRA", plain, look, plain)
        return rows + self.looks.rows("no LoRA, other noise", self.looks.one_step(self.student, True), look, plain)

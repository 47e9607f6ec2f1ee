"""What is varied in notebook 04: settings of a halving one at a time, the noise that a student is sampled from, and the
choices of the method itself: range of w, start, embedding of w, stage one, and head and weighting of the teacher."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from diffusers import UNet2DConditionModel
from torch import Tensor, nn

from distill_lib.diffusion.guidance import combine, guided_pair
from distill_lib.diffusion.noise import normal
from distill_lib.diffusion.samplers import sample
from distill_lib.diffusion.schedules import step_counts
from distill_lib.engine.loop import TrainSettings, finish
from distill_lib.engine.store import Run
from distill_lib.guided.halving import Halving, Start, copy_of, halve_down
from distill_lib.guided.stage_one import distill_guidance
from distill_lib.measure.classes import Measured, measure
from distill_lib.measure.draw import in_batches
from distill_lib.networks.adapter import Keyed, Network, Parent, Trained
from distill_lib.networks.unet import W_FEATURES, build_unet, config_of, student_of
from distill_lib.profiles import Ablations
from distill_lib.teachers.heads import HEADS, WEIGHTINGS, denoise_by_head, train_head
from distill_lib.worlds.pictures import Pictures, identity


def one_at_a_time(base: TrainSettings, reuse: int) -> dict[str, tuple[TrainSettings, dict[str, Any]]]:
    """Label -> (settings, clamp and reuse) of one halving: as it is, and with one thing changed."""
    half = max(1, base.steps // 2)
    varied = {
        "as in the profile": {},
        "lr / 3": {"lr": base.lr / 3},
        "lr x 3": {"lr": base.lr * 3},
        "half the updates": {"steps": half},
        "twice the updates": {"steps": 2 * base.steps},
        "half the batch": {"batch_size": base.batch_size // 2},
        "half the batch, twice the updates": {"batch_size": base.batch_size // 2, "steps": 2 * base.steps},
        "no average of weights": {"ema": 0.0},
    }
    as_it_is = {"clamp": 100.0, "reuse": reuse}
    variants = {label: (replace(base, **changed), as_it_is) for label, changed in varied.items()}
    label, other = ("each target once", 1) if reuse > 1 else ("each target twice", 2)
    variants[label] = (base, as_it_is | {"reuse": other})
    return variants | {"weight 1 at all times": (base, as_it_is | {"clamp": 1.0})}


def resampled(
    measured: Measured, method: str, net: Network, n_steps: int, w: float, draws: int
) -> list[dict[str, Any]]:
    """Rows of one network from several draws of noise, numbered by `draw`; draw 0 of seed 0 is that of every table."""
    rows = []
    for draw in range(draws):
        draw_rows = measured.with_noise(draw).rows(method, net, n_steps, w)
        rows += [row | {"draw": draw, "seed": measured.seed} for row in draw_rows]
    return rows


# The lowest frequency of the Fourier features is sin(w / 10): ten times that is w itself up to 3 %, as a scalar. The
# features that an embedding drops are set to 0 on their way into the layer that reads them.
EMBEDDINGS = {
    "Fourier features": torch.ones(W_FEATURES),
    "w as one number": 10.0 * (torch.arange(W_FEATURES) == W_FEATURES // 2 - 1),
    "none": torch.zeros(W_FEATURES),
}
"""How w enters a student of stage one: factors on its features, (W_FEATURES,)."""


@dataclass(frozen=True)
class Choice:
    """One way to run stage one; the fields' defaults are the paper's way at our range."""

    w_max: float = 4.0
    start: str = "teacher"
    embedding: str = "Fourier features"


def _fresh(unet: UNet2DConditionModel, seed: int) -> UNet2DConditionModel:
    """A network of the same form with diffusers' own initial weights."""
    torch.manual_seed(seed)
    return UNet2DConditionModel(**config_of(unet)).to(unet.device)


def _scaled(factors: Tensor, layer: nn.Module, inputs: tuple[Tensor]) -> tuple[Tensor]:
    """A hook before a layer: its input times `factors`."""
    return (factors * inputs[0],)


def stage_one(teacher: Network, parent: str, choice: Choice, pictures: Pictures, settings: TrainSettings) -> Trained:
    """The finished student of stage one under a choice, from the pair `teacher` with key `parent`."""
    unet = student_of(teacher.module)
    if choice.start == "random":
        unet = _fresh(unet, settings.seed)
    student = Network(unet, bf16=teacher.bf16_option)
    kept = EMBEDDINGS[choice.embedding].to(student.device)
    student.module.time_embedding.cond_proj.register_forward_pre_hook(partial(_scaled, kept))
    config = {"choice": choice, "settings": settings, "pictures": identity(pictures), "parent": parent}
    config |= {"teacher": teacher}
    run = Run("stage-one", config, stage_one)
    training = distill_guidance(student, teacher, pictures, settings, run, choice.w_max)
    return Trained(student, finish(student, training, run, f"stage one, {choice}"), run)


class FoldedPair:
    """A guided pair in the place of a student of stage one: takes w (B,), and evaluates both of its networks."""

    takes_w = True

    def __init__(self, pair: Network) -> None:
        self.pair, self.module, self.bf16_option, self.null = pair, pair.module, pair.bf16_option, pair.null
        self.schedule = pair.schedule

    @property
    def spec(self) -> dict[str, Network]:
        """What tells it from another pair, for keys."""
        return {"pair": self.pair}

    def __call__(self, z_t: Tensor, t: Tensor, label: Tensor, w: Tensor) -> Tensor:
        return combine(*guided_pair(self.pair, z_t, t, label, self.null), w)

    def student(self) -> Network:
        """As `Network.student`."""
        return self.pair.student()


def fresh_start(teacher: Network | FoldedPair, halving: Halving) -> Network:
    """A student of random weights, for `guided.halving`: it has nothing of its teacher."""
    student = teacher.student()
    return student.like(_fresh(student.module, halving.settings.seed))


def steps_of(
    first: Parent, span: tuple[int, int], pictures: Pictures, halving: Halving, start: Start = copy_of
) -> Trained:
    """The student at the end of a chain of halvings from span[0] steps to span[1] steps, powers of two.

    `first` is a student of stage one, or a folded pair; the halvings differ in their steps and seeds alone.

    Raises:
        ValueError: the span leaves no halving.
    """
    if not (counts := step_counts(*span)):
        raise ValueError(f"until={span[1]} leaves no halving from start={span[0]}")
    settings = {n: halving.settings.with_seed(halving.settings.seed * 1000 + n) for n in counts}
    plan = [replace(halving, n_steps=n, settings=settings[n]) for n in counts]
    return halve_down(first, pictures, plan, "ablation", start)[counts[-1]]


@dataclass(frozen=True)
class Trials:
    """Trainings of notebook 04 that differ in one choice: same teacher, pictures, lengths and seed.

    Args:
        teacher, parent: the guided pair and the checksum of its weights.
        measured: what students are compared with.
        plan: sizes, from the profile.
        reuse: as in `guided.halving`.
    """

    teacher: Network
    parent: str
    pictures: Pictures
    measured: Measured
    plan: Ablations
    seed: int
    reuse: int

    def first(self, choice: Choice) -> Trained:
        """The student of stage one under a choice."""
        return stage_one(self.teacher, self.parent, choice, self.pictures, self.plan.stage_one.with_seed(self.seed))

    def halved(self, first: Parent, w_max: float, fresh: bool = False) -> Trained:
        """The student of plan.until steps, from one of plan.start steps; raises as `steps_of`.

        With `fresh` every student starts from random weights instead of its teacher's.
        """
        span, start = (self.plan.start, self.plan.until), fresh_start if fresh else copy_of
        return steps_of(first, span, self.pictures, self._halving(w_max), start)

    def _halving(self, w_max: float, more: int = 0) -> Halving:
        settings = self.plan.halving.with_seed(self.seed)
        settings = replace(settings, steps=settings.steps + more)
        return Halving(self.plan.until, settings, (0.0, w_max), reuse=self.reuse)

    def without_stage_one(self, w_max: float) -> Trained:
        """As `halved` from the pair itself, with the updates of stage one added to the first halving."""
        plan, pair = self.plan, Keyed(FoldedPair(self.teacher), self.parent)
        half, long = plan.start // 2, self._halving(w_max, plan.stage_one.steps)
        first = steps_of(pair, (plan.start, half), self.pictures, long)
        return steps_of(first, (half, plan.until), self.pictures, self._halving(w_max))

    def rows(self, students: dict[str, Trained], n_steps: int, ws: Iterable[float]) -> list[dict[str, Any]]:
        """All metrics of students by the names of their choices."""
        return [
            row | {"method": name}
            for name, student in students.items()
            for row in measure(self.measured, "ours-D", {n_steps: student.net}, ws)
        ]


def head_teachers(
    channels: tuple[int, ...], pictures: Pictures, settings: TrainSettings
) -> Iterator[tuple[str, str, Trained]]:
    """Undistilled networks of every head under every weighting, one after the other: (head, weighting, network)."""
    for head in HEADS:
        for weighting in WEIGHTINGS:
            torch.manual_seed(settings.seed)
            size = {"resolution": pictures.image.shape[-1], "n_classes": len(pictures.names), "channels": channels}
            unet = build_unet(**size)
            if head == "(x, eps)":
                unet = UNet2DConditionModel(**config_of(unet) | {"out_channels": 24})
            net = Network(unet)
            config = size | {"head": head, "weighting": weighting, "settings": settings, "pictures": identity(pictures)}
            run = Run("head", config, head_teachers)
            curve = finish(net, train_head(net, head, weighting, pictures, settings, run), run, f"{head}, {weighting}")
            yield head, weighting, Trained(net, curve, run)


def head_pictures(net: Network, head: str, label: Tensor, n_steps: int, seed: int = 0) -> Tensor:
    """Pictures uint8 (n, 3, R, R) of classes (n,), of a network of any head by the deterministic sampler, unguided."""

    def draw(index: Tensor) -> Tensor:
        z_T = normal(seed, "z_T", 0, index, net.shape)
        return sample(denoise_by_head(net, head, label.to(index.device)[index]), z_T, n_steps)

    return in_batches(net, len(label), draw)

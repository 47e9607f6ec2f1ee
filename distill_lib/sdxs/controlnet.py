"""ControlNets of SDXS: for the small U-Net (Fig. 2c) and for the student of one step (Fig. 5).

SDXS (Song et al. 2024, arXiv 2403.16627), section 3.1 and Fig. 2c: a ControlNet leaves the features of the U-Net's
down stages as they are, and changes those of its up stages and its output. So these are compared, by eqs. 7 and 8, and
not what the ControlNet itself puts out; the small U-Net is frozen.

    x ~ data, t ~ U, z_t = alpha_t x + sigma_t eps
    the small U-Net and ControlNet at (z_t, t, words, map) learn the large ones' output and features of up stages

The other way, residuals of one ControlNet against those of the other, is there to be compared with.

    teacher     a ControlNet for the large U-Net, on pictures of the world and their exact maps    `train_controlnet`
    shrunk      one for the small U-Net, through features of its up stages       Fig. 2c           `distill_controlnet`
    one step    for the student of one step: feature matching, then segmented
                score distillation with the teacher's ControlNet on both the
                online and the offline model                                     Fig. 5, Alg. 1    `one_step_control`

From the second on it is data-free: a control map is taken from the teacher's own
picture, so that noise, target and control are a triplet.
"""

import copy
from collections.abc import Callable, Iterator, Sequence

import torch
from diffusers import ControlNetModel
from torch import Tensor
from torch.nn import Module

from distill_lib.diffusion.guidance import dropped
from distill_lib.diffusion.schedules import add_noise
from distill_lib.engine.loop import Loop, Progress, TrainSettings, finish
from distill_lib.engine.store import Run
from distill_lib.networks.adapter import Network, Trained
from distill_lib.networks.controlnet import Controlled, cut_control, shared_places
from distill_lib.networks.pipeline import Latents
from distill_lib.networks.pruning import counterparts, tapped
from distill_lib.sdxs.one_step import Matching, fit_on_pairs
from distill_lib.sdxs.score_distillation import fit_by_scores
from distill_lib.sdxs.scoring import Scoring
from distill_lib.sdxs.tiny_unet import feature_loss, knowledge_loss
from distill_lib.sdxs.triplets import Triplets
from distill_lib.teachers.denoising import train_teacher

_DROP = 0.2  # share of samples whose prompt is left out


def observed(net: Controlled, taps: Sequence[Module], z_t: Tensor, t: Tensor, label: Tensor) -> tuple[Tensor, list]:
    """The answer of a controlled U-Net, and the outputs of its layers `taps` in float32."""
    with tapped(taps) as outputs:
        v_hat = net(z_t, t, label)
    return v_hat, [feature.float() for feature in outputs]


def through_decoder(student: Controlled, teacher: Controlled, z_t: Tensor, t: Tensor, label: Tensor) -> Tensor:
    """Eqs. 7 and 8 behind the ControlNets, (B,): outputs of the U-Nets, and features of their up stages."""
    student_taps, teacher_taps = counterparts(student.network.module, teacher.network.module, down=False)
    with torch.no_grad():
        v_teacher, wanted = observed(teacher, teacher_taps, z_t, t, label)
    v_student, features = observed(student, student_taps, z_t, t, label)
    return knowledge_loss(v_student, v_teacher, features, wanted)


def through_residuals(student: Controlled, teacher: Controlled, z_t: Tensor, t: Tensor, label: Tensor) -> Tensor:
    """What the ControlNets themselves put out for the skip connections that both have, by squares, (B,)."""
    with torch.no_grad():
        wanted, _ = teacher.residuals(z_t, t, label)
    residuals, _ = student.residuals(z_t, t, label)
    shared = shared_places(student.control, teacher.control)
    return feature_loss([r.float() for r in residuals], [wanted[k].float() for k in shared])


Compare = Callable[[Controlled, Controlled, Tensor, Tensor, Tensor], Tensor]
"""(student, teacher, z_t, t, label) -> loss (B,)."""
CONTROL_TARGETS: dict[str, Compare | None] = {
    "decoder": through_decoder,
    "residuals": through_residuals,
    "denoising": None,
}
"""What a ControlNet for the small U-Net is held to; the last are the pictures alone."""


def distill_control(
    student: Controlled,
    teacher: Controlled,
    pictures: Latents,
    settings: TrainSettings,
    run: Run,
    compare: Compare = through_decoder,
) -> Iterator[Progress]:
    """Train student.module, a `controlnet.cut_control` of the teacher's.

    Args:
        student, teacher: controlled U-Nets that take no w.
        pictures: data with maps; of a data-free training, the teacher's own.
        compare: `through_decoder` or `through_residuals`.
    """
    loop = Loop(student, settings, run)
    for part in (student.network, teacher, teacher.network):
        loop.place(part)
    schedule = teacher.schedule
    for _, draws in loop:
        x, label = pictures.batch(draws.integer("picture", len(pictures)).cpu(), loop.device)
        label = dropped(label, teacher.null, draws.uniform("drop") < _DROP)
        t = 1 + draws.integer("t", schedule.T)
        z_t = add_noise(x, draws.normal("eps", x.shape[1:]), t, schedule)
        yield loop.update(compare(student, teacher, z_t, t, label))


def train_controlnet(net: Controlled, data: Latents, settings: TrainSettings, drop: float) -> Trained:
    """A ControlNet by the denoising loss on data with maps, its U-Net frozen.

    Args:
        net: the same object is trained.
        drop: share of samples whose prompt is left out, so that the map has to be read.
    """
    run = Run("controlnet", {"settings": settings, "data": data, "net": net, "drop": drop}, train_controlnet)
    return Trained(net, finish(net, train_teacher(net, data, settings, run, drop), run, "ControlNet"), run)


def distill_controlnet(
    small: Network,
    triplets: Triplets,
    control: ControlNetModel,
    settings: TrainSettings,
    target: str = "decoder",
    inherit: bool = True,
) -> Trained:
    """A ControlNet for the small U-Net, held to one of `CONTROL_TARGETS`.

    Args:
        small: the small U-Net behind its adapter, frozen.
        triplets: whose pictures and maps it is trained on.
        control: the teacher's ControlNet.
        target: of WAYS.
        inherit: start from `control`, cut; else as a new ControlNet.

    Raises:
        ValueError: the target is unknown.
    """
    if target not in CONTROL_TARGETS:
        raise ValueError(f"target={target!r} is unknown; choose one of {', '.join(CONTROL_TARGETS)}")
    torch.manual_seed(settings.seed)
    student = Controlled(small, cut_control(control, small.module, inherit).requires_grad_(True))
    data = triplets.as_data()
    run = Run(
        "small-control",
        {"settings": settings, "pairs": triplets, "student": student, "way": target},
        distill_controlnet,
    )
    if compare := CONTROL_TARGETS[target]:
        training = distill_control(student, triplets.model.network, data, settings, run, compare)
    else:
        training = train_teacher(student, data, settings, run, _DROP)
    return Trained(student, finish(student, training, run, f"small ControlNet, {target}"), run)


def one_step_control(
    student: Controlled, triplets: Triplets, cost: Matching, matching: TrainSettings, scoring: Scoring | None
) -> list[Trained]:
    """A ControlNet for the student of one step, whose U-Net is frozen: after feature matching, and after Algorithm 1.

    Both are the very functions that trained the U-Net, `one_step.fit_on_pairs` and `score_distillation.fit_by_scores`.

    Args:
        student: the same object is trained.
        triplets: noise, target, control; `model` is the controlled teacher, of which the online model is a copy.
        cost: feature matching.
        matching, scoring: settings of both trainings; None leaves the second out.
    """
    done = [fit_on_pairs(student, triplets, cost, matching)]
    if scoring is not None:
        done.append(fit_by_scores(student.like(copy.deepcopy(student.control)), triplets, cost, scoring))
    return done

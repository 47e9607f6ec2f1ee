"""A small U-Net learns a large one's predictions and features, at every noise level (eqs. 6 to 8).

    OKD = |v_hat_student - v_hat_teacher|^2                                                                    (1)
    FKD = sum_l |f_l_student - f_l_teacher|^2          features of the stages that both have                   (2)
    KD  = OKD + lambda_F FKD                                                                                   (3)

SDXS (Song et al. 2024, arXiv 2403.16627), eqs. 6 to 8, which leave the denoising loss out. (1) is taken in v, where all
noise levels count alike; a difference of scores is one of v times alpha_t / sigma_t.

The training:

    x ~ data, t ~ U, z_t = alpha_t x + sigma_t eps
    the student at (z_t, t, c) learns the teacher's output there, and its features stage by stage
"""

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from distill_lib.diffusion.errors import mean_square
from distill_lib.diffusion.guidance import dropped
from distill_lib.diffusion.schedules import add_noise, v_from
from distill_lib.engine.loop import Loop, Progress, TrainSettings, finish
from distill_lib.engine.store import Run
from distill_lib.networks.adapter import Network, Trained
from distill_lib.networks.pipeline import Latents
from distill_lib.networks.pruning import Cut, counterparts, prune, tapped
from distill_lib.teachers.latents import Pairs
from distill_lib.worlds.pictures import Pictures


def output_loss(v_student: Tensor, v_teacher: Tensor) -> Tensor:
    """(1), one value per sample, (B,), of predictions (B, *D)."""
    return mean_square(v_student - v_teacher)


def feature_loss(features: Sequence[Tensor], wanted: Sequence[Tensor]) -> Tensor:
    """(2), (B,); features (B, C_l, H_l, W_l) of both, stage by stage.

    Raises:
        ValueError: they are not of as many stages.
    """
    if len(features) != len(wanted):
        raise ValueError(f"{len(features)} stages of the student stand beside {len(wanted)} of the teacher")
    return torch.stack([mean_square(a - b) for a, b in zip(features, wanted, strict=True)]).sum(0)


def knowledge_loss(
    v_student: Tensor,
    v_teacher: Tensor,
    features: Sequence[Tensor],
    wanted: Sequence[Tensor],
    lambda_f: float = 1.0,
) -> Tensor:
    """(3), (B,); lambda_f as the paper does not give it, and BK-SDM has 1."""
    return output_loss(v_student, v_teacher) + lambda_f * feature_loss(features, wanted)


def distill_unet(
    student: Network,
    teacher: Network,
    pictures: Pictures,
    settings: TrainSettings,
    run: Run,
    lambda_f: float = 1.0,
    denoising: float = 0.0,
    drop: float = 0.2,
) -> Iterator[Progress]:
    """Train student.module, a `pruning.prune` of teacher.module.

    Args:
        student, teacher: networks that take no w.
        pictures: data; of a data-free training, the teacher's own.
        lambda_f: weight of the features; 0 leaves them out.
        denoising: weight of the denoising loss, which the paper leaves out.
        drop: share of samples whose prompt is left out, so that the student can be guided.
    """
    loop = Loop(student, settings, run)
    loop.place(teacher)
    student_taps, teacher_taps = counterparts(student.module, teacher.module)
    schedule = teacher.schedule
    for _, draws in loop:
        x, label = pictures.batch(draws.integer("picture", len(pictures)).cpu(), loop.device)
        label = dropped(label, teacher.null, draws.uniform("drop") < drop)
        t = 1 + draws.integer("t", schedule.T)
        eps = draws.normal("eps", x.shape[1:])
        z_t = add_noise(x, eps, t, schedule)
        with torch.no_grad(), tapped(teacher_taps) as wanted:
            v_teacher = teacher(z_t, t, label)
        with tapped(student_taps) as features:
            v_student = student(z_t, t, label)
        seen, target = ([f.float() for f in layers] for layers in (features, wanted))
        loss = knowledge_loss(v_student, v_teacher, seen, target, lambda_f)
        if denoising:
            loss = loss + denoising * mean_square(v_student - v_from(x, eps, t, schedule))
        yield loop.update(loss)


CUT = Cut(middle="removed", innermost=True, finest=True)
"""What SDXS removes of Stable Diffusion, but for units: ours has one a stage already."""


def cut_network(network: Network, cut: Cut | None = None, inherit: bool = True, seed: int = 0) -> Network:
    """A network after a cut, `CUT` unless another is named, to be trained, with its own weights or random ones."""
    torch.manual_seed(seed)
    return network.like(prune(network.module, cut or CUT, inherit).requires_grad_(True))


def small_unet(
    student: Network, pairs: Pairs, settings: TrainSettings, lambda_f: float = 1.0, denoising: float = 0.0
) -> Trained:
    """A cut network taught by the whole one on the teacher's own latents, eqs. 6 to 8.

    Args:
        student: the cut network (`cut_network`); the same object is trained.
        pairs: of the teacher that it was cut from.
        settings: of the training.
        lambda_f, denoising: as in `distill_unet`.
    """
    model = pairs.model
    config = {"settings": settings, "pairs": pairs, "student": student, "lambda_f": lambda_f, "denoising": denoising}
    run = Run("small-unet", config, small_unet)
    data = Latents(pairs.x, pairs.prompts, model)
    training = distill_unet(student, model.network, data, settings, run, lambda_f, denoising)
    return Trained(student, finish(student, training, run, "small U-Net"), run)

"""A small U-Net learns a large one's predictions and features, at every noise level.

SDXS (Song et al. 2024, arXiv 2403.16627), eqs. 6 to 8:

    x ~ data, t ~ U, z_t = alpha_t x + sigma_t eps
    the student at (z_t, t, c) learns the teacher's output there, and its features stage by stage
"""

from collections.abc import Iterator

import torch

from distill_lib.guidance import without_condition
from distill_lib.losses.denoising import mean_square
from distill_lib.losses.knowledge import knowledge_loss
from distill_lib.models import Network
from distill_lib.pruning import counterparts, tapped
from distill_lib.schedules import add_noise, v_from
from distill_lib.store import Run
from distill_lib.training import Loop, Progress, TrainSettings, place
from distill_lib.worlds.datasets import Pictures

__all__ = ["distill_unet"]


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
        settings, run: of the training.
        lambda_f: weight of the features; 0 leaves them out.
        denoising: weight of the denoising loss, which the paper leaves out.
        drop: share of samples whose prompt is left out, so that the student can be guided.
    """
    loop = Loop(student, settings, run)
    place(teacher, loop.device)
    mine, theirs = counterparts(student.module, teacher.module)
    schedule = teacher.schedule
    for _, draws in loop:
        x, label = pictures.batch(draws.integer("picture", len(pictures)).cpu(), loop.device)
        dropped = (draws.uniform("drop") < drop).reshape(-1, *[1] * (label.ndim - 1))
        label = torch.where(dropped, without_condition(label, teacher.null), label)
        t = 1 + draws.integer("t", schedule.T)
        eps = draws.normal("eps", x.shape[1:])
        z_t = add_noise(x, eps, t, schedule)
        with torch.no_grad(), tapped(theirs) as wanted:
            v_teacher = teacher(z_t, t, label)
        with tapped(mine) as features:
            v_student = student(z_t, t, label)
        seen, shown = ([f.float() for f in found] for found in (features, wanted))
        loss = knowledge_loss(v_student, v_teacher, seen, shown, lambda_f)
        if denoising:
            loss = loss + denoising * mean_square(v_student - v_from(x, eps, t, schedule))
        yield loop.update(loss)

"""Stage one: one network learns what the guided pair says, for every strength w in a range.

Meng et al. 2023 (arXiv 2210.03142), Algorithm 1:

    x ~ data, t ~ U, w ~ U[0, w_max], z_t = alpha_t x + sigma_t eps
    the student at (z_t, t, c, w) learns the target (1 + w) x_hat(z_t, c) - w x_hat(z_t, no condition)
"""

from collections.abc import Iterator
from dataclasses import replace

import torch
from torch import Tensor

from distill_lib.guidance import combine, guided_pair
from distill_lib.losses.denoising import mean_square
from distill_lib.losses.guided import stage_one_loss
from distill_lib.models import Network
from distill_lib.precision import held
from distill_lib.schedules import add_noise
from distill_lib.store import Run
from distill_lib.training import Draws, Loop, Progress, TrainSettings, place
from distill_lib.worlds.datasets import Pictures

__all__ = ["distill_guidance", "guidance_size"]


_LEVELS = 16  # of noise, at which the size of guidance is measured


@torch.no_grad()
def guidance_size(teacher: Network, pictures: Pictures, draws: Draws, levels: int = _LEVELS) -> Tensor:
    """Mean of |v_cond - v_uncond|^2, the size of what w = 1 adds, (levels,): one number for each span of times.

    The samples of `draws` are shared out evenly; entry k is for the grid indices in (k T / levels, (k+1) T / levels].
    """
    sizes, span = [], teacher.schedule.T // levels
    for level in range(levels):
        here = replace(draws, index=draws.index[level::levels])
        x, label = pictures.batch(here.integer("picture", len(pictures)).cpu(), here.index.device)
        t = 1 + span * level + here.integer("t", span)
        z_t = add_noise(x, here.normal("eps", x.shape[1:]), t, teacher.schedule)
        v_cond, v_uncond = guided_pair(teacher, z_t, t, label, teacher.null)
        sizes.append(mean_square(v_cond - v_uncond).mean())
    return torch.stack(sizes)


def distill_guidance(
    student: Network,
    teacher: Network,
    pictures: Pictures,
    settings: TrainSettings,
    run: Run,
    w_max: float = 4.0,
    strengths: int = 2,
) -> Iterator[Progress]:
    """Train student.module on the guided pair of `teacher`.

    Differs from the paper: w = w_max u^1.5 with u uniform, which puts more mass near w = 0, the end of the range where
    the student is worst; and each noisy picture is used with `strengths` values of w, which share one teacher pair.

    Raises:
        ValueError: a process's samples of a step do not divide by `strengths`.
    """
    loop = Loop(student, settings, run)
    if loop.share % strengths:
        raise ValueError(f"a batch of {loop.share} a process does not divide by strengths={strengths}; take a multiple")
    place(teacher, loop.device)
    with held(loop.precision):
        size = guidance_size(
            teacher, pictures, Draws(settings.seed, -1, torch.arange(64 * _LEVELS, device=loop.device))
        )
    unit = size.clamp(min=0.1 * size.mean())  # at low noise guidance may add nothing to be relative to
    schedule = teacher.schedule
    for _, draws in loop:
        few = replace(draws, index=draws.index[::strengths])
        x, label = pictures.batch(few.integer("picture", len(pictures)).cpu(), loop.device)
        t = 1 + few.integer("t", schedule.T)
        z_t = add_noise(x, few.normal("eps", x.shape[1:]), t, schedule)
        with torch.no_grad():
            pair = guided_pair(teacher, z_t, t, label, teacher.null)
        z_t, t, label, v_cond, v_uncond = (a.repeat_interleave(strengths, 0) for a in (z_t, t, label, *pair))
        w = w_max * draws.uniform("w") ** 1.5
        v_w = combine(v_cond, v_uncond, w)
        here = unit[(t - 1) * _LEVELS // schedule.T]
        yield loop.update(stage_one_loss(student(z_t, t, label, w), v_cond, v_w, here))

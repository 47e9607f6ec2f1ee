"""Stage one (Algorithm 1): one network learns what the guided pair says, for every strength w in a range.

    target = (1 + w) x_hat_teacher(z_t, c) - w x_hat_teacher(z_t, no condition)                                (1)
    loss   = weight(t) | target - x_hat_student(z_t, c, w) |^2                                                 (2)

Meng et al. 2023 (arXiv 2210.03142), section 3.1 and Algorithm 1. By linearity (1) may be taken in v; an x error is
sigma_t times a v error.

Algorithm 1:

    x ~ data, t ~ U, w ~ U[0, w_max], z_t = alpha_t x + sigma_t eps
    the student at (z_t, t, c, w) learns the target (1 + w) x_hat(z_t, c) - w x_hat(z_t, no condition)
"""

from collections.abc import Iterator
from dataclasses import replace

import torch
from torch import Tensor

from distill_lib.diffusion.errors import mean_square
from distill_lib.diffusion.guidance import combine, guided_pair
from distill_lib.diffusion.noise import Draws
from distill_lib.diffusion.schedules import add_noise
from distill_lib.engine.loop import Loop, Progress, TrainSettings
from distill_lib.engine.precision import held
from distill_lib.engine.store import Run
from distill_lib.networks.adapter import Network
from distill_lib.worlds.pictures import Pictures


def stage_one_loss(v_student: Tensor, v_cond: Tensor, v_w: Tensor, unit: Tensor) -> Tensor:
    """Loss (2) in v, relative to what guidance adds:  |v_w - v_student|^2 / (unit + |v_w - v_cond|^2).

    Differs from the paper: it takes the truncated SNR weight on x. What guidance adds differs between noise levels and
    grows as w^2. With an absolute error, samples with large w would contribute almost all of the loss of a batch; the
    divisor gives each noise level and each strength about the same weight.

    Args:
        v_student: student's prediction, the only input with a gradient, (B, *D).
        v_cond: teacher's conditional prediction, (B, *D).
        v_w: the guided target (1) in v, (B, *D).
        unit: size of |v_w - v_cond|^2 from which on the loss is relative, > 0, (B,); that of w = 1 is a good one.

    Returns:
        Loss per sample, (B,).
    """
    return mean_square(v_w - v_student) / (unit + mean_square(v_w - v_cond))


@torch.no_grad()
def relative_error(v_student: Tensor, v_cond: Tensor, v_w: Tensor) -> Tensor:
    """|x_student - x_w|^2 / |x_w - x_cond|^2 over the whole batch, a scalar: 1 at the start, 0 for a perfect student.

    All three share z_t and t, so the ratio is the same in x and in v. Undefined (inf or nan) at w = 0.
    """
    return (v_student - v_w).square().sum() / (v_w - v_cond).square().sum()


_LEVELS = 16  # of noise, at which the size of guidance is measured


@torch.no_grad()
def guidance_size(teacher: Network, pictures: Pictures, draws: Draws, levels: int = _LEVELS) -> Tensor:
    """Mean of |v_cond - v_uncond|^2, the size of what w = 1 adds, (levels,): one number for each span of times.

    The samples of `draws` are shared out evenly; entry k is for the grid indices in (k T / levels, (k+1) T / levels].
    """
    sizes, span = [], teacher.schedule.T // levels
    for level in range(levels):
        level_draws = replace(draws, index=draws.index[level::levels])
        x, label = pictures.batch(level_draws.integer("picture", len(pictures)).cpu(), level_draws.index.device)
        t = 1 + span * level + level_draws.integer("t", span)
        z_t = add_noise(x, level_draws.normal("eps", x.shape[1:]), t, teacher.schedule)
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

    Differs from the paper: w = w_max u^1.5 with u uniform, which draws small w more often: half of the draws are
    below 0.354 w_max. And each noisy picture is used with `strengths` values of w, which share one teacher pair.

    Raises:
        ValueError: a process's samples of a step do not divide by `strengths`.
    """
    loop = Loop(student, settings, run)
    if loop.share % strengths:
        raise ValueError(f"a batch of {loop.share} a process does not divide by strengths={strengths}; take a multiple")
    loop.place(teacher)
    each = min(64, max(1, settings.steps * settings.batch_size // _LEVELS))  # no more than the training itself sees
    with held(loop.precision):
        index = torch.arange(each * _LEVELS, device=loop.device)
        size = guidance_size(teacher, pictures, Draws(settings.seed, -1, index))
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
        unit_t = unit[(t - 1) * _LEVELS // schedule.T]
        yield loop.update(stage_one_loss(student(z_t, t, label, w), v_cond, v_w, unit_t))

"""Consistency distillation, the rival: from every point of one path of the teacher, the student gives one answer.

    z_s    = one deterministic step of the teacher from z_t, s a little below t
    target = x_hat_student(z_s, s), held fixed;  z_s itself at s = 0                                           (1)
    loss   = sqrt(|target - x_hat_student(z_t, t)|^2 + c^2) - c                                                (2)

Song et al. 2023 (arXiv 2303.01469), Algorithm 2, in latents and with guidance inside the teacher's step as LCM (Luo et
al. 2023, arXiv 2310.04378, Algorithm 1) has it; (2) is the pseudo-Huber distance of Song and Dhariwal 2023 (arXiv
2310.14189), which also drop the average of weights from (1), as here. A network that predicts v answers z_0 at t = 0
whatever it says.

    x ~ data, t on a grid of N points, s the one below, w ~ U, z_t = alpha_t x + sigma_t eps
    the student at (z_t, t, c, w) learns its own answer at the point that the guided teacher reaches from there at s

This is what SDXS (Song et al. 2024, arXiv 2403.16627) compares with in Table 3.
"""

from collections.abc import Iterator

import torch
from torch import Tensor

from distill_lib.diffusion.errors import mean_square
from distill_lib.diffusion.samplers import Denoise, ddim_step
from distill_lib.diffusion.schedules import OURS, Schedule, add_noise, step_grid, x_from_v
from distill_lib.engine.loop import Loop, Progress, TrainSettings
from distill_lib.engine.store import Run
from distill_lib.networks.adapter import Network, denoise_pair, denoise_student
from distill_lib.worlds.pictures import Pictures


@torch.no_grad()
def consistency_target(
    student: Denoise, teacher: Denoise, z_t: Tensor, t: Tensor, s: Tensor, schedule: Schedule = OURS
) -> Tensor:
    """(1), (B, *D); grid indices t > s >= 0, (B,)."""
    z_s = ddim_step(teacher, z_t, t, s, schedule)
    s_known = s.clamp(min=1)  # no network knows t = 0
    x_hat = x_from_v(z_s, student(z_s, s_known), s_known, schedule)
    return torch.where((s > 0).reshape(-1, *[1] * (z_t.ndim - 1)), x_hat, z_s)


def consistency_loss(
    student: Denoise, target: Tensor, z_t: Tensor, t: Tensor, schedule: Schedule = OURS, c: float = 0.03
) -> Tensor:
    """(2), one value per sample, (B,); |.|^2 is a mean over entries."""
    x_hat = x_from_v(z_t, student(z_t, t), t, schedule)
    return (mean_square(target - x_hat) + c**2).sqrt() - c


def distill_consistency(
    student: Network,
    teacher: Network,
    pictures: Pictures,
    settings: TrainSettings,
    run: Run,
    w_range: tuple[float, float],
    n_points: int,
) -> Iterator[Progress]:
    """Train student.module, which takes w, on the guided pair `teacher`.

    Args:
        w_range: strengths are drawn evenly from it.
        n_points: N, a divisor of the grid; LCM's skipping of 20 of 1,000 points is N = 50. What is right at t = 0
            has to travel up the whole grid, so that few updates ask for few points.
    """
    loop = Loop(student, settings, run)
    loop.place(teacher)
    schedule = teacher.schedule
    grid = torch.tensor(step_grid(n_points, schedule.T)[::-1], device=loop.device)
    for _, draws in loop:
        x, label = pictures.batch(draws.integer("picture", len(pictures)).cpu(), loop.device)
        i = 1 + draws.integer("t", n_points)
        t, s = grid[i], grid[i - 1]
        w = w_range[0] + (w_range[1] - w_range[0]) * draws.uniform("w")
        z_t = add_noise(x, draws.normal("eps", x.shape[1:]), t, schedule)
        known = denoise_student(student, label, w)
        target = consistency_target(known, denoise_pair(teacher, label, w), z_t, t, s, schedule)
        yield loop.update(consistency_loss(known, target, z_t, t, schedule))

"""Consistency distillation of a guided pair into one network that takes w.

    x ~ data, t on a grid of N points, s the one below, w ~ U, z_t = alpha_t x + sigma_t eps
    the student at (z_t, t, c, w) learns its own answer at the point that the guided teacher reaches from there at s

LCM (Luo et al. 2023, arXiv 2310.04378), Algorithm 1; what SDXS (Song et al. 2024, arXiv 2403.16627) compares with in
Table 3.
"""

from collections.abc import Iterator

import torch

from distill_lib.guidance import combine, guided_pair
from distill_lib.losses.consistency import consistency_loss, consistency_target
from distill_lib.models import Network, denoise_student
from distill_lib.schedules import add_noise, step_grid
from distill_lib.store import Run
from distill_lib.training import Loop, Progress, TrainSettings, place
from distill_lib.worlds.datasets import Pictures

__all__ = ["distill_consistency"]


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
        student, teacher, pictures, settings, run: as in `guidance_distillation.distill_guidance`.
        w_range: strengths are drawn evenly from it.
        n_points: N, a divisor of the grid; LCM's skipping of 20 of 1,000 points is N = 50. What is right at t = 0
            has to travel up the whole grid, so that few updates ask for few points.
    """
    loop = Loop(student, settings, run)
    place(teacher, loop.device)
    schedule = teacher.schedule
    grid = torch.tensor(step_grid(n_points, schedule.T)[::-1], device=loop.device)
    for _, draws in loop:
        x, label = pictures.batch(draws.integer("picture", len(pictures)).cpu(), loop.device)
        i = 1 + draws.integer("t", n_points)
        t, s = grid[i], grid[i - 1]
        w = w_range[0] + (w_range[1] - w_range[0]) * draws.uniform("w")
        z_t = add_noise(x, draws.normal("eps", x.shape[1:]), t, schedule)

        def guided(z: torch.Tensor, t: torch.Tensor, label: torch.Tensor = label, w: torch.Tensor = w) -> torch.Tensor:
            return combine(*guided_pair(teacher, z, t, label, teacher.null), w)

        known = denoise_student(student, label, w)
        target = consistency_target(known, guided, z_t, t, s, schedule)
        yield loop.update(consistency_loss(known, target, z_t, t, schedule))

"""Consistency distillation, the rival: from every point of one path of the teacher, the student gives one answer.

    z_s    = one deterministic step of the teacher from z_t, s below t
    target = x_hat_student(z_s, s), held fixed;  z_s itself at s = 0                                           (1)
    loss   = sqrt(|target - x_hat_student(z_t, t)|^2 / D + c^2) - c                                            (2)
    weight = T / (t - s)                                                                                       (3)

Song et al. 2023 (arXiv 2303.01469), Algorithm 2, in latents and with guidance inside the teacher's step as LCM (Luo et
al. 2023, arXiv 2310.04378, Algorithm 1) has it. (2) is the pseudo-Huber distance of Song and Dhariwal 2023 (arXiv
2310.14189), who also drop the average of weights from (1), as here: theirs, of the norm and with c sqrt(D), is sqrt(D)
times (2). (3) and the times are those of easy consistency tuning (Geng et al. 2024, arXiv 2406.14548; `easy_tuning`). A
network that predicts v answers z_0 at t = 0 whatever it says.

    x ~ data, t ~ U, s closing in on t, w ~ U, z_t = alpha_t x + sigma_t eps
    the student at (z_t, t, c, w) learns its own answer at the point that the guided teacher reaches from there at s

This is what SDXS (Song et al. 2024, arXiv 2403.16627) compares with in Table 3.
"""

from collections.abc import Iterator

import torch
from torch import Tensor

from distill_lib.diffusion.errors import mean_square
from distill_lib.diffusion.samplers import Denoise, ddim_step
from distill_lib.diffusion.schedules import OURS, Schedule, add_noise, x_from_v
from distill_lib.engine.loop import Loop, Progress, TrainSettings
from distill_lib.engine.store import Run
from distill_lib.networks.adapter import Network, denoise_pair, denoise_student
from distill_lib.sdxs.easy_tuning import EasyTuning
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
    student: Denoise, target: Tensor, z_t: Tensor, t: Tensor, schedule: Schedule = OURS, c: float = 0.00054
) -> Tensor:
    """(2), one value per sample, (B,); D is the number of entries."""
    x_hat = x_from_v(z_t, student(z_t, t), t, schedule)
    return (mean_square(target - x_hat) + c**2).sqrt() - c


def distill_consistency(
    student: Network,
    teacher: Network,
    pictures: Pictures,
    settings: TrainSettings,
    run: Run,
    w_range: tuple[float, float],
    tuning: EasyTuning,
) -> Iterator[Progress]:
    """Train student.module, which takes w, on the guided pair `teacher`.

    Args:
        w_range: strengths are drawn evenly from it.
        tuning: pairs of times, and c.
    """
    loop = Loop(student, settings, run)
    loop.place(teacher)
    schedule = teacher.schedule
    for step, draws in loop:
        x, label = pictures.batch(draws.integer("picture", len(pictures)).cpu(), loop.device)
        t = 1 + draws.integer("t", schedule.T)
        s = tuning.earlier(t, step / settings.steps, schedule)
        w = w_range[0] + (w_range[1] - w_range[0]) * draws.uniform("w")
        z_t = add_noise(x, draws.normal("eps", x.shape[1:]), t, schedule)
        known = denoise_student(student, label, w)
        target = consistency_target(known, denoise_pair(teacher, label, w), z_t, t, s, schedule)
        yield loop.update(schedule.T / (t - s) * consistency_loss(known, target, z_t, t, schedule, tuning.c))

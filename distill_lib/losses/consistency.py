"""Consistency: from every point of one way of the teacher, the student gives one answer.

    z_s    = one deterministic step of the teacher from z_t, s a little below t
    target = x_hat_student(z_s, s), held fixed;  z_s itself at s = 0                                           (1)
    loss   = sqrt(|target - x_hat_student(z_t, t)|^2 + c^2) - c                                                (2)

Song et al. 2023 (arXiv 2303.01469), Algorithm 2, in latents and with guidance inside the teacher's step as LCM (Luo et
al. 2023, arXiv 2310.04378) has it; (2) is the pseudo-Huber distance of Song and Dhariwal 2023 (arXiv 2310.14189), which
also drop the average of weights from (1), as here. A network that predicts v answers z_0 at t = 0 whatever it says.
"""

import torch
from torch import Tensor

from distill_lib.losses.denoising import mean_square
from distill_lib.samplers import Denoise, ddim_step
from distill_lib.schedules import OURS, Schedule, x_from_v

__all__ = ["consistency_loss", "consistency_target"]


@torch.no_grad()
def consistency_target(
    student: Denoise, teacher: Denoise, z_t: Tensor, t: Tensor, s: Tensor, schedule: Schedule = OURS
) -> Tensor:
    """(1), (B, *D); grid indices t > s >= 0, (B,)."""
    z_s = ddim_step(teacher, z_t, t, s, schedule)
    asked = s.clamp(min=1)  # no network knows t = 0
    x_hat = x_from_v(z_s, student(z_s, asked), asked, schedule)
    return torch.where((s > 0).reshape(-1, *[1] * (z_t.ndim - 1)), x_hat, z_s)


def consistency_loss(
    student: Denoise, target: Tensor, z_t: Tensor, t: Tensor, schedule: Schedule = OURS, c: float = 0.03
) -> Tensor:
    """(2), one value a sample, (B,); |.|^2 is a mean over entries."""
    x_hat = x_from_v(z_t, student(z_t, t), t, schedule)
    return (mean_square(target - x_hat) + c**2).sqrt() - c

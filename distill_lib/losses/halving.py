"""Stage two: the loss that teaches a student to make in one deterministic step what its teacher makes in two.

With grid indices t > m > s, m half-way, the teacher walks z_t -> z_m -> z_s by DDIM. The student's own step from z_t
lands on z_s exactly when its x prediction is

    x_target = (z_s - (sigma_s / sigma_t) z_t) / (alpha_s - (sigma_s / sigma_t) alpha_t)                       (1)
    loss     = max(alpha_t^2 / sigma_t^2, 1) | x_target - x_hat_student(z_t) |^2                               (2)

Salimans and Ho 2022 (arXiv 2202.00512), Algorithm 2; Meng et al. 2023 (arXiv 2210.03142), Algorithm 2. At s = 0, (1)
is the teacher's last x prediction itself. Nothing is clipped inside the target, which would break (1).
"""

import torch
from torch import Tensor

from distill_lib.losses.denoising import mean_square, truncated_snr
from distill_lib.samplers import Denoise, ddim_step
from distill_lib.schedules import OURS, Schedule, x_from_v

__all__ = ["halving_loss", "halving_target"]


@torch.no_grad()
def halving_target(teacher: Denoise, z_t: Tensor, t: Tensor, m: Tensor, s: Tensor, schedule: Schedule = OURS) -> Tensor:
    """x_target of (1), (B, *D); two calls of the teacher.

    Args:
        teacher: denoiser with condition and w bound.
        z_t: noisy data, (B, *D).
        t, m, s: start, middle and end of the student's step as grid indices, (B,), t > m >= s. Where m = s = 0 the
            teacher arrives in one step (the last step of the stochastic sampler).
    """
    z_m = ddim_step(teacher, z_t, t, m, schedule)
    second = ddim_step(teacher, z_m, m.clamp(min=1), s, schedule)  # no network knows t = 0
    z_s = torch.where((m > s).reshape(-1, *[1] * (z_t.ndim - 1)), second, z_m)
    alpha_t, sigma_t = schedule(t, z_t)
    alpha_s, sigma_s = schedule(s, z_t)
    ratio = sigma_s / sigma_t
    return (z_s - ratio * z_t) / (alpha_s - ratio * alpha_t)


def halving_loss(
    student: Denoise, x_target: Tensor, z_t: Tensor, t: Tensor, schedule: Schedule = OURS, clamp: float = 100.0
) -> Tensor:
    """Loss (2), one value a sample, (B,); arguments as in `halving_target`, clamp as in `truncated_snr`."""
    x_hat = x_from_v(z_t, student(z_t, t), t, schedule)
    return truncated_snr(t, schedule, clamp) * mean_square(x_target - x_hat)

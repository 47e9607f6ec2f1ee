"""Distilling the encoder: the student's one step up learns to land where several steps of its teacher land.

With alpha = cos(phi) and sigma = sin(phi), a deterministic step in any direction is a rotation towards v,

    z_s = cos(phi_s - phi_t) z_t + sin(phi_s - phi_t) v_hat(z_t)                                               (1)

so that the teacher's steps t -> .. -> s, two or more, are made in one by

    v_target = (z_s - cos(phi_s - phi_t) z_t) / sin(phi_s - phi_t)                                             (2)
    loss     = max(alpha_t^2, sigma_t^2) | v_target - v_hat_student(z_t) |^2                                   (3)

cos(phi_s - phi_t) = alpha_s alpha_t + sigma_s sigma_t, sin(phi_s - phi_t) = sigma_s alpha_t - alpha_s sigma_t. (1) and
(2) are ours and hold downward too, where (3) is the loss of `losses.halving` without its bound: an error of v is an
error of x divided by sigma_t. Upward the x of (2) is of no use: at t = 0, where an encoder starts, z_t is x itself.
Meng et al. 2023 (arXiv 2210.03142) distil the encoder by the same halving with time reversed; the sources at hand give
no formula for it.
"""

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor

from distill_lib.encoding import above_zero
from distill_lib.losses.denoising import mean_square
from distill_lib.samplers import Denoise, ddim_step
from distill_lib.schedules import OURS, Schedule

__all__ = ["encoding_loss", "encoding_target"]


@torch.no_grad()
def encoding_target(teacher: Denoise, z_t: Tensor, times: Sequence[Tensor], schedule: Schedule = OURS) -> Tensor:
    """v_target of (2), (B, *D); one call of the teacher for each of its steps.

    Args:
        teacher: denoiser with condition and w bound.
        z_t: noisy data at the first of the times, (B, *D); data itself where that is 0.
        times: grid indices (B,) that the teacher visits, from the start t to the end s of the student's step.
    """
    ask, z_s = above_zero(teacher), z_t
    for here, there in pairwise(times):
        z_s = ddim_step(ask, z_s, here, there, schedule)
    t, s = times[0], times[-1]
    (alpha_t, sigma_t), (alpha_s, sigma_s) = schedule(t, z_t), schedule(s, z_t)
    return (z_s - (alpha_s * alpha_t + sigma_s * sigma_t) * z_t) / (sigma_s * alpha_t - alpha_s * sigma_t)


def encoding_loss(student: Denoise, v_target: Tensor, z_t: Tensor, t: Tensor, schedule: Schedule = OURS) -> Tensor:
    """Loss (3), one value a sample, (B,); arguments as in `encoding_target`."""
    alpha_t, sigma_t = schedule(t, z_t)
    weight = torch.maximum(alpha_t**2, sigma_t**2).flatten()
    return weight * mean_square(v_target - above_zero(student)(z_t, t))

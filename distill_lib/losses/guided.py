"""Stage one: the loss that folds a guided pair into one network that takes the guidance strength w.

    target = (1 + w) x_hat_teacher(z_t, c) - w x_hat_teacher(z_t, no condition)                                (1)
    loss   = weight(t) | target - x_hat_student(z_t, c, w) |^2                                                 (2)

Meng et al. 2023 (arXiv 2210.03142), section 3.1 and Algorithm 1. By linearity (1) may be taken in v; an x error is
sigma_t times a v error.
"""

import torch
from torch import Tensor

from distill_lib.losses.denoising import mean_square

__all__ = ["relative_error", "stage_one_loss"]


def stage_one_loss(v_student: Tensor, v_cond: Tensor, v_w: Tensor, unit: Tensor) -> Tensor:
    """Loss (2) in v, relative to what guidance adds:  |v_w - v_student|^2 / (unit + |v_w - v_cond|^2).

    Differs from the paper: it takes the truncated SNR weight on x. What guidance adds differs between noise levels and
    grows as w^2; the divisor gives each level and each strength an equal say, where an absolute error would leave the
    batch to strong guidance: the answer at w near 0 suffered for it.

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

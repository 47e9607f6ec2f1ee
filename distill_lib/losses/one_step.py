"""What a one-step network is trained by.

    x_hat = x_from_v(z_T, v_hat(z_T, T))         the whole way in one step of the deterministic sampler         (1)
    pair  = |x_hat - x|^2                        against the end x of the teacher's own way from z_T            (2)

(2) is knowledge distillation of Luhman and Luhman 2021 (arXiv 2101.02388). Where the teacher's ways cross, one z_T has
to answer for several x, and the mean that (2) asks for is blurred: the premise of SDXS (Song et al. 2024, arXiv
2403.16627, section 3.2).
"""

import torch
from torch import Tensor

from distill_lib.losses.denoising import Predict, mean_square
from distill_lib.schedules import OURS, Schedule, x_from_v

__all__ = ["one_step", "square_loss"]


def one_step(net: Predict, z_T: Tensor, label: Tensor, schedule: Schedule = OURS) -> Tensor:
    """(1): data x_hat (B, *D) of pure noise z_T (B, *D) and what is asked for."""
    t = torch.full((len(z_T),), schedule.T, device=z_T.device)
    return x_from_v(z_T, net(z_T, t, label), t, schedule)


def square_loss(x_hat: Tensor, x: Tensor) -> Tensor:
    """(2), one value a sample, (B,), of what was drawn in one step and the end of the teacher's way, (B, *D)."""
    return mean_square(x_hat - x)

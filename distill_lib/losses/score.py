"""Score distillation: the gradient that moves a generator's pictures towards those of a diffusion model.

With z_t = alpha_t x + sigma_t eps, and x_hat the prediction of a model at z_t, a score is
(alpha_t x_hat - z_t) / sigma_t^2, so that the difference of two is

    s_online - s_offline = alpha_t (x_online - x_offline) / sigma_t^2                                          (1)
    direction            = weight(t) (x_online - x_offline)                                                    (2)
    loss                 = <stop(direction), x>,   whose gradient with respect to x is (2)                     (3)

SDXS (Song et al. 2024, arXiv 2403.16627), eqs. 4 and 12; Diff-Instruct (Luo et al. 2023, arXiv 2305.18455). The online
model knows what the generator draws, the frozen offline one what it should draw. In (11) of SDXS t runs over
(0, alpha T] only (`drawn_times`), and feature matching stands for the noise levels above.
"""

import torch
from torch import Tensor

from distill_lib.schedules import OURS, Schedule

__all__ = ["drawn_times", "score_direction", "score_loss"]

_LEAST = 0.02  # of T: below, the two predictions are one and their difference is rounding; DMD2's bound


def drawn_times(u: Tensor, alpha: float, schedule: Schedule = OURS) -> Tensor:
    """Grid indices of the segment, evenly from 0.02 T to alpha T, of u (B,) in (0, 1).

    Raises:
        ValueError: alpha leaves nothing of the segment, or more than all of it.
    """
    if not _LEAST < alpha <= 1:
        raise ValueError(f"alpha={alpha} should lie in ({_LEAST}, 1]: score distillation takes t up to alpha T")
    low, high = round(_LEAST * schedule.T), round(alpha * schedule.T)
    return low + (u.double() * (high - low + 1)).long().clamp(max=high - low)


@torch.no_grad()
def score_direction(x: Tensor, x_online: Tensor, x_offline: Tensor, normalised: bool = True) -> Tensor:
    """(2), (B, *D), for pictures x and the two predictions at the same z_t.

    Args:
        x: what the generator drew.
        x_online, x_offline: E[x | z_t] by either model.
        normalised: weight by one over the mean |x - x_offline| of each sample, as DMD (Yin et al. 2023,
            arXiv 2311.18828) does, so that every noise level has an equal say; else by 1.
    """
    direction = x_online - x_offline
    if not normalised:
        return direction
    size = (x - x_offline).abs().flatten(1).mean(1).clamp(min=1e-6)
    return direction / size.reshape(-1, *[1] * (x.ndim - 1))


def score_loss(x: Tensor, direction: Tensor) -> Tensor:
    """(3), one value a sample, (B,): a mean over entries, so that its gradient is (2) over their number."""
    return (direction.detach() * x).flatten(1).mean(1)

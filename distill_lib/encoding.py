"""The encoder: the deterministic sampler run upward, from a picture to the noise that it would be sampled from.

    z_s = alpha_s x_hat(z_t) + sigma_s eps_hat(z_t),     s > t                                                  (1)

It is `samplers.ddim_step` with s > t (Song et al. 2021, arXiv 2010.02502, section 4.3; Meng et al. 2023, arXiv
2210.03142, on style transfer). It starts at t = 0, which no network knows: there the network is asked at t = 1, where
the noise is 0.0015 of a unit.
"""

import torch
from torch import Tensor

from distill_lib.samplers import Denoise, trajectory
from distill_lib.schedules import OURS, Schedule, step_grid

__all__ = ["above_zero", "encode"]


def above_zero(denoise: Denoise) -> Denoise:
    """The same denoiser, asked at t = 1 where t is 0."""
    return lambda z_t, t: denoise(z_t, t.clamp(min=1))


@torch.no_grad()
def encode(denoise: Denoise, x: Tensor, n_steps: int, schedule: Schedule = OURS) -> Tensor:
    """Fold (1) from a picture x (B, *D) to z_T in n equal steps; n calls of `denoise`.

    Raises:
        ValueError: n_steps does not divide the grid.
    """
    return trajectory(above_zero(denoise), x, step_grid(n_steps, schedule.T)[::-1], schedule)[-1]

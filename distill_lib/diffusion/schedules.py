"""Noise schedules on a discrete grid, and the conversions between the three things a network may predict.

A grid index t runs from 0 (clean) to T (pure noise); the network sees diffusers' timestep t - 1. With unit noise eps,

    z_t = alpha_t x + sigma_t eps,     alpha_t^2 + sigma_t^2 = 1                                              (1)
    v   = alpha_t eps - sigma_t x                                                                              (2)
    x   = alpha_t z_t - sigma_t v,     eps = sigma_t z_t + alpha_t v                                           (3)
    log_snr = log(alpha_t^2 / sigma_t^2)                                                                       (4)

Our own schedule is the cosine, alpha_t = cos(pi t / 2T) with T = 1024 (Meng et al. 2023, arXiv 2210.03142, section 2;
Salimans and Ho 2022, arXiv 2202.00512, section 4 for v). It ends at alpha_T = 0 exactly, where v is still finite.
"""

import math
from dataclasses import dataclass

import torch
from diffusers import DDIMScheduler
from torch import Tensor


@dataclass(frozen=True, eq=False)
class Schedule:
    """alpha (T+1,) of a grid, float64; index 0 is clean. sigma follows from (1)."""

    alpha: Tensor

    @property
    def T(self) -> int:
        """Number of training timesteps."""
        return len(self.alpha) - 1

    def __call__(self, t: Tensor, like: Tensor) -> tuple[Tensor, Tensor]:
        """(alpha_t, sigma_t) of grid indices t (B,), shaped to broadcast over `like` (B, *D), in its type and place."""
        alpha = self.alpha.to(t.device)[t]
        sigma = (1 - alpha**2).clamp(min=0).sqrt()
        shape = (-1, *[1] * (like.ndim - 1))
        return alpha.to(like).reshape(shape), sigma.to(like).reshape(shape)

    @classmethod
    def cosine(cls, T: int = 1024) -> "Schedule":
        """alpha_t = cos(pi t / 2T), with alpha_T = 0 exactly."""
        alpha = torch.cos(math.pi / 2 * torch.arange(T + 1, dtype=torch.float64) / T)
        alpha[-1] = 0.0
        return cls(alpha)

    @classmethod
    def from_scheduler(cls, scheduler: DDIMScheduler) -> "Schedule":
        """The grid of anybody's diffusers scheduler (Stable Diffusion: T = 1000, scaled-linear betas).

        Raises:
            ValueError: alpha is not finite, or does not fall from each step to the next.
        """
        alpha = torch.cat([torch.ones(1), scheduler.alphas_cumprod]).double().sqrt()
        wrong = (~((alpha >= 0) & (alpha[0] >= alpha))).nonzero()[:, 0].tolist()  # of nan nothing is true
        wrong = wrong or (1 + (alpha.diff() >= 0).nonzero()[:, 0]).tolist()
        if wrong or len(alpha) < 2:
            raise ValueError(
                f"its betas make no grid: alpha is {alpha[wrong[0] if wrong else -1].item():.4g} at step "
                f"{wrong[0] if wrong else 0}, and it must fall from 1 at every step; correct the betas"
            )
        return cls(alpha)

    def to_scheduler(self) -> DDIMScheduler:
        """A diffusers `DDIMScheduler` on this grid: v-prediction, trailing spacing, no clipping.

        betas_t = 1 - alpha_t^2 / alpha_{t-1}^2, so the last one is 1 where alpha_T = 0.
        """
        betas = 1 - self.alpha[1:] ** 2 / self.alpha[:-1] ** 2
        return DDIMScheduler(
            num_train_timesteps=self.T,
            trained_betas=betas.tolist(),
            prediction_type="v_prediction",
            timestep_spacing="trailing",
            clip_sample=False,
        )


OURS = Schedule.cosine()


def step_grid(n_steps: int, T: int = 1024) -> list[int]:
    """Grid indices T > ... > 0 of an n-step sampler, n + 1 of them, evenly spaced.

    On other people's grids (T = 1000) they are rounded to even ones as in diffusers' trailing spacing; the grid of n is
    part of that of 2n all the same, so that steps can be halved.

    Raises:
        ValueError: n_steps exceeds T, or does not divide a T that is a power of two, where no rounding is called for.
    """
    if not 1 <= n_steps <= T or (T & (T - 1) == 0 and T % n_steps):
        divisors = [n for n in range(1, T + 1) if T % n == 0]
        raise ValueError(f"steps={n_steps}: allowed are the divisors of T={T}: {', '.join(map(str, divisors))}")
    return [round(T * i / n_steps) for i in range(n_steps, -1, -1)]


def step_counts(start: int, until: int = 1) -> list[int]:
    """start/2, start/4, .., until: steps of the students of a chain of halvings, for powers of two.

    Raises:
        ValueError: start is no power of two, so that it cannot be halved down to 1.
    """
    if start < 1 or start & (start - 1):
        raise ValueError(f"start={start} cannot be halved down to one step; take a power of two")
    return [start >> k for k in range(1, start.bit_length()) if start >> k >= until]


def add_noise(x: Tensor, eps: Tensor, t: Tensor, schedule: Schedule = OURS) -> Tensor:
    """z_t of (1), for data x and noise eps (B, *D) at grid indices t (B,)."""
    alpha_t, sigma_t = schedule(t, x)
    return alpha_t * x + sigma_t * eps


def v_from(x: Tensor, eps: Tensor, t: Tensor, schedule: Schedule = OURS) -> Tensor:
    """v of (2)."""
    alpha_t, sigma_t = schedule(t, x)
    return alpha_t * eps - sigma_t * x


def x_from_v(z_t: Tensor, v: Tensor, t: Tensor, schedule: Schedule = OURS) -> Tensor:
    """x of (3)."""
    alpha_t, sigma_t = schedule(t, z_t)
    return alpha_t * z_t - sigma_t * v


def v_from_x(z_t: Tensor, x: Tensor, t: Tensor, schedule: Schedule = OURS) -> Tensor:
    """v = (alpha_t z_t - x) / sigma_t, the answer of a network that predicts x; undefined at t = 0."""
    alpha_t, sigma_t = schedule(t, z_t)
    return (alpha_t * z_t - x) / sigma_t


def eps_from_v(z_t: Tensor, v: Tensor, t: Tensor, schedule: Schedule = OURS) -> Tensor:
    """eps of (3)."""
    alpha_t, sigma_t = schedule(t, z_t)
    return sigma_t * z_t + alpha_t * v


def log_snr(t: Tensor, schedule: Schedule = OURS) -> Tensor:
    """log(alpha_t^2 / sigma_t^2) of (4), (B,), float64: +inf at t = 0, -inf at the zero-SNR end."""
    alpha = schedule.alpha.to(t.device)[t]
    return 2 * alpha.log() - (1 - alpha**2).clamp(min=0).log()

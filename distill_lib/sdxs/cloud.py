"""Points of the plane whose scores are all known: what score distillation follows, without a network that may be wrong.

Points x_i, i = 1 .. N, of equal weight, each smoothed to N(x_i, s^2 I), have at grid index t

    p_t(z)     = 1/N sum_i N(z; alpha_t x_i, V I),     V = alpha_t^2 s^2 + sigma_t^2                            (1)
    x_hat(z)   = E[x | z],     score = (alpha_t x_hat(z) - z) / sigma_t^2                                        (2)
    KL_t       = E[log q_t(z_t) - log p_t(z_t)],  z_t ~ q_t        the integrand of eq. 3 of SDXS                (3)
    direction  = x_online(z_t) - x_offline(z_t)                    what moves a student, eqs. 4 and 12           (4)
    common     = |E[direction]|^2 / E[|direction|^2]               the share of (4) that moves all points alike  (5)

A point that is listed k times weighs k times as much, which makes modes of unequal mass. With s = 0 and x_i the answers
of a student, (1) is the density of those answers after diffusion, exactly: a kernel density whose width is the noise
itself. So (2) is what an online model would say that has learned all of them, and what it is measured by.

SDXS: Song et al. 2024 (arXiv 2403.16627); (3): Luo et al. 2023 (arXiv 2305.18455).
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from distill_lib.diffusion.errors import Predict
from distill_lib.diffusion.mixture import Mixture
from distill_lib.diffusion.noise import normal, uniform
from distill_lib.diffusion.schedules import OURS, Schedule, add_noise, x_from_v
from distill_lib.sdxs.score_distillation import drawn_times, score_direction

Denoised = Callable[[Tensor, Tensor], Tensor]
"""(z_t (B, 2), t (B,)) -> x_hat (B, 2)."""


@dataclass(frozen=True)
class Cloud:
    """Points x (N, 2) of std s as an exact model, net(z_t, t, label) -> v_hat; no label is read.

    shift (2,), beyond: a model that is wrong where it is noisy: from grid index `beyond` on, all its x_hat are moved
        by `shift`.
    """

    x: Tensor
    std: float = 0.0
    shift: tuple[float, float] = (0.0, 0.0)
    beyond: int = OURS.T + 1

    @property
    def schedule(self) -> Schedule:
        """The grid of everything in the plane."""
        return OURS

    def __call__(self, z_t: Tensor, t: Tensor, label: Tensor | None = None) -> Tensor:
        mixture = Mixture(self.x, self.std)
        v_hat = mixture(z_t, t, torch.full_like(t, mixture.null))
        wrong = (t >= self.beyond)[:, None] * torch.tensor(self.shift, device=z_t.device) / OURS(t, z_t)[1]
        return v_hat - wrong.to(v_hat)

    def log_density(self, z_t: Tensor, t: Tensor) -> Tensor:
        """log p_t of (1), (B,), of states z_t (B, 2) at grid indices t (B,); a shift has no density."""
        alpha_t, sigma_t = OURS(t, z_t)
        variance = alpha_t**2 * self.std**2 + sigma_t**2
        square = (z_t[:, None] - alpha_t[:, None] * self.x.to(z_t)).square().sum(2)
        total = (-square / (2 * variance)).logsumexp(1)
        return total - math.log(len(self.x)) - (2 * math.pi * variance[:, 0]).log()

    def draw(self, count: int, seed: int) -> Tensor:
        """Data, (count, 2), float32; each point in its turn."""
        index = torch.arange(count)
        return self.x[index % len(self.x)] + self.std * normal(seed, "cloud", 0, index, (2,))


def denoised(net: Predict) -> Denoised:
    """x_hat of a network that reads no label, or knows the null one alone."""
    return lambda z_t, t: x_from_v(z_t, net(z_t, t, torch.zeros_like(t)), t)


def opposite_noise(count: int, seed: int, step: int = 0) -> Tensor:
    """Unit noise (count, 2) whose second half is the first with the other sign: linear errors cancel.

    Raises:
        ValueError: an odd number has no halves.
    """
    if count % 2:
        raise ValueError(f"count={count} is odd: noise in pairs of opposite signs takes an even number")
    half = normal(seed, "opposite", step, torch.arange(count // 2), (2,))
    return torch.cat([half, -half])


@torch.no_grad()
def divergence(student: Cloud, teacher: Cloud, x: Tensor, t: int, seed: int = 0) -> float:
    """(3) at one grid index, by draws x (N, 2) of the student's density that are none of its points."""
    at = torch.full((len(x),), t)
    z_t = add_noise(x, opposite_noise(len(x), seed, t).to(x), at)
    return (student.log_density(z_t, at) - teacher.log_density(z_t, at)).mean().item()


@torch.no_grad()
def direction_sizes(online: Denoised, offline: Denoised, x: Tensor, t: int, seed: int = 0) -> tuple[float, float]:
    """Root mean square of (4) at one grid index, and (5), for draws x (N, 2) of the student."""
    at = torch.full((len(x),), t)
    z_t = add_noise(x, opposite_noise(len(x), seed, t).to(x), at)
    direction = score_direction(x, online(z_t, at), offline(z_t, at), normalised=False)
    square = direction.square().sum(1).mean()
    return square.sqrt().item(), (direction.mean(0).square().sum() / square.clamp(min=1e-30)).item()


@torch.no_grad()
def mean_direction(
    online: Denoised, offline: Denoised, x: Tensor, alpha: float, draws: int = 32, seed: int = 0
) -> Tensor:
    """(4) as the student's loss has it, (N, 2), a mean over times up to alpha T and noise at each of its points x."""
    total = torch.zeros_like(x)
    for k in range(draws // 2):
        t = drawn_times(uniform(seed, "times", k, torch.arange(len(x)), 1)[:, 0], alpha)
        eps = normal(seed, "noise", k, torch.arange(len(x)), (2,)).to(x)
        for sign in (1, -1):
            z_t = add_noise(x, sign * eps, t)
            total += score_direction(x, online(z_t, t), offline(z_t, t))
    return total / (2 * (draws // 2))

"""Points of the plane whose scores are all known: what score distillation follows, without a network that may be wrong.

Points x_i, i = 1 .. N, of equal weight, each smoothed to N(x_i, s^2 I), have at grid index t

    p_t(z)   = 1/N sum_i N(z; alpha_t x_i, V I),     V = alpha_t^2 s^2 + sigma_t^2                              (1)
    x_hat(z) = E[x | z],     score = (alpha_t x_hat(z) - z) / sigma_t^2                                          (2)
    KL_t     = E_{z ~ q_t} [ log q_t(z) - log p_t(z) ]        the integrand of eq. 3 of SDXS                     (3)

A point that is listed k times weighs k times as much, which makes modes of unequal mass. With s = 0 and x_i the answers
of a student, (1) is the density of those answers after diffusion, exactly: a kernel density whose width is the noise
itself. So (2) is what an online model would say that has learned all of them, and what it is measured by.

SDXS: Song et al. 2024 (arXiv 2403.16627); (3): Luo et al. 2023 (arXiv 2305.18455).
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from distill_lib.diffusion.mixture import Mixture
from distill_lib.diffusion.noise import normal
from distill_lib.diffusion.schedules import OURS, Schedule, x_from_v


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

    def denoised(self, z_t: Tensor, t: Tensor) -> Tensor:
        """x_hat of (2), (B, 2)."""
        return x_from_v(z_t, self(z_t, t), t)

    def log_density(self, z_t: Tensor, t: Tensor) -> Tensor:
        """log p_t of (1), (B,), of states z_t (B, 2) at grid indices t (B,); the shift is of no density."""
        alpha_t, sigma_t = OURS(t, z_t)
        variance = alpha_t**2 * self.std**2 + sigma_t**2
        square = (z_t[:, None] - alpha_t[:, None] * self.x.to(z_t)).square().sum(2)
        exponent = (-square / (2 * variance)).logsumexp(1)
        return exponent - math.log(len(self.x)) - (2 * math.pi * variance[:, 0]).log()

    def draw(self, count: int, seed: int, stream: str = "cloud") -> Tensor:
        """Data, (count, 2), float32; each point in turn."""
        index = torch.arange(count)
        return self.x[index % len(self.x)] + self.std * normal(seed, stream, 0, index, (2,))

"""Pairs of times of a consistency model, which close in on each other while it learns: easy consistency tuning.

    s / t = 1 - n(t) / q^a,     n(t) = 1 + k / (1 + exp(b sigma_t / alpha_t)),     a = 1, 2, .. stages           (1)

Geng et al. 2024 (arXiv 2406.14548), section 3: the gap between both times starts as large as t itself, where the task
is that of a diffusion model, and is divided by q at each stage, whatever t is. No grid has to be chosen, whose points
would be too coarse for the end of a training or too many for its start.

Differs from the paper: s / t is of the angle pi t / 2T of our grid and not of sigma / alpha, which is infinite at T,
where one step starts; s is rounded down to the grid, and is one place below t at least.
"""

import torch
from pydantic import ConfigDict
from pydantic.dataclasses import dataclass as validated
from torch import Tensor

from distill_lib.diffusion.schedules import OURS, Schedule
from distill_lib.engine.bounds import Count, Number, Positive


@validated(frozen=True, kw_only=True, config=ConfigDict(extra="forbid"))
class EasyTuning:
    """How a consistency model is trained.

    stages: of (1), evenly over a training; the last gap is n / q^stages of t.
    q, k, b: of (1); those of the paper for CIFAR-10.
    c: where the loss turns from square to absolute, as a root mean square of entries. 0.00054 is that of Song and
        Dhariwal 2023 (arXiv 2310.14189), 0.00054 sqrt(D) for the norm of D entries.
    """

    stages: Count
    q: Positive = 2.0
    k: Number = 8.0
    b: Positive = 1.0
    c: Positive = 0.00054

    def earlier(self, t: Tensor, share: float, schedule: Schedule = OURS) -> Tensor:
        """s of (1), 0 <= s < t, for grid indices t >= 1 (B,) after a share of the training."""
        stage = 1 + min(int(share * self.stages), self.stages - 1)
        alpha_t, sigma_t = schedule(t, t.double())
        n = 1 + self.k * torch.sigmoid(-self.b * sigma_t / alpha_t)  # at alpha = 0 it is 1
        s = (t * (1 - n / self.q**stage)).floor().clamp(min=0).long()
        return torch.minimum(s, t - 1)

"""Critics of what a student draws: their heads, the logistic loss, and a penalty on their slope.

    critic    softplus(-D(x)) + softplus(D(x_hat))      x of the teacher, x_hat of the student                 (1)
    fooling   softplus(-D(x_hat))                       what the student learns from it                        (2)
    R1        |d D(x) / d x|^2                          of the teacher's alone                                 (3)

(1) and (2) are the non-saturating loss (Goodfellow et al. 2014, arXiv 1406.2661), which DMD2 (Yin et al. 2024, arXiv
2405.14867) has on the bottleneck of its online model; (3) is Mescheder et al. 2018 (arXiv 1801.04406), taken by what a
head reads as in ADD (Sauer et al. 2023, arXiv 2311.17042). D is a mean over places. The hinge form is in
`teachers.autoencoder`.
"""

from collections.abc import Callable, Sequence

import torch
from pydantic import ConfigDict
from pydantic.dataclasses import dataclass as validated
from torch import Tensor, nn
from torch.nn.functional import softplus

from distill_lib.engine.bounds import Count, Number


@validated(frozen=True, kw_only=True, config=ConfigDict(extra="forbid"))
class PatchCritic:
    """How the critic of a tiny decoder is held back and what it reads, besides patches.

    conditioned: it also reads the teacher's picture as eq. 5 compares it, pooled; so it judges whether texture belongs
        there, where else any texture of the large decoder would do.
    r1: weight of the penalty on its slope, halved as there; 0 leaves it out.
    every: updates between two penalties, which then count so many times (Karras et al. 2020, arXiv 1912.04958).
    """

    conditioned: bool = False
    r1: Number = 0.0
    every: Count = 1


UNBOUND = PatchCritic()
"""A critic of pictures alone, with no penalty."""


class ProjectedCritic(nn.Module):
    """Features (B, C_l, H_l, W_l) of some layers -> answers of all places of all layers, (B, P)."""

    def __init__(self, channels: Sequence[int], width: int = 32) -> None:
        super().__init__()
        self.heads = nn.ModuleList(
            nn.Sequential(nn.Conv2d(c, width, 1), nn.LeakyReLU(0.2), nn.Conv2d(width, 1, 3, 1, 1)) for c in channels
        )

    def forward(self, features: Sequence[Tensor]) -> Tensor:
        return torch.cat([head(f).flatten(1) for head, f in zip(self.heads, features, strict=True)], 1)


def logistic_critic_loss(real: Tensor, fake: Tensor) -> Tensor:
    """(1), (B,); answers (B, ..) to the teacher's and to the student's."""
    return softplus(-real).flatten(1).mean(1) + softplus(fake).flatten(1).mean(1)


def logistic_fooling_loss(fake: Tensor) -> Tensor:
    """(2), (B,); answers (B, ..) of a critic that is not trained by them."""
    return softplus(-fake).flatten(1).mean(1)


def slope_penalty(critic: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    """(3), (B,), which the critic's weights learn from; x (B, *D) gets no gradient.

    Args:
        critic: x -> answers (B, ..), each sample's of that sample alone.
    """
    x = x.detach().requires_grad_()
    (slope,) = torch.autograd.grad(critic(x).flatten(1).mean(1).sum(), x, create_graph=True)
    return slope.square().flatten(1).sum(1)


def with_slope(value: Tensor, slope: Tensor, x: Tensor) -> Tensor:
    """A loss of this value (B,) whose gradient with respect to x (B, *D) is `slope`: no other network learns of it."""
    return value.detach() + (slope.detach() * (x - x.detach())).flatten(1).sum(1)

"""Classifier-free guidance, and the embedding that conditions a student on its strength.

    v_w = (1 + w) v_cond - w v_uncond,     w >= 0                                                              (1)

In the convention of Meng et al. 2023 (arXiv 2210.03142, section 3) w = 0 means no guidance; diffusers' guidance_scale
is 1 + w. (1) is linear, so it is the same in x, eps or v as long as nothing is clipped.
"""

import math
from collections.abc import Callable

import torch
from torch import Tensor


def combine(v_cond: Tensor, v_uncond: Tensor, w: Tensor) -> Tensor:
    """Formula (1), for w (B,)."""
    w = w.reshape(-1, *[1] * (v_cond.ndim - 1)).to(v_cond)
    return (1 + w) * v_cond - w * v_uncond


def without_condition(label: Tensor, null: int | Tensor) -> Tensor:
    """The empty condition in the place of `label`: the null class, or the empty prompt's states (L, D).

    Of states (B, L + K, D) the last K rows are kept: there stands what a network is shown besides
    (`adapter.split_extra`).
    """
    if not isinstance(null, Tensor):
        return torch.full_like(label, null)
    return torch.cat([null.to(label).expand(len(label), -1, -1), label[:, len(null) :]], 1)


def dropped(label: Tensor, null: int | Tensor, where: Tensor) -> Tensor:
    """Labels (B,) or states (B, L, D), replaced by what asks for nothing `where` (B,) says so."""
    return torch.where(where.reshape(-1, *[1] * (label.ndim - 1)), without_condition(label, null), label)


def guided_pair(
    net: Callable[[Tensor, Tensor, Tensor], Tensor],
    z_t: Tensor,
    t: Tensor,
    label: Tensor,
    null: int | Tensor,
) -> tuple[Tensor, Tensor]:
    """(v_cond, v_uncond) in one batched call of net(z_t, t, label): 2 evaluations a sample, one launch.

    Args:
        z_t: noisy data, (B, *D).
        t: grid indices, (B,).
        label: classes, (B,), or a text encoder's states, (B, L, D).
        null: what stands for "no condition": a class, or the states of the empty prompt, (L, D).
    """
    both = net(torch.cat([z_t, z_t]), torch.cat([t, t]), torch.cat([label, without_condition(label, null)]))
    v_cond, v_uncond = both.chunk(2)
    return v_cond, v_uncond


def guidance_embedding(w: Tensor, dim: int) -> Tensor:
    """Fourier features of w, (B, dim): [sin(1000 w f), cos(1000 w f)],  f_k = 10000^(-k / (dim/2 - 1)).

    Meng et al. 2023, section 3.1 (w enters as the timestep does); the very features that diffusers' pipelines make of
    guidance_scale - 1, so that a student runs there without code of ours.
    """
    half = dim // 2
    # in diffusers' own order of operations: an angle of thousands leaves no room for another rounding
    f = torch.exp(torch.arange(half, device=w.device, dtype=torch.float32) * -(math.log(10000) / (half - 1)))
    angle = 1000 * w.float()[:, None] * f
    return torch.cat([angle.sin(), angle.cos()], 1)

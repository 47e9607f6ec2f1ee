"""Small adapters that give a frozen network its guidance: they alone are trained, and at w = 0 nothing is added.

Behind each residual block of the U-Net stands a bottleneck of r channels that is conditioned on w,

    h' = h + g(w) B silu(A h + E f(w)),     g(w) = 10 sin(w / 10)                                              (1)

A (r, C) and B (C, r) are convolutions of one pixel, f(w) the Fourier features of w, the lowest of which is sin(w / 10):
g is w up to 3 % on [0, 4], as what guidance adds is w times a difference. g(0) = 0 leaves the base exact without
guidance, and B = 0 at the start leaves it exact at every w.

Jensen and Sadat 2025 (arXiv 2503.07274), adapter guidance distillation: a frozen base, residual adapters of some 2 % of
its weights, conditioned on w.
Differs from the paper: its adapters stand behind attention, which our U-Net of pixels has none of; the gate is ours.
PEFT's adapters do not fit, since their scale is one number for all samples of a batch, and here each has its own w.
"""

import copy
from typing import Any

import torch
from diffusers import UNet2DConditionModel
from diffusers.configuration_utils import FrozenDict
from diffusers.models.resnet import ResnetBlock2D
from torch import Tensor, nn
from torch.nn.functional import silu

from distill_lib.networks.adapter import Network
from distill_lib.networks.unet import W_FEATURES, config_of

_LOWEST = W_FEATURES // 2 - 1  # of the features of w: sin(w / 10)


class Adapter(nn.Module):
    """(1) for states of C channels: forward(h (B, C, H, W), features of w (B, W_FEATURES)) -> h' as h."""

    def __init__(self, channels: int, rank: int) -> None:
        super().__init__()
        self.down = nn.Conv2d(channels, rank, 1)
        self.strength = nn.Linear(W_FEATURES, rank, bias=False)
        self.up = nn.Conv2d(rank, channels, 1, bias=False)
        nn.init.zeros_(self.up.weight)
        self.features: Tensor | None = None

    def forward(self, h: Tensor, features: Tensor) -> Tensor:
        gate = 10 * features[:, _LOWEST, None, None, None]
        inner = self.down(h) + self.strength(features)[:, :, None, None]
        return h + (gate * self.up(silu(inner))).to(h.dtype)

    def behind(self, block: nn.Module, given: tuple[Tensor, ...], h: Tensor) -> Tensor:
        """The hook of a block: what comes out of it, adapted."""
        return self(h, self.features)


class AdaptedUNet(nn.Module):
    """A frozen U-Net with adapters, called as a U-Net that takes features of w.

    Args:
        base: a network that takes no w; used in place, and frozen.
        rank: r of (1).
    """

    def __init__(self, base: UNet2DConditionModel, rank: int) -> None:
        super().__init__()
        self.base = base.requires_grad_(False)
        self.config = FrozenDict(config_of(base) | {"time_cond_proj_dim": W_FEATURES})
        blocks = [block for block in base.modules() if isinstance(block, ResnetBlock2D)]
        self.adapters = nn.ModuleList(Adapter(block.out_channels, rank) for block in blocks)
        for block, adapter in zip(blocks, self.adapters, strict=True):
            block.register_forward_hook(adapter.behind)

    def forward(self, *given: Any, timestep_cond: Tensor, **named: Any) -> Any:
        for adapter in self.adapters:  # diffusers hands its blocks the embedding of time, and nothing else
            adapter.features = timestep_cond
        return self.base(*given, **named)


def with_guidance_adapters(teacher: Network, rank: int, seed: int = 0) -> Network:
    """A student whose base is a copy of the teacher, frozen, with fresh adapters of rank `rank` to train.

    Raises:
        ValueError: the network takes w: it holds its guidance already.
    """
    if teacher.takes_w:
        raise ValueError("this network takes w, so it is guided already; adapters are for a teacher that takes none")
    torch.manual_seed(seed)
    adapted = AdaptedUNet(copy.deepcopy(teacher.module), rank)
    return teacher.like(adapted.to(teacher.device))


def trained_share(net: Network) -> float:
    """The weights of the adapters as a share of all."""
    trained, total = (sum(p.numel() for p in part.parameters()) for part in (net.module.adapters, net.module))
    return trained / total

"""A U-Net that is also conditioned on the length of the step that its answer is used for.

A path from noise to data in n equal steps has steps of length d = 1/n. The length enters as w does: as Fourier
features, side by side with those of w, through the layer that adds them to the input of the time embedding,

    cond_proj [f(w), f(k)] = P_w f(w) + P_d f(k),     k = log2(n) = log2(1/d)                                   (1)

P_d starts at zero, so that the untrained network answers as the one that it is made of, whatever the length. The
network stays one of diffusers, whose `time_cond_proj_dim` is twice as large.

Frans et al. 2024 (arXiv 2410.12557) condition on d beside t so; Geng et al. 2025 (arXiv 2505.13447) on both ends of a
step.
"""

import copy
from collections.abc import Callable
from typing import Any

import torch
from diffusers import UNet2DConditionModel
from torch import Tensor

from distill_lib.diffusion.guidance import guidance_embedding
from distill_lib.networks.adapter import Network
from distill_lib.networks.unet import config_of

Shortcut = Callable[[Tensor, Tensor, Tensor], Tensor]
"""shortcut(z_t (B, *D), t (B,), n (B,)) -> v_hat (B, *D) for a step of length 1/n, with condition and w bound."""


class ShortcutNetwork(Network):
    """A `Network` that takes w, and answers for steps of one length: `at` says how many of them make a path.

    Args:
        unet: the diffusers network; the first half of what its layer of w reads is of w, the second of the length.
        n_steps: n, one for all samples or one for each, (B,).
        options: as in `Network`.
    """

    def __init__(self, unet: UNet2DConditionModel, *, n_steps: int | Tensor | None = None, **options: Any) -> None:
        super().__init__(unet, **options)
        self.n_steps = n_steps

    @property
    def spec(self) -> dict[str, Any]:
        """What tells it from another network, for keys."""
        return super().spec | {"n_steps": self.n_steps}

    def at(self, n_steps: int | Tensor) -> "ShortcutNetwork":
        """The same network for steps of length 1 / n_steps; it can be sampled and measured as any student."""
        view = copy.copy(self)
        view.n_steps = n_steps
        return view

    def features(self, w: Tensor | None) -> Tensor:
        """(1): features of w (B,) and of the length.

        Raises:
            ValueError: the length is not known.
        """
        if self.n_steps is None:
            raise ValueError("this network also needs the length of its steps: take net.at(n) for n equal steps")
        k = torch.as_tensor(self.n_steps, device=w.device).float().log2().expand(len(w))
        width = self.module.config.time_cond_proj_dim // 2
        return torch.cat([guidance_embedding(w, width), guidance_embedding(k, width)], 1)

    def like(self, unet: UNet2DConditionModel, **changed: Any) -> "ShortcutNetwork":
        """As `Network.like`; `n_steps` is an option too."""
        return ShortcutNetwork(unet, **self.options | {"n_steps": self.n_steps} | changed)


def shortcut_of(net: Network) -> ShortcutNetwork:
    """A copy of a network, conditioned on the length as well, which it at first ignores, and on w if it was not."""
    start = net.student()
    name = "time_embedding.cond_proj.weight"
    weights = start.module.state_dict()
    weights[name] = torch.cat([weights[name], torch.zeros_like(weights[name])], 1)
    unet = UNet2DConditionModel(**config_of(start.module) | {"time_cond_proj_dim": weights[name].shape[1]})
    unet.load_state_dict(weights)
    return ShortcutNetwork(unet.to(start.device), **start.options)


def denoise_shortcut(net: ShortcutNetwork, label: Tensor, w: Tensor) -> Shortcut:
    """A network that takes w (B,) and the length, with its condition bound."""
    return lambda z_t, t, n: net.at(n)(z_t, t, label, w)

"""A U-Net with a ControlNet beside it, behind the adapter that every sampler, loss and method calls.

    residuals = control(z_t, t, words, map)            one a skip connection of the U-Net, and one for its middle
    v_hat     = unet(z_t, t, words, residuals)

Zhang et al. 2023 (arXiv 2302.05543), in the form of diffusers' ControlNetModel. The map rides behind the text states
(`adapter.append_extra`), so that batching, guidance and dropping of prompts need not know of it. Either network can be
the one that learns: the ControlNet (of a teacher, or of a student), or the U-Net under it (the online model of score
distillation, whose ControlNet is frozen; SDXS, Song et al. 2024, arXiv 2403.16627, Fig. 5).
"""

import copy
from functools import partial
from pathlib import Path
from typing import Any, Literal

import torch
from diffusers import ControlNetModel, UNet2DConditionModel
from torch import Tensor, nn

from distill_lib.engine.precision import autocast
from distill_lib.networks.adapter import Network, split_extra
from distill_lib.networks.doors import open_part
from distill_lib.networks.pruning import start_from
from distill_lib.networks.unet import config_of

_EMBEDDING = (16, 32, 96, 256)  # channels in which a map is read, each after the first at half the side


class Controlled(Network):
    """net(z_t, t, label) -> v_hat as a `Network`; `label` holds text states with a map (B, C, R, R) behind them.

    A map of one channel is shown in all three.

    Args:
        network: the U-Net behind its adapter.
        control: the ControlNet; both are used in place.
        learns: which of the two `module` is, that is, which a training changes.
    """

    def __init__(
        self, network: Network, control: ControlNetModel, learns: Literal["control", "unet"] = "control"
    ) -> None:
        alike = {"bf16": network.bf16_option, "null": network.null, "schedule": network.schedule}
        super().__init__(network.module, **alike, predicts=network.predicts, decode=network.decode)
        self.network, self.control, self.learns = network, control, learns
        self.module = self.forward = control if learns == "control" else network.module

    @property
    def spec(self) -> dict[str, Any]:
        """What tells it from another network, for keys."""
        return {"network": self.network, "control": self.control, "learns": self.learns}

    @property
    def modules(self) -> tuple[nn.Module, ...]:
        """The U-Net and the ControlNet."""
        return self.network.module, self.control

    @property
    def shape(self) -> tuple[int, int, int]:
        """Of one sample's data and noise, (C, H, W)."""
        return self.network.shape

    def residuals(self, z_t: Tensor, t: Tensor, label: Tensor) -> tuple[list[Tensor], Tensor]:
        """What the ControlNet adds to the skip connections, in their order, and to the middle."""
        tokens, rows = label[:, : len(self.null)], label[:, len(self.null) :]
        side = z_t.shape[-1] << (len(self.control.config.conditioning_embedding_out_channels) - 1)
        seen = split_extra(rows, rows[0].numel() // side**2, side).expand(-1, 3, -1, -1)
        call = self.forward if self.learns == "control" else self.control
        with autocast(z_t.device, self.bf16_option):
            return call(z_t, t - 1, tokens, seen, return_dict=False)

    def __call__(self, z_t: Tensor, t: Tensor, label: Tensor, w: Tensor | None = None) -> Tensor:
        down, middle = self.residuals(z_t, t, label)
        inner = copy.copy(self.network)
        call = self.network.forward if self.learns == "control" else self.forward
        inner.forward = partial(call, down_block_additional_residuals=down, mid_block_additional_residual=middle)
        return inner(z_t, t, label[:, : len(self.null)], w)

    def like(self, module: ControlNetModel | UNet2DConditionModel, **changed: Any) -> "Controlled":
        """The same with another network in the place of the one that learns; `changed` as in `Network.like`."""
        if self.learns == "control":
            return Controlled(self.network.like(self.network.module, **changed), module, self.learns)
        return Controlled(self.network.like(module, **changed), self.control, self.learns)


def build_control(unet: UNet2DConditionModel, factor: int) -> ControlNetModel:
    """A ControlNet that starts as a copy of the U-Net's down half, and at first adds nothing.

    Args:
        unet: with a middle block.
        factor: pixels a latent covers, along a side.
    """
    reads = _EMBEDDING[: factor.bit_length()]
    control = ControlNetModel.from_unet(unet, conditioning_embedding_out_channels=reads)
    return control.to(next(unet.parameters()).device)


def _places(control: ControlNetModel) -> list[tuple[int, int]]:
    """What each residual follows, in order: (stage, unit), (stage, -1) for its downsampler, and (-1, 0) for the first
    layer."""
    places, stages = [(-1, 0)], len(control.down_blocks)
    for stage, block in enumerate(control.down_blocks):
        places += [(stage, unit) for unit in range(len(block.resnets))]
        places += [(stage, -1)] * (stage < stages - 1)
    return places


def shared_places(small: ControlNetModel, large: ControlNetModel) -> list[int]:
    """For each residual of a cut ControlNet, which one of the whole ControlNet belongs to the same skip connection."""
    places = _places(large)
    return [places.index(place) for place in _places(small)]


def cut_control(control: ControlNetModel, unet: UNet2DConditionModel, inherit: bool = True) -> ControlNetModel:
    """A ControlNet for a U-Net that was cut from the one that `control` belongs to (`pruning.prune`).

    diffusers builds none for a U-Net without a middle block. Such a U-Net adds the middle's residual all the same, to
    what leaves its last down stage; so the ControlNet keeps a middle of one convolution unit. That place is another
    than before where the innermost stage went: the layer of zeros that leads there starts at zero again.

    Args:
        control: of the uncut U-Net.
        unet: the cut U-Net.
        inherit: start from the weights of `control`; else from those of the cut U-Net, adding nothing, as any new
            ControlNet would.

    Raises:
        ValueError: a layer that is kept has no counterpart of its shape.
    """
    alike = ("block_out_channels", "down_block_types", "layers_per_block", "attention_head_dim", "num_attention_heads")
    alike += ("transformer_layers_per_block", "cross_attention_dim", "only_cross_attention")
    middle = unet.config.mid_block_type or "UNetMidBlock2D"
    config = config_of(control) | {name: unet.config[name] for name in alike} | {"mid_block_type": middle}
    with torch.device(next(control.parameters()).device):
        small = ControlNetModel(**config)
    moved = len(control.down_blocks) != len(small.down_blocks)
    places, known = shared_places(small, control), unet.state_dict()

    def source_of(name: str) -> str | None:
        if not inherit:
            return name if name in known else None
        if moved and name.startswith("controlnet_mid_block"):
            return None
        parts = name.split(".")
        if parts[0] == "controlnet_down_blocks":
            parts[1] = str(places[int(parts[1])])
        return ".".join(parts)

    start_from(small, control if inherit else unet, source_of)
    return small


def load_control(folder: Path) -> ControlNetModel:
    """A ControlNet from a diffusers folder, safetensors only, in float32; raises as `doors.open_part`."""
    return open_part(ControlNetModel, folder, "ControlNet", "make it with `make teachers`")

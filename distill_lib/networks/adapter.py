"""Diffusers' U-Net behind one adapter, which every sampler, loss and method calls.

A class-conditional picture (3, R, R) is worked on as 2 x 2 patches, (12, R/2, R/2): `to_patches` is a permutation of
pixels, so white noise stays white and every formula holds unchanged. The first layers then cost a quarter.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from diffusers import UNet2DConditionModel
from torch import Tensor, nn
from torch.nn.functional import pad

from distill_lib.diffusion.guidance import combine, guidance_embedding, guided_pair
from distill_lib.diffusion.pixels import from_patches
from distill_lib.diffusion.samplers import Denoise
from distill_lib.diffusion.schedules import OURS, Schedule
from distill_lib.engine.precision import autocast, default_device, resolved
from distill_lib.engine.store import Run
from distill_lib.networks.unet import student_of

_LEAST = 1e-3  # of alpha_T where epsilon is predicted; Stable Diffusion's is 0.068


def append_extra(states: Tensor, extra: Tensor) -> Tensor:
    """Text states (B, L, D) with channels (B, C, H, W) behind them, as rows of D numbers: (B, L + K, D).

    One tensor, so that batching, guidance and dropping of prompts need not know of it.
    """
    flat = extra.flatten(1)
    flat = pad(flat, (0, -flat.shape[1] % states.shape[2]))
    return torch.cat([states, flat.unflatten(1, (-1, states.shape[2]))], 1)


def split_extra(rows: Tensor, channels: int, side: int) -> Tensor:
    """The channels (B, C, side, side) that `append_extra` put into rows (B, K, D)."""
    return rows.flatten(1)[:, : channels * side * side].unflatten(1, (channels, side, side))


class Network:
    """A U-Net as net(z_t, t, label, w) -> v_hat, with precision, memory layout and compilation settled once.

    On a CPU channels come first: there PyTorch's group normalisation of bfloat16 is twenty times faster so, and an
    eager training step is as fast as a compiled one. Its fused attention is switched off there for the whole process:
    it is slow to differentiate at our sizes, and a step of the latent U-Net takes 1.4 times as long. On a GPU channels
    come last.

    Its condition, `label`, is a class, (B,), or a text encoder's states, (B, L, D). A network with more channels than
    its data is also conditioned on channels, such as a mask: they follow the states (`append_extra`).

    Args:
        unet: the diffusers network; its weights are used in place, so training it changes this too.
        bf16: run in bfloat16 autocast (the result is float32 all the same); None leaves it to `precision.current`, anew
            at every call.
        compiled: torch.compile the network; pays on a GPU.
        null: the states of the empty prompt, (L, D); none for a network of classes, whose last class stands for it.
        schedule: the grid that it was trained on.
        predicts: v_prediction, or epsilon as Stable Diffusion 1 and 2 base do, which is turned into v.
        decode: what turns data x into pictures (B, 3, R, R) in [-1, 1]: `from_patches`, or the decoder of latents.
    """

    def __init__(
        self,
        unet: UNet2DConditionModel,
        *,
        bf16: bool | None = None,
        compiled: bool = False,
        null: Tensor | None = None,
        schedule: Schedule = OURS,
        predicts: str = "v_prediction",
        decode: Callable[[Tensor], Tensor] = from_patches,
    ) -> None:
        if predicts not in ("v_prediction", "epsilon"):
            raise ValueError(f"a network that predicts {predicts!r} is not supported; v_prediction and epsilon are")
        if predicts == "epsilon" and schedule.alpha[-1] < _LEAST:
            raise ValueError(
                f"a network that predicts epsilon on a grid that ends at alpha={schedule.alpha[-1].item():.2g} tells "
                f"nothing of the picture there (x = (z - sigma eps) / alpha); at least {_LEAST} is needed, or a "
                "network that predicts v_prediction"
            )
        if default_device().type == "cpu":
            torch.backends.cuda.enable_flash_sdp(False)  # its name notwithstanding
        self.module, self.schedule, self.predicts, self.decode = unet, schedule, predicts, decode
        self.forward = torch.compile(self.module, dynamic=False) if compiled else self.module
        self.bf16_option = bf16
        self.takes_w = unet.config.time_cond_proj_dim is not None
        self.null: int | Tensor = unet.config.num_class_embeds - 1 if null is None else null

    @property
    def bf16(self) -> bool:
        """Whether it runs in bfloat16 here and now."""
        return resolved(self.bf16_option)

    @property
    def spec(self) -> dict[str, Any]:
        """What tells it from another network, for keys of runs; the precision of a run stands beside its key."""
        of = {"module": self.module, "null": self.null, "schedule": self.schedule, "predicts": self.predicts}
        return of | {"decode": self.decode, "bf16": self.bf16_option}

    @property
    def modules(self) -> tuple[nn.Module, ...]:
        """All networks that its answer comes from."""
        return (self.module,)

    @property
    def device(self) -> torch.device:
        """Where its weights are."""
        return next(self.module.parameters()).device

    @property
    def shape(self) -> tuple[int, int, int]:
        """Of one sample's data and noise, (C, H, W)."""
        # more channels come in where something is shown, and more go out of two heads
        config = self.module.config
        return min(config.in_channels, config.out_channels), config.sample_size, config.sample_size

    def __call__(self, z_t: Tensor, t: Tensor, label: Tensor, w: Tensor | None = None) -> Tensor:
        if w is not None and not self.takes_w:
            raise ValueError("this network takes no w: it is a teacher, not a student; guide it as a pair")
        if w is None and self.takes_w:
            raise ValueError("this network is a student: it needs w, (B,)")
        features = self.features(w)
        has_tokens, seen = label.is_floating_point(), z_t
        tokens = label if has_tokens else z_t.new_zeros(len(z_t), 1, self.module.config.cross_attention_dim)
        if has_tokens and self.module.config.in_channels > z_t.shape[1]:
            tokens, rest = label[:, : len(self.null)], label[:, len(self.null) :]
            seen = torch.cat([z_t, split_extra(rest, self.module.config.in_channels - z_t.shape[1], z_t.shape[-1])], 1)
        layout = torch.channels_last if z_t.is_cuda else torch.contiguous_format
        with autocast(z_t.device, self.bf16_option):
            answer = self.forward(
                seen.contiguous(memory_format=layout),
                t - 1,
                tokens,
                class_labels=None if has_tokens else label,
                timestep_cond=features,
                return_dict=False,
            )[0]
        if self.predicts == "v_prediction":
            return answer.float()
        alpha_t, sigma_t = self.schedule(t, z_t)
        return (answer.float() - sigma_t * z_t) / alpha_t  # finite: alpha_T >= _LEAST

    def features(self, w: Tensor | None) -> Tensor | None:
        """What the network reads beside time and condition: features of w (B,); nothing where it takes none."""
        return guidance_embedding(w, self.module.config.time_cond_proj_dim) if self.takes_w else None

    @property
    def options(self) -> dict[str, Any]:
        """The arguments beside its U-Net, with which another one is called alike."""
        null = self.null if isinstance(self.null, Tensor) else None
        alike = {"bf16": self.bf16_option, "null": null, "schedule": self.schedule, "predicts": self.predicts}
        return alike | {"decode": self.decode}

    def like(self, unet: UNet2DConditionModel, **changed: Any) -> "Network":
        """Another U-Net behind the same adapter, that is with these `options` but for the `changed` ones."""
        return Network(unet, **self.options | changed)

    def exact(self) -> "Network":
        """The same weights, run in float32."""
        return self.like(self.module, bf16=False)

    def student(self) -> "Network":
        """A network that starts as a copy of this one, takes w and predicts v, under the same grid and precision.

        Of a teacher that predicts epsilon the copy starts far from it: its last layer has to learn v first.
        """
        return self.like(student_of(self.module), predicts="v_prediction")


def denoise_pair(net: Network, label: Tensor, w: float | Tensor) -> Denoise:
    """The guided teacher as a denoiser, of one w or of one a sample, (B,): one batched pair a call, or the conditional
    network alone where the one w is 0.
    """

    def denoise(z_t: Tensor, t: Tensor) -> Tensor:
        if not isinstance(w, Tensor) and w == 0:
            return net(z_t, t, label)
        strength = torch.as_tensor(w, device=z_t.device).expand(len(z_t))
        return combine(*guided_pair(net, z_t, t, label, net.null), strength)

    return denoise


def denoise_student(net: Network, label: Tensor, w: Tensor) -> Denoise:
    """A w-conditioned student as a denoiser; w is (B,)."""
    return lambda z_t, t: net(z_t, t, label, w)


def denoiser(net: Network, label: Tensor, w: float) -> Denoise:
    """Either of the two at one strength for all samples: a network that takes no w is evaluated as a guided pair."""
    strength = torch.full((len(label),), w, device=label.device)
    return denoise_student(net, label, strength) if net.takes_w else denoise_pair(net, label, w)


@dataclass(frozen=True)
class Keyed:
    """A network, and the key or checksum of its weights, which what is trained from it names as its parent."""

    net: Network
    key: str


@dataclass(frozen=True)
class Trained:
    """A finished student: its network, its training curve as (step, loss), its run."""

    net: Network
    curve: list[tuple[float, float]]
    run: Run

    @property
    def key(self) -> str:
        """Of the run: what results name as their parent."""
        return self.run.key


Parent = Keyed | Trained
"""What a student can be trained from."""

"""Who takes part in a training of a text-to-image student, by method: the networks of each role, and their loss.

Networks are built of configurations alone, with random weights, on the default device: on fake tensors where memory is
planned, on a real card where it is tried (`run.preflight`, `run.gpu_check`). The losses are those of the methods.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from diffusers import UNet2DConditionModel
from torch import Tensor, nn

from distill_lib.diffusion.errors import v_loss
from distill_lib.diffusion.guidance import combine, guided_pair
from distill_lib.diffusion.schedules import x_from_v
from distill_lib.guided.halving import halving_loss, halving_target
from distill_lib.guided.stage_one import stage_one_loss
from distill_lib.networks.adapter import Network, denoise_pair, denoise_student
from distill_lib.networks.pruning import SDXS_512, SDXS_1024, counterparts, pruned_config, tapped
from distill_lib.networks.unet import W_FEATURES, config_of
from distill_lib.sdxs.feature_matching import ByUnet, one_step_loss
from distill_lib.sdxs.one_step import one_step
from distill_lib.sdxs.score_distillation import score_direction, score_loss
from distill_lib.sdxs.tiny_unet import knowledge_loss


@dataclass(frozen=True, kw_only=True)
class Architecture:
    """A teacher as the arguments of its classes: diffusers' U-Net and autoencoder, transformers' text encoders."""

    unet: Mapping[str, Any]
    texts: Sequence[Mapping[str, Any]]
    vae: Mapping[str, Any]

    @property
    def tokens(self) -> int:
        """Of a prompt."""
        return self.texts[0].get("max_position_embeddings", 77)

    @property
    def factor(self) -> int:
        """Pixels a latent, along a side."""
        return 2 ** (len(self.vae["block_out_channels"]) - 1)


Make = Callable[..., Network]
"""Builds a network of the teacher's form, but for the arguments that it is given."""


@dataclass(frozen=True)
class Cast:
    """The networks of a method by role, and its loss of noisy latents, times and states of n samples, (n,)."""

    trained: dict[str, Network]
    frozen: dict[str, Network]
    loss: Callable[[Tensor, Tensor, Tensor], Tensor]


def network(model: Architecture, bf16: bool, **changed: Any) -> Network:
    """The teacher's U-Net behind the adapter, with random weights; `changed` are arguments of it."""
    config = {**model.unet, **changed}
    unet = UNet2DConditionModel(**config)
    net = Network(unet, bf16=bf16, null=torch.zeros(model.tokens, config["cross_attention_dim"]))
    if config.get("addition_embed_type") == "text_time":  # SDXL is also conditioned on a pooled text and on sizes
        pooled = config["projection_class_embeddings_input_dim"] - 6 * config["addition_time_embed_dim"]
        net.forward = partial(_with_sizes, unet, pooled)
    return net


def _with_sizes(unet: nn.Module, pooled: int, z: Tensor, *given: Any, **named: Any) -> Any:
    more = {"text_embeds": z.new_zeros(len(z), pooled), "time_ids": z.new_zeros(len(z), 6)}
    return unet(z, *given, added_cond_kwargs=more, **named)


def _stage_one(make: Make) -> Cast:
    teacher, student = make(), make(time_cond_proj_dim=W_FEATURES)

    def loss(z: Tensor, t: Tensor, label: Tensor) -> Tensor:
        few = slice(None, None, 2)  # each noisy picture serves two strengths
        with torch.no_grad():
            pair = guided_pair(teacher, z[few], t[few], label[few], teacher.null)
        z, t, label, v_cond, v_uncond = (a.repeat_interleave(2, 0) for a in (z[few], t[few], label[few], *pair))
        w = torch.ones(len(z))
        return stage_one_loss(student(z, t, label, w), v_cond, combine(v_cond, v_uncond, w), w)

    return Cast({"student": student}, {"teacher": teacher}, loss)


def _halving(make: Make) -> Cast:
    student, teacher = make(time_cond_proj_dim=W_FEATURES), make(time_cond_proj_dim=W_FEATURES)

    def loss(z: Tensor, t: Tensor, label: Tensor) -> Tensor:
        w = torch.ones(len(z))
        x_target = halving_target(denoise_student(teacher, label, w), z, t, t // 2, t // 4)
        return halving_loss(denoise_student(student, label, w), x_target, z, t)

    return Cast({"student": student}, {"teacher": teacher}, loss)


def _cut(net: Network) -> dict[str, Any]:
    config = config_of(net.module)
    cut = SDXS_1024 if config["addition_embed_type"] else SDXS_512
    gone = config["mid_block_type"] is None  # as in the smallest of BK-SDM
    return pruned_config(config, replace(cut, middle="kept") if gone else cut)


def _small_unet(make: Make) -> Cast:
    teacher = make()
    student = make(**_cut(teacher))
    student_taps, teacher_taps = counterparts(student.module, teacher.module)

    def loss(z: Tensor, t: Tensor, label: Tensor) -> Tensor:
        with torch.no_grad(), tapped(teacher_taps) as wanted:
            v_teacher = teacher(z, t, label)
        with tapped(student_taps) as features:
            v_student = student(z, t, label)
        seen, target = ([f.float() for f in layers] for layers in (features, wanted))
        return knowledge_loss(v_student, v_teacher, seen, target)

    return Cast({"student": student}, {"teacher": teacher}, loss)


def _scores(make: Make) -> Cast:
    offline, online = make(), make()
    student = make(**_cut(offline))
    matching = one_step_loss("matching", ByUnet(offline))

    def loss(z: Tensor, t: Tensor, label: Tensor) -> Tensor:
        x_hat = one_step(student, torch.cat([z, z]), torch.cat([label, label]))  # of fresh noise, and of pairs
        x_hat, matched = x_hat.chunk(2)
        drawn = x_hat.detach()
        online_loss = v_loss(online, drawn, z, t, label)
        with torch.no_grad():
            x_online = x_from_v(z, online(z, t, label), t)
            x_offline = x_from_v(z, denoise_pair(offline, label, 1.0)(z, t), t)
        return online_loss + score_loss(x_hat, score_direction(drawn, x_online, x_offline)) + matching(matched, z)

    return Cast({"student": student, "online": online}, {"offline": offline}, loss)


METHODS: dict[str, Callable[[Make], Cast]] = {
    "stage-one": _stage_one,
    "halving": _halving,
    "small-unet": _small_unet,
    "scores": _scores,
}
"""By name: Algorithms 1 and 2 of Meng et al.; eqs. 6 to 8, and Algorithm 1 with matching by U-Net, of Song et al."""


def given(model: Architecture, pixels: int, count: int) -> tuple[Tensor, Tensor, Tensor]:
    """Noisy latents, times and states of so many samples."""
    side = pixels // model.factor
    channels, width = model.unet.get("in_channels", 4), model.unet["cross_attention_dim"]
    return torch.randn(count, channels, side, side), torch.full((count,), 500), torch.randn(count, model.tokens, width)

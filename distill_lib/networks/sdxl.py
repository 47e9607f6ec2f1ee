"""Stable Diffusion XL as a teacher: two text encoders, and a U-Net that is told the pooled text and the picture's size.

    states = [encoder_1(tokens_1)[-2], encoder_2(tokens_2)[-2]]       side by side, (B, L, D1 + D2)
    pooled = projection of encoder_2                                  (B, P)
    size   = (R, R, 0, 0, R, R)                                       original size, crop and target size, in pixels

The pooled text rides behind the states (`adapter.append_extra`), so that batching, guidance and dropping of prompts
need not know of it; the size is that of the whole picture, R, always. The empty prompt is zeros where the folder says
so (`force_zeros_for_empty_prompt`, as SDXL base does). Podell et al. 2023 (arXiv 2307.01952), in the form of diffusers.
"""

import copy
import hashlib
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from diffusers import StableDiffusionXLPipeline, UNet2DConditionModel
from torch import Tensor
from transformers import CLIPTextModelWithProjection, CLIPTokenizer, PreTrainedModel

from distill_lib.diffusion.schedules import Schedule
from distill_lib.engine.precision import default_device
from distill_lib.engine.store import weights_hash
from distill_lib.networks.adapter import Network, append_extra
from distill_lib.networks.doors import check_tokenizer, load_part, naming_part, one_line, quiet, read_config
from distill_lib.networks.folders import CLASSES, grid_of, place_of
from distill_lib.networks.pipeline import TextToImage, decode, first_pass, open_pipeline, tokens_of

_SECOND = {
    "tokenizer_2": {"CLIPTokenizer": CLIPTokenizer, "CLIPTokenizerFast": CLIPTokenizer},
    "text_encoder_2": {"CLIPTextModelWithProjection": CLIPTextModelWithProjection},
}
_NETWORKS = ("text_encoder", "text_encoder_2", "unet", "vae")
_SIZES = 6  # numbers of the picture's size


def _pooled(unet: UNet2DConditionModel) -> int:
    """P: what the U-Net adds to its time, but for the sizes."""
    return unet.config.projection_class_embeddings_input_dim - _SIZES * unet.config.addition_time_embed_dim


class XLNetwork(Network):
    """net(z_t, t, label, w) -> v_hat as a `Network`; `label` holds text states with the pooled text behind them.

    Args:
        unet: of Stable Diffusion XL.
        side: of a picture in pixels, R.
        options: as those of `Network`.
    """

    def __init__(self, unet: UNet2DConditionModel, *, side: int, **options: Any) -> None:
        super().__init__(unet, **options)
        self.side = side

    @property
    def spec(self) -> dict[str, Any]:
        """What tells it from another network, for keys."""
        return super().spec | {"side": self.side}

    @property
    def options(self) -> dict[str, Any]:
        """The arguments beside its U-Net, with which another one is called alike."""
        return super().options | {"side": self.side}

    def like(self, unet: UNet2DConditionModel, **changed: Any) -> "XLNetwork":
        """Another U-Net behind the same adapter."""
        return XLNetwork(unet, **self.options | changed)

    def __call__(self, z_t: Tensor, t: Tensor, label: Tensor, w: Tensor | None = None) -> Tensor:
        count = _pooled(self.module)
        rows = -(-count // label.shape[2])
        size = label.new_tensor([self.side, self.side, 0, 0, self.side, self.side]).expand(len(label), _SIZES)
        added = {"text_embeds": label[:, -rows:].flatten(1)[:, :count], "time_ids": size}
        inner = copy.copy(self)
        inner.forward = partial(self.forward, added_cond_kwargs=added)
        return Network.__call__(inner, z_t, t, label[:, :-rows], w)


def _read_text(encoder: PreTrainedModel, tokens: Tensor) -> tuple[Tensor, Tensor]:
    """What goes into the last layer of a text encoder, (B, L, D), and what comes first out of it.

    transformers would give the first by `output_hidden_states`, and leave hooks that no key can hold.
    """
    kept: list[Tensor] = []
    last = getattr(encoder, "text_model", encoder).encoder.layers[-1]
    hook = last.register_forward_pre_hook(lambda _layer, given: kept.append(given[0]))
    try:
        answer = encoder(tokens.to(encoder.device))
    finally:
        hook.remove()
    return kept[0].float(), answer[0].float()


@torch.no_grad()
def _states(pipe: StableDiffusionXLPipeline, prompts: list[str]) -> Tensor:
    """Text states with the pooled text behind them, (B, L + K, D), in float32; raises as `pipeline.tokens_of`."""
    words = [tokens_of(SimpleNamespace(tokenizer=part), prompts) for part in (pipe.tokenizer, pipe.tokenizer_2)]
    first, _ = _read_text(pipe.text_encoder, words[0])
    second, pooled = _read_text(pipe.text_encoder_2, words[1])
    return append_extra(torch.cat([first, second], -1), pooled)


def _empty(pipe: StableDiffusionXLPipeline) -> Tensor:
    """What stands for no prompt, (L + K, D)."""
    null = _states(pipe, [""])[0]
    return torch.zeros_like(null) if pipe.config.force_zeros_for_empty_prompt else null


@dataclass(frozen=True)
class TextToImageXL(TextToImage):
    """A pipeline of Stable Diffusion XL, and its U-Net behind the adapter."""

    @cached_property
    def fingerprint(self) -> str:
        """As that of any pipeline, with the second text encoder, its words, and what stands for no prompt."""
        first = TextToImage(self.pipe, self.network).fingerprint
        second = weights_hash(self.pipe.text_encoder_2, "second") + str(
            sorted(self.pipe.tokenizer_2.get_vocab().items())
        )
        rest = f"{self.pipe.config.force_zeros_for_empty_prompt} {self.network.side}"
        return hashlib.sha256(f"{first} {second} {rest}".encode()).hexdigest()[:12]

    def states(self, prompts: list[str]) -> Tensor:
        """The U-Net's condition for prompts, (B, L + K, D); raises as `check`."""
        self.check(prompts)
        return _states(self.pipe, prompts)


def _check_fit(pipe: StableDiffusionXLPipeline) -> None:
    """Refuse parts whose shapes do not belong together."""
    unet, vae = pipe.unet.config, pipe.vae.config
    if unet.addition_embed_type != "text_time" or unet.time_cond_proj_dim is not None:
        raise ValueError(
            f"unet: addition_embed_type={unet.addition_embed_type}, time_cond_proj_dim={unet.time_cond_proj_dim}; "
            "text_time and None are due, a plain Stable Diffusion XL"
        )
    if not unet.in_channels == unet.out_channels == vae.latent_channels:
        raise ValueError(
            f"unet: {unet.in_channels} channels go in and {unet.out_channels} come out, where the vae's latents have "
            f"{vae.latent_channels}; the teacher must be a plain text-to-image model (no inpainting, no other vae)"
        )
    widths = pipe.text_encoder.config.hidden_size, pipe.text_encoder_2.config.hidden_size
    if unet.cross_attention_dim != sum(widths) or _pooled(pipe.unet) != pipe.text_encoder_2.config.projection_dim:
        raise ValueError(
            f"unet: it reads {unet.cross_attention_dim} numbers a token and {_pooled(pipe.unet)} of the whole text, "
            f"where the text encoders have {widths[0]} + {widths[1]} and {pipe.text_encoder_2.config.projection_dim}; "
            "put those there that it was trained with"
        )
    if not isinstance(unet.sample_size, int) or not isinstance(vae.scaling_factor, float) or vae.scaling_factor <= 0:
        raise ValueError(f"unet: sample_size={unet.sample_size} and the vae's {vae.scaling_factor=} are due as numbers")


def _read(source: str | Path) -> StableDiffusionXLPipeline:
    """All parts, each by a class that is named here, as `folders.read_pipeline` does for Stable Diffusion 1 and 2."""
    folder = place_of(source)
    index, kinds = read_config(folder / "model_index.json"), CLASSES | _SECOND
    parts: dict[str, Any] = {"scheduler": grid_of(folder)}
    for name, classes in kinds.items():
        library, kind = (index.get(name) or [None, None])[:2]
        if library not in ("diffusers", "transformers") or kind not in classes:
            raise ValueError(f"{name}: it is {library}.{kind}; only {' or '.join(classes)} can be read")
        with naming_part(name), quiet():
            if name.startswith("tokenizer"):
                check_tokenizer(folder / name, folder)
                parts[name] = classes[kind].from_pretrained(folder / name, local_files_only=True)
            else:
                parts[name] = load_part(classes[kind], folder / name, folder)
    zeros = bool(index.get("force_zeros_for_empty_prompt", True))
    return StableDiffusionXLPipeline(**parts, force_zeros_for_empty_prompt=zeros, add_watermarker=False)


def _open(source: str | Path, bf16: bool | None) -> TextToImageXL:
    try:
        pipe = _read(source)
        for name in _NETWORKS:
            getattr(pipe, name).to(default_device()).eval().requires_grad_(False)
        _check_fit(pipe)
        for words, encoder in ((pipe.tokenizer, pipe.text_encoder), (pipe.tokenizer_2, pipe.text_encoder_2)):
            words.model_max_length = min(words.model_max_length, encoder.config.max_position_embeddings)
        with naming_part("scheduler"):
            schedule, predicts = Schedule.from_scheduler(pipe.scheduler), pipe.scheduler.config.prediction_type
        with naming_part("text_encoder"):
            null = _empty(pipe)
        side = pipe.unet.config.sample_size << (len(pipe.vae.config.block_out_channels) - 1)
        options = {"null": null, "schedule": schedule, "predicts": predicts, "bf16": bf16}
        net = XLNetwork(pipe.unet, side=side, decode=partial(decode, pipe, bf16=bf16), **options)
        first_pass(pipe, net)
    except Exception as error:
        message = f"teacher={str(source)!r} is no usable StableDiffusionXLPipeline: {one_line(error)}"
        raise ValueError(message) from error
    return TextToImageXL(pipe, net)


def open_teacher(source: str | Path, bf16: bool | None = None) -> TextToImage:
    """A teacher of the shape of Stable Diffusion 1, 2 or XL, from a folder or from the hub.

    Raises:
        ValueError: as `pipeline.open_pipeline`, of either kind.
    """
    try:
        kind = read_config(place_of(source) / "model_index.json").get("_class_name")
    except ValueError:
        kind = None  # `open_pipeline` says what is wrong
    return _open(source, bf16) if kind == "StableDiffusionXLPipeline" else open_pipeline(source, bf16)

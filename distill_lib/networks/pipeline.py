"""Text-to-image models as diffusers keeps them: any folder or hub id of the shape of Stable Diffusion 1 or 2.

The small model that is trained here, and `stabilityai/stable-diffusion-2-1-base`, go through the same functions. The
grid, and what the network predicts, are those of the folder's own scheduler. A folder that opens has parts that fit,
whole weights, and has answered once: what cannot be distilled is refused before anything is drawn.
"""

import hashlib
import json
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path

import torch
from diffusers import StableDiffusionPipeline
from torch import Tensor

from distill_lib.diffusion.pixels import to_bytes, to_unit
from distill_lib.diffusion.schedules import Schedule
from distill_lib.engine.precision import autocast, default_device
from distill_lib.engine.store import weights_hash
from distill_lib.networks.adapter import Network, append_extra
from distill_lib.networks.doors import naming_part, one_line, quiet
from distill_lib.networks.folders import read_pipeline
from distill_lib.worlds.captions import check_prompt, vocabulary_behind

_PIXELS = 512 * 512  # decoded at a time
_CLOSED = 1000  # a tokenizer with fewer entries knows only the words that it was made of
_SIDE = 256  # of latents; Stable Diffusion's is 64 or 96
_MORE = ("num_class_embeds", "class_embed_type", "addition_embed_type", "encoder_hid_dim_type", "encoder_hid_dim")
_TRIED = 16  # side of the latents of the first pass


def tokens_of(pipe: StableDiffusionPipeline, prompts: list[str]) -> Tensor:
    """The tokens of prompts, padded, (B, L).

    Raises:
        ValueError: some prompts are longer than the tokenizer's limit; a cut prompt would be another prompt.
    """
    length = pipe.tokenizer.model_max_length
    with quiet():
        ids = pipe.tokenizer(prompts, padding="max_length", max_length=length).input_ids
    long = [i for i, tokens in enumerate(ids) if len(tokens) > length]
    if long:
        prompt = prompts[long[0]]
        raise ValueError(
            f"{len(long)} of {len(prompts)} prompts are longer than the {length} tokens that this text encoder reads; "
            f"the first is {prompt[:60] + '..' * (len(prompt) > 60)!r} with {len(ids[long[0]])}: shorten them"
        )
    return torch.tensor(ids)


@torch.no_grad()
def text_states(pipe: StableDiffusionPipeline, prompts: list[str]) -> Tensor:
    """The text encoder's states of prompts, (B, L, D), in float32; raises as `tokens_of`."""
    return pipe.text_encoder(tokens_of(pipe, prompts).to(pipe.text_encoder.device))[0].float()


def decode(pipe: StableDiffusionPipeline, z: Tensor, bf16: bool | None = False) -> Tensor:
    """Pictures (B, 3, R, R) in [-1, 1] of latents that are scaled as the U-Net knows them.

    In parts of so many pixels that those of 512 x 512 pixels are decoded one by one.
    """
    z = z.to(pipe.vae.device) / pipe.vae.config.scaling_factor
    side = z.shape[-1] << (len(pipe.vae.config.block_out_channels) - 1)
    with autocast(pipe.vae.device, bf16):
        return torch.cat([pipe.vae.decode(part).sample.float() for part in z.split(max(1, _PIXELS // side**2))])


@dataclass(frozen=True)
class TextToImage:
    """A pipeline of diffusers, and its U-Net behind the adapter of this library."""

    pipe: StableDiffusionPipeline
    network: Network

    @cached_property
    def fingerprint(self) -> str:
        """A hash of all that turns prompts and noise into pictures: all weights and settings, the grid, the words."""
        digest = hashlib.sha256(self.network.schedule.alpha.numpy().tobytes() + self.network.predicts.encode())
        words = self.pipe.tokenizer
        # how the last prompts were cut and filled up stands among the words' settings too: not a part of the pipeline
        reading = json.loads(words.backend_tokenizer.to_str()) | {"truncation": None, "padding": None}
        digest.update(f"{words.model_max_length} {json.dumps(reading, sort_keys=True)}".encode())
        parts = *self.network.modules, self.pipe.text_encoder, self.pipe.vae
        for part in parts:
            known = part.config.to_dict() if hasattr(part.config, "to_dict") else dict(part.config)
            settings = {name: value for name, value in known.items() if not (name.startswith("_") or "version" in name)}
            digest.update(json.dumps(settings, sort_keys=True, default=str).encode())
        for part in parts:
            digest.update(weights_hash(part, type(part).__name__).encode())
        return digest.hexdigest()[:12]

    @property
    def spec(self) -> str:
        """What tells it from another pipeline, for keys."""
        return self.fingerprint

    def check(self, prompts: list[str]) -> None:
        """Refuse prompts that the text encoder cannot read as they are.

        Raises:
            ValueError: some are too long, or one holds words that this text encoder has never seen.
        """
        tokens_of(self.pipe, [prompt for prompt in prompts if prompt.isprintable()] or [""])  # all that are too long
        if len(self.pipe.tokenizer) < _CLOSED:
            words = vocabulary_behind(self.pipe.tokenizer)
            for prompt in prompts:
                check_prompt(prompt, words)

    def states(self, prompts: list[str]) -> Tensor:
        """The U-Net's condition for prompts: the text encoder's states, (B, L, D); raises as `check`."""
        self.check(prompts)
        return text_states(self.pipe, prompts)

    @torch.no_grad()
    def latents(self, image: Tensor) -> Tensor:
        """Means of the latents of pictures uint8 (B, 3, R, R), scaled as the U-Net knows them, (B, C, R/f, R/f)."""
        vae = self.pipe.vae
        x = to_unit(image.to(vae.device))
        return vae.encode(x).latent_dist.mean * vae.config.scaling_factor

    @torch.no_grad()
    def pictures(self, z: Tensor) -> Tensor:
        """Pictures uint8 (B, 3, R, R) of latents."""
        return to_bytes(self.network.decode(z))


@dataclass(frozen=True)
class Latents:
    """Data for the methods: latents z (N, C, R/f, R/f) with a prompt each, the network's condition.

    `seen` (N, ..) is what the network is shown besides, such as a mask or a map.
    """

    z: Tensor
    prompts: list[str]
    model: TextToImage
    seen: Tensor | None = None

    def __len__(self) -> int:
        return len(self.z)

    def batch(self, index: Tensor, device: torch.device | str = "cpu") -> tuple[Tensor, Tensor]:
        """Data x (B, C, R/f, R/f), and states (B, L, D) of the pictures `index` (B,) with what is shown behind them."""
        states = self.model.states([self.prompts[i] for i in index.tolist()]).to(device)
        if self.seen is not None:
            states = append_extra(states, self.seen[index].float().to(device))
        return self.z[index].float().to(device), states


def _check_fit(pipe: StableDiffusionPipeline) -> None:
    """Refuse parts whose shapes do not belong together, and what Stable Diffusion 1 and 2 do not have."""
    unet, vae, text, tokens = pipe.unet.config, pipe.vae.config, pipe.text_encoder.config, pipe.tokenizer
    if unet.time_cond_proj_dim is not None:
        raise ValueError(
            f"unet: time_cond_proj_dim={unet.time_cond_proj_dim} marks a student conditioned on w; name its teacher"
        )
    for name in _MORE:
        if unet.get(name) is not None:
            raise ValueError(
                f"unet: {name}={unet[name]} asks for more than time and text; name a Stable Diffusion 1 or 2"
            )
    for name in ("in_channels", "out_channels"):
        if unet[name] != vae.latent_channels:
            raise ValueError(
                f"unet: {name}={unet[name]}, where the vae's latents have {vae.latent_channels} channels; the teacher "
                "must be a plain text-to-image model (no inpainting, no other vae)"
            )
    if unet.cross_attention_dim != text.hidden_size:
        raise ValueError(
            f"unet: cross_attention_dim={unet.cross_attention_dim}, where the text encoder's states have "
            f"{text.hidden_size} numbers; put the text encoder there that it was trained with"
        )
    if not isinstance(unet.sample_size, int) or not 1 <= unet.sample_size <= _SIDE:
        raise ValueError(
            f"unet: sample_size={unet.sample_size}; a whole number from 1 to {_SIDE} is due, the latents' side"
        )
    scale = vae.scaling_factor
    if not isinstance(scale, int | float) or not scale > 0:
        raise ValueError(f"vae: scaling_factor={scale}; a number above 0 is due")
    if vae.get("shift_factor"):
        raise ValueError(
            f"vae: shift_factor={vae.shift_factor}; the latents of Stable Diffusion 1 and 2 are not shifted"
        )
    if len(tokens) > text.vocab_size:
        raise ValueError(
            f"tokenizer: it has {len(tokens)} entries, where the text encoder knows {text.vocab_size}; put the "
            "tokenizer there that it was trained with"
        )


def first_pass(pipe: StableDiffusionPipeline, net: Network) -> None:
    """One forward pass of U-Net and decoder on small latents, (1, C, s, s).

    Raises:
        ValueError: one of them answers in another shape, or with numbers that are not finite.
    """
    side, channels = min(net.shape[1], _TRIED), net.shape[0]
    factor = 2 ** (len(pipe.vae.config.block_out_channels) - 1)
    z = torch.zeros(1, channels, side, side, device=default_device())
    with torch.no_grad(), naming_part("unet"):
        answer = net(z, torch.tensor([net.schedule.T], device=default_device()), net.null[None])
        _check_answer(answer, (1, channels, side, side))
    with torch.no_grad(), naming_part("vae"):
        _check_answer(net.decode(z), (1, 3, factor * side, factor * side))


def _check_answer(answer: Tensor, shape: tuple[int, ...]) -> None:
    if tuple(answer.shape) != shape:
        raise ValueError(f"it answers with {tuple(answer.shape)} where {shape} is due")
    if not torch.isfinite(answer).all():
        raise ValueError("its first answer is not finite; its weights are of no use")


def open_pipeline(source: str | Path, bf16: bool | None = None) -> TextToImage:
    """A model from a folder or from the hub, safetensors only, in float32, frozen, on the device where networks live.

    A tokenizer that names no limit, or one above what the text encoder has places for, gets the text encoder's.

    Raises:
        ValueError: nothing usable is there, in one sentence that names the part: it is missing or truncated, lacks
            weights, is a pickle or code, leads out of the folder, does not fit the others (two text encoders, nine
            channels), has a grid without betas, or does not answer.
    """
    try:
        pipe = read_pipeline(source)
        for part in (pipe.unet, pipe.vae, pipe.text_encoder):
            part.to(default_device()).eval().requires_grad_(False)
        _check_fit(pipe)
        pipe.tokenizer.model_max_length = min(
            pipe.tokenizer.model_max_length, pipe.text_encoder.config.max_position_embeddings
        )
        with naming_part("scheduler"):
            schedule, predicts = Schedule.from_scheduler(pipe.scheduler), pipe.scheduler.config.prediction_type
        with naming_part("text_encoder"):
            null = text_states(pipe, [""])[0]
        net = Network(
            pipe.unet,
            bf16=bf16,
            null=null,
            schedule=schedule,
            predicts=predicts,
            decode=partial(decode, pipe, bf16=bf16),
        )
        first_pass(pipe, net)
    except Exception as error:
        raise ValueError(f"teacher={str(source)!r} is no usable StableDiffusionPipeline: {one_line(error)}") from error
    return TextToImage(pipe, net)

"""Text-to-image models as diffusers keeps them: any folder or hub id of the shape of Stable Diffusion 1 or 2.

The small model that is trained here, and `stabilityai/stable-diffusion-2-1-base`, go through the same functions. The
grid, and what the network predicts, are those of the folder's own scheduler.
"""

import hashlib
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path

import torch
from diffusers import DDIMScheduler, StableDiffusionPipeline
from torch import Tensor

from distill_lib.extractor import weights_name
from distill_lib.metrics import to_bytes
from distill_lib.models import Network, home
from distill_lib.precision import autocast
from distill_lib.schedules import Schedule
from distill_lib.worlds.captions import check_prompt

__all__ = ["Latents", "TextToImage", "decode", "open_pipeline", "text_states"]

_PIXELS = 512 * 512  # decoded at a time
_CLOSED = 1000  # a tokenizer with fewer entries knows only the words that it was made of


@torch.no_grad()
def text_states(pipe: StableDiffusionPipeline, prompts: list[str]) -> Tensor:
    """The text encoder's states of prompts, (B, L, D), in float32."""
    length = pipe.tokenizer.model_max_length
    ids = pipe.tokenizer(prompts, padding="max_length", max_length=length, truncation=True, return_tensors="pt")
    return pipe.text_encoder(ids.input_ids.to(pipe.text_encoder.device))[0].float()


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
        """A hash of all that turns prompts and noise into pictures: all weights, the grid, and what is predicted."""
        digest = hashlib.sha256(self.network.schedule.alpha.numpy().tobytes() + self.network.predicts.encode())
        for part in (self.network.module, self.pipe.text_encoder, self.pipe.vae):
            digest.update(weights_name(part, type(part).__name__).encode())
        return digest.hexdigest()[:12]

    def states(self, prompts: list[str]) -> Tensor:
        """What the U-Net is told of prompts: the text encoder's states, (B, L, D).

        Raises:
            ValueError: a prompt holds words that this text encoder has never seen.
        """
        if len(self.pipe.tokenizer) < _CLOSED:
            for prompt in prompts:
                check_prompt(prompt)
        return text_states(self.pipe, prompts)

    @torch.no_grad()
    def latents(self, image: Tensor) -> Tensor:
        """Means of the latents of pictures uint8 (B, 3, R, R), scaled as the U-Net knows them, (B, C, R/f, R/f)."""
        vae = self.pipe.vae
        x = image.to(vae.device).float() / 127.5 - 1
        return vae.encode(x).latent_dist.mean * vae.config.scaling_factor

    @torch.no_grad()
    def pictures(self, z: Tensor) -> Tensor:
        """Pictures uint8 (B, 3, R, R) of latents."""
        return to_bytes(self.network.decode(z))


@dataclass(frozen=True)
class Latents:
    """Data for the methods: latents z (N, C, R/f, R/f) with a prompt each, told to the network as text states."""

    z: Tensor
    prompts: list[str]
    told: TextToImage

    def __len__(self) -> int:
        return len(self.z)

    def batch(self, index: Tensor, device: torch.device | str = "cpu") -> tuple[Tensor, Tensor]:
        """Data x (B, C, R/f, R/f) and states (B, L, D) of the pictures `index` (B,)."""
        states = self.told.states([self.prompts[i] for i in index.tolist()])
        return self.z[index].float().to(device), states.to(device)


def open_pipeline(source: str | Path, bf16: bool | None = None) -> TextToImage:
    """A model from a folder or from the hub, safetensors only, in float32, frozen, on the device where networks live.

    Raises:
        ValueError: nothing usable is there: missing, truncated, of another shape (two text encoders), or with a
            scheduler that has no betas.
    """
    try:
        pipe = StableDiffusionPipeline.from_pretrained(
            source,
            use_safetensors=True,
            local_files_only=Path(source).is_dir(),
            safety_checker=None,
            feature_extractor=None,
            requires_safety_checker=False,
        )
    except Exception as error:
        why = " ".join(str(error).split())
        raise ValueError(f"teacher={str(source)!r} is no usable StableDiffusionPipeline: {why}") from error
    if not hasattr(pipe.scheduler, "alphas_cumprod"):
        raise ValueError(f"teacher={str(source)!r} has a {type(pipe.scheduler).__name__}, which has no betas")
    for part in (pipe.unet, pipe.vae, pipe.text_encoder):
        part.float().to(home()).eval().requires_grad_(False)
    scheduler = DDIMScheduler.from_config(pipe.scheduler.config)
    return TextToImage(
        pipe,
        Network(
            pipe.unet,
            bf16=bf16,
            null=text_states(pipe, [""])[0],
            schedule=Schedule.from_scheduler(scheduler),
            predicts=scheduler.config.prediction_type,
            decode=partial(decode, pipe, bf16=bf16),
        ),
    )

"""Autoencoders and tiny decoders of diffusers, and the critic of patches they train against."""

from dataclasses import dataclass
from itertools import pairwise

import torch
from diffusers import AutoencoderKL, AutoencoderTiny
from torch import Tensor, nn

from distill_lib.engine.precision import autocast
from distill_lib.engine.store import weights_hash
from distill_lib.engine.trainable import fixed


def build_autoencoder(
    channels: tuple[int, ...], latents: int = 4, layers: int = 1, norm_groups: int = 16
) -> AutoencoderKL:
    """diffusers' autoencoder; each level but the last halves the side."""
    levels = len(channels)
    return AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * levels,
        up_block_types=("UpDecoderBlock2D",) * levels,
        block_out_channels=channels,
        layers_per_block=layers,
        latent_channels=latents,
        norm_num_groups=norm_groups,
    )


class Critic(nn.Module):
    """Pictures (B, 3, R, R) -> one answer a patch of about 22 pixels, (B, 1, R/4, R/4).

    With `given` channels it is also conditioned on so many, (B, given, R, R).
    """

    def __init__(self, width: int = 32, given: int = 0) -> None:
        super().__init__()
        sizes = (3 + given, width, 2 * width, 4 * width)
        layers: list[nn.Module] = []
        for level, (a, b) in enumerate(pairwise(sizes)):
            layers += [nn.Conv2d(a, b, 4 if level < 2 else 3, 2 if level < 2 else 1, 1), nn.LeakyReLU(0.2)]
        self.body = nn.Sequential(*layers, nn.Conv2d(sizes[-1], 1, 3, 1, 1))

    def forward(self, image: Tensor, condition: Tensor | None = None) -> Tensor:
        return self.body(image if condition is None else torch.cat([image, condition], 1))

    def of_both(self, x: Tensor, x_hat: Tensor, *condition: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Its answers to pictures x, to x_hat where only the critic learns, and to x_hat where only its maker does."""
        return self(x, *condition), self(x_hat.detach(), *condition), fixed(self, x_hat, *condition)


def build_tiny(levels: int, width: int = 64, blocks: int = 3, latents: int = 4) -> AutoencoderTiny:
    """diffusers' tiny autoencoder for latents a factor 2^(levels - 1) smaller than pictures.

    With four levels of 64 channels and three blocks its decoder has the paper's 1.2 million weights. Only the decoder
    is trained here: image-to-image needs the large encoder.
    """
    inner = levels - 1
    return AutoencoderTiny(
        latent_channels=latents,
        encoder_block_out_channels=(width,) * levels,
        decoder_block_out_channels=(width,) * levels,
        num_encoder_blocks=(1,) + (blocks,) * inner,
        num_decoder_blocks=(blocks,) * inner + (1,),
        scaling_factor=1.0,
    )


@dataclass(frozen=True)
class TinyDecode:
    """A tiny decoder in the place of `Network.decode`: latents (B, C, H, W) -> pictures (B, 3, R, R) in [-1, 1]."""

    tiny: AutoencoderTiny
    bf16: bool | None = None

    @property
    def name(self) -> str:
        """By its weights, for caches."""
        return weights_hash(self.tiny.decoder, "tiny")

    def __call__(self, z: Tensor) -> Tensor:
        device = next(self.tiny.parameters()).device
        with autocast(device, self.bf16):
            return self.tiny.decoder(z.to(device)).float()

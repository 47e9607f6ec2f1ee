"""Inpainting: a network that is also shown a mask and what is left of the picture, and the data to train it.

Rombach et al. 2022 (arXiv 2112.10752), section 4.5, in the form of diffusers' StableDiffusionInpaintPipeline: nine
channels, which are the noisy latents, the mask (1: to be painted), and the latents of the picture with the masked part
set to grey. The U-Net of a text-to-image model takes five channels more, whose weights start at zero.
"""

from dataclasses import replace

import torch
from diffusers import UNet2DConditionModel
from torch import Tensor
from torch.nn.functional import interpolate

from distill_lib.diffusion.noise import uniform
from distill_lib.engine.store import cached
from distill_lib.networks.adapter import Network
from distill_lib.networks.pipeline import Latents, TextToImage
from distill_lib.networks.unet import config_of
from distill_lib.teachers.latents import captioned, latent_pictures
from distill_lib.worlds.pictures import WORLDS

_EXTRA = 5
_BATCH = 64


def inpainting_of(unet: UNet2DConditionModel) -> UNet2DConditionModel:
    """A copy that takes mask and masked latents besides, and at first ignores them."""
    wider = UNet2DConditionModel(**config_of(unet) | {"in_channels": unet.config.in_channels + _EXTRA})
    weights = unet.state_dict()
    first = weights["conv_in.weight"]
    weights["conv_in.weight"] = torch.cat([first, first.new_zeros(len(first), _EXTRA, *first.shape[2:])], 1)
    wider.load_state_dict(weights)
    return wider.to(first.device)


def drawn_masks(index: Tensor, seed: int, side: int) -> Tensor:
    """One box a picture, float (B, 1, side, side), 1 inside: a third to two thirds of the side long, anywhere."""
    u = uniform(seed, "box", 0, index, 4).float()
    long = side * (1 + u[:, :2]) / 3
    start = u[:, 2:] * (side - long)
    place = torch.arange(side, device=u.device) + 0.5
    inside = (place >= start[..., None]) & (place < (start + long)[..., None])  # (B, 2, side)
    return (inside[:, 0, :, None] & inside[:, 1, None, :]).float()[:, None]


@torch.no_grad()
def visible_latents(model: TextToImage, image: Tensor, mask: Tensor) -> Tensor:
    """What the network is shown of pictures uint8 (B, 3, R, R) and masks (B, 1, R, R): (B, 5, R/f, R/f), mask first."""
    grey = (image.float() * (1 - mask) + 127.5 * mask).round().to(torch.uint8)
    z = model.latents(grey)
    small = interpolate(mask.to(z.device), size=z.shape[-2:])
    return torch.cat([small, z], 1)


def masked_pictures(model: TextToImage, name: str, world: str, count: int, seed: int) -> Latents:
    """`latents.latent_pictures`, each with a box to be painted; kept in a cache likewise."""

    def make() -> dict[str, Tensor]:
        image, _ = captioned(world, count, seed, known=True)
        parts = torch.arange(len(image)).split(_BATCH)
        mask = drawn_masks(torch.arange(len(image)), seed, image.shape[-1])
        return {"seen": torch.cat([visible_latents(model, image[part], mask[part]).half().cpu() for part in parts])}

    spec = {"pipeline": name, "model": model, "world": WORLDS[world], "count": count, "seed": seed}
    seen = cached("masked", spec, make, masked_pictures)["seen"]
    return replace(latent_pictures(model, name, world, count, seed), seen=seen)


def inpainter(model: TextToImage, unet: UNet2DConditionModel) -> Network:
    """A network of nine channels behind the adapter of the pipeline that it came from."""
    return model.network.like(unet)

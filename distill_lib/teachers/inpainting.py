"""Inpainting: a network that is also shown a mask and what is left of the picture, and the data to train it.

Rombach et al. 2022 (arXiv 2112.10752), section 4.5, in the form of diffusers' StableDiffusionInpaintPipeline: nine
channels, which are the noisy latents, the mask (1: to be painted), and the latents of the picture with the masked part
set to grey. The U-Net of a text-to-image model takes five channels more, whose weights start at zero.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from diffusers import UNet2DConditionModel
from torch import Tensor
from torch.nn.functional import interpolate

from distill_lib.diffusion.noise import uniform
from distill_lib.engine.store import cached
from distill_lib.networks.adapter import Network, showing
from distill_lib.networks.pipeline import TextToImage
from distill_lib.networks.unet import config_of
from distill_lib.teachers.latents import captioned, encoded, phrased
from distill_lib.worlds.captions import names_held_out
from distill_lib.worlds.pictures import WORLDS

_SHOWN = 5
_BATCH = 64


def inpainting_of(unet: UNet2DConditionModel) -> UNet2DConditionModel:
    """A copy that takes mask and masked latents besides, and at first ignores them."""
    wider = UNet2DConditionModel(**config_of(unet) | {"in_channels": unet.config.in_channels + _SHOWN})
    weights = unet.state_dict()
    first = weights["conv_in.weight"]
    weights["conv_in.weight"] = torch.cat([first, first.new_zeros(len(first), _SHOWN, *first.shape[2:])], 1)
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
def shown_latents(told: TextToImage, image: Tensor, mask: Tensor) -> Tensor:
    """What the network is shown of pictures uint8 (B, 3, R, R) and masks (B, 1, R, R): (B, 5, R/f, R/f), mask first."""
    grey = (image.float() * (1 - mask) + 127.5 * mask).round().to(torch.uint8)
    z = told.latents(grey)
    small = interpolate(mask.to(z.device), size=z.shape[-2:])
    return torch.cat([small, z], 1)


@dataclass(frozen=True)
class Masked:
    """Data for the methods: latents z (N, 4, H, W), what is shown (N, 5, H, W), and a prompt each."""

    z: Tensor
    seen: Tensor
    prompts: list[str]
    states: Callable[[list[str]], Tensor]

    def __len__(self) -> int:
        return len(self.z)

    def batch(self, index: Tensor, device: torch.device | str = "cpu") -> tuple[Tensor, Tensor]:
        """Data x (B, 4, H, W), and states with what is shown behind them (B, L + K, D)."""
        label = self.states([self.prompts[i] for i in index.tolist()]).to(device)
        return self.z[index].float().to(device), showing(label, self.seen[index].float().to(device))


def masked_pictures(told: TextToImage, name: str, world: str, count: int, seed: int) -> Masked:
    """Captioned pictures of a world in latents, each with a box to be painted; kept in a cache under `name`.

    Pictures of the pairs held out are left out, as in `latents.latent_pictures`.
    """

    def make() -> dict[str, Tensor]:
        image, asked = captioned(world, count, seed)
        known = (~names_held_out(asked)).nonzero()[:, 0]
        mask = drawn_masks(torch.arange(len(known)), seed, image.shape[-1])
        parts = [
            shown_latents(told, image[known[part]], mask[part]).half().cpu()
            for part in torch.arange(len(known)).split(_BATCH)
        ]
        return {"z": encoded(told, image[known]), "seen": torch.cat(parts), "asked": asked[known]}

    spec = {"pipeline": name, "world": WORLDS[world], "count": count, "seed": seed}
    found = cached("masked", spec, make, masked_pictures)
    return Masked(found["z"], found["seen"], phrased(found["asked"], seed), told.states)


def inpainter(told: TextToImage, unet: UNet2DConditionModel) -> Network:
    """A network of nine channels behind the adapter of the pipeline that it came from."""
    return told.network.like(unet)

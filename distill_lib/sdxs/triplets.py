"""What ControlNets of SDXS are trained on: noise, the teacher's picture, and a map taken from it."""

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from diffusers import ControlNetModel
from torch import Tensor

from distill_lib.diffusion.noise import Draws, normal, uniform
from distill_lib.engine.store import cached
from distill_lib.networks.adapter import append_extra
from distill_lib.networks.controlnet import Controlled
from distill_lib.networks.pipeline import Latents, TextToImage
from distill_lib.teachers.latents import Pairs, captioned, decoded, latent_pictures
from distill_lib.worlds.captions import names_held_out
from distill_lib.worlds.maps import control_map
from distill_lib.worlds.pictures import WORLDS
from distill_lib.worlds.scenes import draw_scenes, rendered
from distill_lib.worlds.vocabulary import vocabulary_of

Depth = Callable[[Tensor], Tensor]
"""Pictures uint8 (N, 3, R, R) -> distances, as a reader of geometry gives them; a function or a partial of one."""


def resample_noise(z_T: Tensor, fresh: Tensor, u: Tensor, share: float) -> Tensor:
    """Noise z_T (B, C, H, W) with that of `fresh` at a share of its places, those where u (B, H W) < share.

    Still white noise. SDXS, section 3.3, initialises part of the noise again, so that it tells less of the layout and
    the control has to tell more. It does not say which part, nor how often: here it is places, once for each triplet.

    Raises:
        ValueError: share lies outside [0, 1].
    """
    if not 0 <= share <= 1:
        raise ValueError(f"share={share} of the noise should lie in [0, 1]")
    resampled = (u < share).unflatten(1, z_T.shape[-2:])[:, None]
    return torch.where(resampled, fresh, z_T)


@dataclass(frozen=True)
class Triplets:
    """Noise, the teacher's picture from it, and a control map taken from that picture.

    Args:
        pairs: noise and picture; `model.network` is the controlled teacher, whose U-Net is what learns of its copies.
        seen: the maps, (N, C, R, R) in [0, 1].
        share: of the noise that is resampled, once a triplet.
    """

    pairs: Pairs
    seen: Tensor
    share: float = 0.0

    @property
    def model(self) -> TextToImage:
        """The controlled teacher."""
        return self.pairs.model

    def __len__(self) -> int:
        return len(self.pairs)

    def batch(self, index: Tensor, device: torch.device | str = "cpu") -> tuple[Tensor, Tensor, Tensor]:
        """z_T, x, and text states with the map behind them (B, L + K, D) of the triplets `index` (B,)."""
        z_T, x, states = self.pairs.batch(index, device)
        number = self.pairs.first + index.to(device)
        fresh = normal(self.pairs.seed, "anew", 0, number, z_T.shape[1:])
        u = uniform(self.pairs.seed, "places", 0, number, z_T[0, 0].numel())
        return resample_noise(z_T, fresh, u, self.share), x, append_extra(states, self.seen[index].float().to(device))

    def fresh(self, draws: Draws, device: torch.device | str = "cpu") -> tuple[Tensor, Tensor]:
        """Noise z_T that no pair has, and prompts with the maps that belong to them, drawn apart from it."""
        index = draws.integer("prompt", len(self)).cpu()
        states = self.pairs.batch(index, device)[2]
        return draws.normal("z_T", self.pairs.x.shape[1:]), append_extra(states, self.seen[index].float().to(device))

    def as_data(self) -> Latents:
        """The same pictures and maps without their noise, for trainings at every noise level."""
        return Latents(self.pairs.x, self.pairs.prompts, self.model, self.seen)

    @classmethod
    def of(cls, pairs: Pairs, kind: str, depth_of: Depth, control: ControlNetModel, share: float = 0.0) -> "Triplets":
        """Triplets of a kind of map from a teacher's pairs.

        Args:
            pairs: of the teacher without control, as they are for the student of one step.
            kind: of `worlds.maps.KINDS`.
            depth_of: reads distances off pictures, for "depth".
            control: the teacher's ControlNet.
            share: of the noise that is resampled.
        """
        teacher = Controlled(pairs.model.network, control, "unet")
        return cls(replace(pairs, model=replace(pairs.model, network=teacher)), maps_of(pairs, kind, depth_of), share)


def maps_of(pairs: Pairs, kind: str, depth_of: Depth) -> Tensor:
    """Control maps (N, C, R, R), in half precision, of a teacher's own pictures; kept in a cache."""
    image = decoded(pairs)
    spec = {"image": image, "kind": kind, "reader": depth_of}

    def make() -> dict[str, Tensor]:
        depth = depth_of(image) if kind == "depth" else image[:, 0]
        return {"seen": control_map(kind, image, depth).half()}

    return cached("maps", spec, make, control_map)["seen"]


def mapped_pictures(kind: str, model: TextToImage, name: str, world: str, count: int, seed: int) -> Latents:
    """`latents.latent_pictures`, each with its exact map of a kind of `worlds.maps.KINDS`."""
    spec = WORLDS[world]
    make = lambda: {"depth": rendered(spec, draw_scenes(spec, seed, torch.arange(count)))[1]}  # noqa: E731
    depth = cached("depths", {"world": spec, "count": count, "seed": seed}, make, rendered)["depth"]
    image, wanted_attributes = captioned(world, count, seed)
    known = ~names_held_out(wanted_attributes, vocabulary_of(spec))
    seen = control_map(kind, image[known], depth[known]).half()
    return replace(latent_pictures(model, name, world, count, seed), seen=seen)

"""What students of a pipeline learn from: captioned pictures as latents, and the teacher's own pairs."""

from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from distill_lib.diffusion.noise import Draws, normal, uniform
from distill_lib.diffusion.pixels import to_unit
from distill_lib.diffusion.solvers import check_sampler, sample_by
from distill_lib.engine.precision import current
from distill_lib.engine.store import cached
from distill_lib.networks.adapter import denoiser
from distill_lib.networks.pipeline import Latents, TextToImage
from distill_lib.worlds.captions import PHRASINGS, attributes, names_held_out, say
from distill_lib.worlds.pictures import WORLDS, rendered_once
from distill_lib.worlds.vocabulary import SCENES, Vocabulary, vocabulary_of

_BATCH = 64


def captioned(world: str, count: int, seed: int, known: bool = False) -> tuple[Tensor, Tensor]:
    """Pictures uint8 (N, 3, R, R) of a world of two objects, and their attributes (N, 2, 4); rendered once.

    With `known` those of the pairs held out are left out.
    """
    image, scenes = rendered_once(WORLDS[world], seed, count)
    wanted_attributes = attributes(scenes, WORLDS[world])
    kept = ~names_held_out(wanted_attributes, vocabulary_of(WORLDS[world]))
    return (image[kept], wanted_attributes[kept]) if known else (image, wanted_attributes)


def phrased(wanted_attributes: Tensor, seed: int, vocabulary: Vocabulary = SCENES) -> list[str]:
    """A caption of each of the attributes (B, 2, 4), in a phrasing drawn once."""
    drawn = uniform(seed, "phrasing", 0, torch.arange(len(wanted_attributes)), 1)[:, 0]
    return say(wanted_attributes, (drawn * len(PHRASINGS)).long(), vocabulary)


def encoded(model: TextToImage, image: Tensor) -> Tensor:
    """Latents of pictures uint8 (N, 3, R, R), (N, C, R/f, R/f), in half precision."""
    return torch.cat([model.latents(part).half().cpu() for part in image.split(_BATCH)])


def latent_pictures(model: TextToImage, name: str, world: str, count: int, seed: int) -> Latents:
    """Captioned pictures of a world in a pipeline's latents, without the pairs held out.

    Kept in a cache by the pipeline's fingerprint and by `name`, which says where the pipeline came from.
    """

    def make() -> dict[str, Tensor]:
        image, wanted_attributes = captioned(world, count, seed, known=True)
        return {"z": encoded(model, image), "asked": wanted_attributes}

    spec = {"pipeline": name, "model": model, "world": WORLDS[world], "count": count, "seed": seed}
    tensors = cached("latents", spec, make, latent_pictures)
    return Latents(tensors["z"], phrased(tensors["asked"], seed, vocabulary_of(WORLDS[world])), model)


_PART = 1024


@dataclass(frozen=True)
class Pairs:
    """The teacher's latents x (N, C, H, W), their prompts, and the seed of the noise behind them.

    The noise of each is found again by its number, which counts from `first`. `more` are prompts without an answer, for
    what draws from fresh noise.
    """

    x: Tensor
    prompts: list[str]
    model: TextToImage
    seed: int
    first: int = 0
    more: list[str] = field(default_factory=list)

    @property
    def spec(self) -> dict[str, Any]:
        """What tells them from other pairs, for keys."""
        numbers = {"seed": self.seed, "first": self.first}
        return {"model": self.model, "x": self.x, "prompts": self.prompts, "more": self.more} | numbers

    def __len__(self) -> int:
        return len(self.x)

    def part(self, start: int, stop: int) -> "Pairs":
        """Those from `start` up to `stop`."""
        prompts = self.prompts[start:stop]
        return replace(self, x=self.x[start:stop], prompts=prompts, first=self.first + start)

    def batch(self, index: Tensor, device: torch.device | str = "cpu") -> tuple[Tensor, Tensor, Tensor]:
        """z_T, x and text states (B, L, D) of the pairs `index` (B,)."""
        states = self.model.states([self.prompts[i] for i in index.tolist()])
        z_T = normal(self.seed, "pairs", 0, self.first + index.to(device), self.x.shape[1:])
        return z_T, self.x[index].float().to(device), states.to(device)

    def fresh(self, draws: Draws, device: torch.device | str = "cpu") -> tuple[Tensor, Tensor]:
        """Noise z_T (B, C, H, W) that no pair has, and states (B, L, D) of prompts that are drawn apart from it."""
        known = len(self.prompts)
        index = draws.integer("prompt", known + len(self.more)).tolist()
        states = self.model.states([self.prompts[i] if i < known else self.more[i - known] for i in index])
        return draws.normal("z_T", self.x.shape[1:]), states.to(device)


@torch.no_grad()
def teacher_pairs(
    model: TextToImage, prompts: list[str], n_steps: int, w: float, seed: int, name: str, sampler: str = "ddim"
) -> Pairs:
    """The teacher's own samples; kept in a cache by the teacher and by `name`, which says where it came from.

    Data-free: nothing but prompts and noise goes in. Kept in parts, so that a run that was cut off goes on. A faster
    solver in place of "ddim" comes nearer to the end of the teacher's way with as many steps.

    Raises:
        ValueError: `solvers.SAMPLERS` has no such sampler.
    """
    check_sampler(sampler)
    net, parts = model.network, []
    for numbers in torch.arange(len(prompts), device=net.device).split(_PART):

        def make(numbers: Tensor = numbers) -> dict[str, Tensor]:
            parts = []
            for index in numbers.split(_BATCH):
                label = model.states([prompts[i] for i in index.tolist()]).to(net.device)
                z_T = normal(seed, "pairs", 0, index, net.shape)
                fresh = lambda i, index=index: normal(seed, "pairs", 1 + i, index, net.shape)  # noqa: E731
                x = sample_by(sampler, denoiser(net, label, w), z_T, n_steps, fresh, net.schedule)
                parts.append(x.cpu())
            return {"x": torch.cat(parts)}

        spec = {"teacher": name, "prompts": [prompts[i] for i in numbers.tolist()], "first": numbers[0].item()}
        spec |= {"model": model, "null": net.null, "steps": n_steps, "w": w, "seed": seed, "sampler": sampler}
        spec |= {"bf16": net.bf16}
        parts.append(cached("pairs", spec, make, teacher_pairs)["x"])
    return Pairs(torch.cat(parts), prompts, model, seed)


def decoded(pairs: Pairs) -> Tensor:
    """What the teacher's decoder makes of pairs, uint8 (N, 3, R, R); kept in a cache."""
    model = pairs.model
    # the pipeline's fingerprint holds its own decoder, the network may have another
    spec = {"model": model, "decode": model.network.decode, "precision": current(), "x": pairs.x}
    make = lambda: {"image": torch.cat([model.pictures(z.float()).cpu() for z in pairs.x.split(64)])}  # noqa: E731
    return cached("decoded", spec, make, TextToImage)["image"]


class Remembered:
    """The teacher's decoder for the latents of pairs, which it has decoded once; others it decodes each time.

    Students that differ in one choice all meet the same pairs, and the large decoder takes longer than a student.
    Pictures (B, 3, R, R) are in [-1, 1] as everywhere, but of whole bytes.
    """

    def __init__(self, pairs: Pairs) -> None:
        self.decode = pairs.model.network.decode
        self._image = decoded(pairs)
        self.spec = {"model": pairs.model, "x": pairs.x}
        self._where = {key: number for number, key in enumerate(map(_bytes_of, pairs.x))}

    def __call__(self, z: Tensor) -> Tensor:
        places = [self._where.get(_bytes_of(latent)) for latent in z]
        if None in places:
            return self.decode(z)
        return to_unit(self._image[places].to(z.device))


def _bytes_of(z: Tensor) -> bytes:
    return z.cpu().half().numpy().tobytes()  # pairs are kept in half precision

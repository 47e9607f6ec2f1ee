"""Pictures for measurement: everybody starts from the same noise and the same classes."""

from collections.abc import Callable, Iterable

import torch
from torch import Tensor

from distill_lib.diffusion import noise
from distill_lib.diffusion.pixels import to_bytes
from distill_lib.diffusion.solvers import check_sampler, sample_by
from distill_lib.engine.precision import current
from distill_lib.engine.specs import spec_of
from distill_lib.engine.store import cached
from distill_lib.networks.adapter import Network, denoiser
from distill_lib.worlds.pictures import REAL, WORLDS, DatasetSpec, load, rendered_once
from distill_lib.worlds.seeds import held_out_seed

BATCH = 64
"""Samples in one call of a network while measuring (a guided pair holds twice as many rows)."""


def classes(n: int, n_classes: int) -> Tensor:
    """The classes of n samples, (n,): all of them in turn."""
    return torch.arange(n) % n_classes


def showcase(n_samples: int, n_classes: int, count: int) -> Tensor:
    """Numbers of `count` samples to show, (count,): spread over the classes, the same once every class is sampled.

    The stride has no factor in common with 96 = 4 shapes x 8 colours x 3 textures, so that it meets all of each.
    """
    return (5 + 37 * torch.arange(count)) % min(n_samples, n_classes)


def held_out(world: str, n: int, part: int = 0) -> Tensor:
    """Real pictures that no training has seen, uint8 (n, 3, R, R): of a world, or test pictures.

    Raises:
        ValueError: real data has fewer than (part + 1) n test pictures.
    """
    if world in REAL:
        image = load(DatasetSpec(name=world, split="test")).image
        if len(image) < (part + 1) * n:
            raise ValueError(f"{world} has {len(image)} test pictures; {part + 1} sets of samples={n} need more")
        mixed = torch.randperm(len(image), generator=torch.Generator().manual_seed(0))
        return image[mixed[part * n : (part + 1) * n]]
    return rendered_once(WORLDS[world], held_out_seed("measured", part), n)[0]


def check_strengths(ws: Iterable[float], w_max: float) -> None:
    """Refuse a guidance strength outside the range that a student was trained for.

    Raises:
        ValueError: names the strength and the range.
    """
    for w in ws:
        if not isinstance(w, int | float):
            raise ValueError(f"w={w!r} is not a number")
        if not 0 <= w <= w_max:
            raise ValueError(f"w={w} lies outside [0, {w_max}], the range that the student was trained for")


def check_steps(steps: Iterable[int], start: int) -> None:
    """Refuse a step count for which no student is distilled.

    Raises:
        ValueError: names the step count and those that are allowed.
    """
    allowed = [start >> i for i in range(1, start.bit_length())]
    for n_steps in steps:
        if n_steps not in allowed:
            raise ValueError(f"steps={n_steps}: students are distilled for {', '.join(map(str, allowed))} steps")


@torch.no_grad()
def in_batches(net: Network, n: int, draw: Callable[[Tensor], Tensor]) -> Tensor:
    """Pictures uint8 (n, 3, R, R) on the CPU of the data x that draw(index) gives for sample numbers (BATCH,)."""
    numbers = torch.arange(n, device=net.device).split(BATCH)
    return torch.cat([to_bytes(net.decode(draw(index))).cpu() for index in numbers])


def sample_pictures(
    net: Network, n_steps: int, w: float, label: Tensor, seed: int = 0, sampler: str = "ddim"
) -> Tensor:
    """Pictures uint8 (N, 3, R, R) by a sampler of `solvers.SAMPLERS` for classes (N,) or text states (N, L, D).

    A network that takes w is a student; any other is evaluated as a guided pair. Noise depends on nothing but the seed,
    a sample's number and the number of the draw, and z_T is the same for every sampler.

    Raises:
        ValueError: there is no such sampler.
    """
    return in_batches(net, len(label), _drawing(net, n_steps, w, label, seed, sampler))


def _drawing(
    net: Network, n_steps: int, w: float, label: Tensor, seed: int, sampler: str
) -> Callable[[Tensor], Tensor]:
    """The data x of the samples with the numbers index (B,)."""
    check_sampler(sampler)

    def draw(index: Tensor) -> Tensor:
        denoise = denoiser(net, label.to(index.device)[index], w)
        z_T = noise.normal(seed, "z_T", 0, index, net.shape)
        fresh = lambda i: noise.normal(seed, "fresh", i, index, net.shape)  # noqa: E731
        return sample_by(sampler, denoise, z_T, n_steps, fresh, net.schedule)

    return draw


def pictures_of(net: Network, n_steps: int, w: float, label: Tensor, seed: int = 0, sampler: str = "ddim") -> Tensor:
    """`sample_pictures`, kept in `runs/cache` by the weights and settings of the network and by all that it is told.

    Kept in parts of `BATCH`, so that two sets of one network whose labels begin alike share what is alike.
    """
    spec = {"net": spec_of(net), "steps": n_steps, "w": w, "seed": seed, "sampler": sampler, "bf16": net.bf16}
    spec |= {"precision": current()}  # of the decoder, whatever the network is told
    draw = _drawing(net, n_steps, w, label, seed, sampler)

    def part(first: int) -> Tensor:
        labels = label[first : first + BATCH]
        make = lambda: {"image": in_batches(net, len(labels), lambda index: draw(index + first))}  # noqa: E731
        return cached("pictures", spec | {"label": labels, "first": first}, make, pictures_of)["image"]

    return torch.cat([part(first) for first in range(0, len(label), BATCH)])


def samples_of(net: Network, n_steps: int, w: float, n: int, seed: int = 0, sampler: str = "ddim") -> Tensor:
    """`pictures_of` n samples of all classes in turn, uint8 (n, 3, R, R)."""
    return pictures_of(net, n_steps, w, classes(n, net.null), seed, sampler)

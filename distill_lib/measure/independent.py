"""Independent samples: classes drawn at random and noise of their own, kept in parts in a cache.

`draw.samples_of` takes the classes in turn and gives every method the same noise, so that methods are compared picture
by picture. A distance between two distributions needs the opposite: samples that are independent and identically
distributed, within a set and from one set to the other,

    label_i = floor(u_i C),    u_i uniform in (0, 1)                                                             (1)

Each stream ("student", "truth") has random numbers of its own, so a network that is measured against itself gets other
noise and other classes. Sample i depends on its number i and not on n: a set of m samples is the start of a set of n.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from distill_lib.diffusion import noise
from distill_lib.diffusion.solvers import check_sampler, sample_by
from distill_lib.engine.precision import current
from distill_lib.engine.specs import spec_of
from distill_lib.engine.store import cached
from distill_lib.measure.draw import in_batches
from distill_lib.networks.adapter import Network, denoiser

STREAMS = ("student", "truth")
_PART = 256  # samples kept in one file


@dataclass(frozen=True)
class Sampled:
    """A network and how it is sampled: steps, guidance strength, and a sampler of `solvers.SAMPLERS`."""

    net: Network
    n_steps: int
    w: float
    sampler: str = "ddim"


def labels(n: int, n_classes: int, seed: int = 0, stream: str = "student") -> Tensor:
    """(1): the classes of n independent samples, (n,)."""
    return _labels(torch.arange(n), n_classes, seed, stream)


def _labels(index: Tensor, n_classes: int, seed: int, stream: str) -> Tensor:
    u = noise.uniform(seed, f"{stream} label", 0, index, 1)[:, 0]
    return (u.double() * n_classes).long()


def independent_samples(sampled: Sampled, n: int, seed: int = 0, stream: str = "student") -> Tensor:
    """Pictures uint8 (n, 3, R, R) of a network of classes, of the classes `labels(n, net.null, seed, stream)`.

    Kept in `runs/cache` by all that tells the network from another one, decoder, grid and precision included.

    Raises:
        ValueError: no such stream or sampler.
    """
    check_sampler(sampled.sampler)
    if stream not in STREAMS:
        raise ValueError(f"stream={stream!r} is unknown; choose one of {', '.join(STREAMS)}")
    net = sampled.net
    spec = {"steps": sampled.n_steps, "w": sampled.w, "sampler": sampled.sampler}
    spec |= {"net": spec_of(net), "seed": seed, "stream": stream, "bf16": net.bf16}
    spec |= {"precision": current()}  # of the decoder, whatever the network is told

    def draw(index: Tensor) -> Tensor:
        denoise = denoiser(net, _labels(index.cpu(), net.null, seed, stream).to(index.device), sampled.w)
        z_T = noise.normal(seed, f"{stream} z_T", 0, index, net.shape)
        fresh = lambda i: noise.normal(seed, f"{stream} fresh", i, index, net.shape)  # noqa: E731
        return sample_by(sampled.sampler, denoise, z_T, sampled.n_steps, fresh, net.schedule)

    def part(start: int, count: int) -> Tensor:
        make = lambda: {"image": in_batches(net, count, lambda index: draw(index + start))}  # noqa: E731
        return cached("independent", spec | {"start": start, "count": count}, make, independent_samples)["image"]

    return torch.cat([part(start, min(_PART, n - start)) for start in range(0, n, _PART)])

"""Known damage to real pictures, by which a metric shows what it sees.

    blur(s)        a Gaussian of s pixels
    noise(s)       white noise of standard deviation s in [-1, 1], clipped
    colour(s)      s added to red and taken from blue, clipped
    dropped(s)     the share s of the classes never comes, and the others come more often
    copied(s)      the share s of the pictures are training pictures

Strength 0 leaves the pictures as they are. Blur, noise and colour damage each picture. `dropped` changes the
distribution only: each single picture is a real one. `copied` changes neither: a training picture is a real picture of
the world, and only a comparison with the training set finds it. Each is a function of (pool, n, strength) that gives
pictures uint8 (n, 3, R, R).
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from distill_lib.diffusion.noise import normal, uniform
from distill_lib.diffusion.pixels import to_bytes, to_unit
from distill_lib.measure.readers.common import degrade
from distill_lib.worlds.pictures import Pictures

_PART = 256


@dataclass(frozen=True)
class Pool:
    """Real pictures with their classes, more than are measured, and training pictures to copy from."""

    real: Pictures
    training: Tensor

    def first(self, n: int) -> Tensor:
        """The first n real pictures.

        Raises:
            ValueError: there are fewer.
        """
        if n > len(self.real):
            raise ValueError(f"n={n} pictures of a pool of {len(self.real)}; take fewer, or a larger pool")
        return self.real.image[:n]


def _degraded(image: Tensor, blur: float, grain: float) -> Tensor:
    parts = []
    for index in torch.arange(len(image)).split(_PART):
        x = to_unit(image[index])
        eps = normal(0, "corruption", 0, index, x.shape[1:])
        same = torch.ones(len(x))
        parts.append(to_bytes(degrade(x, blur * same, grain * same, eps)))
    return torch.cat(parts)


def blur(pool: Pool, n: int, strength: float) -> Tensor:
    """Blurred by a Gaussian of `strength` pixels, of which the kernel holds three on each side."""
    return _degraded(pool.first(n), strength, 0.0)


def noise(pool: Pool, n: int, strength: float) -> Tensor:
    """Overlaid with white noise of standard deviation `strength` in [-1, 1]."""
    return _degraded(pool.first(n), 0.0, strength)


def colour(pool: Pool, n: int, strength: float) -> Tensor:
    """`strength`, in [-1, 1], added to red and taken from blue."""
    shift = strength * torch.tensor([1.0, 0.0, -1.0])[:, None, None]
    return torch.cat([to_bytes(to_unit(part) + shift) for part in pool.first(n).split(_PART)])


def kept_classes(n_classes: int, strength: float) -> Tensor:
    """Classes that `dropped` keeps: all but round(strength n_classes) of them, which are drawn at random.

    The order of dropping is fixed: what is kept at a greater strength is kept at every smaller one.
    """
    order = uniform(0, "dropped classes", 0, torch.arange(n_classes), 1)[:, 0].argsort()
    return order[round(strength * n_classes) :].sort().values


def dropped(pool: Pool, n: int, strength: float) -> Tensor:
    """The first n real pictures of the classes that are kept.

    Raises:
        ValueError: the pool holds fewer.
    """
    pool.first(n)
    kept = kept_classes(len(pool.real.names), strength)
    index = torch.isin(pool.real.label, kept).nonzero()[:, 0]
    if len(index) < n:
        raise ValueError(f"{len(index)} pictures of the {len(kept)} classes that are kept, n={n}; take a larger pool")
    return pool.real.image[index[:n]]


def copied(pool: Pool, n: int, strength: float) -> Tensor:
    """The first round(strength n) of n real pictures, replaced by training pictures in order, repeated if too few."""
    count = round(strength * n)
    return torch.cat([pool.training[torch.arange(count) % len(pool.training)], pool.first(n)[count:]])


CORRUPTIONS: dict[str, Callable[[Pool, int, float], Tensor]] = {
    "blur": blur,
    "noise": noise,
    "colour": colour,
    "dropped": dropped,
    "copied": copied,
}
"""By the names that rows give them."""
STRENGTHS: dict[str, tuple[float, ...]] = {
    "blur": (0.3, 0.4, 0.5, 0.7),
    "noise": (0.02, 0.04, 0.08, 0.16),
    "colour": (0.02, 0.04, 0.08, 0.16),
    "dropped": (0.1, 0.2, 0.3, 0.5),
    "copied": (0.1, 0.25, 0.5, 1.0),
}
"""With which each is tried: from damage that a viewer hardly notices to damage that is obvious; of the classes, from a
tenth to a half."""

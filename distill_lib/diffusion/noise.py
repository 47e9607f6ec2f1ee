"""Counted randomness: every draw is a function of (seed, stream, step, sample index), of nothing else.

A run that is resumed, split over processes or given another batch split meets the same numbers, because no state
is carried from one draw to the next. Each sample has a key, and its j-th 64-bit word is

    word_j = mix(key + (j + 1) * GOLDEN),     key = mix(mix(mix(mix(seed) + stream) + step) + index)          (1)

where `mix` is the finaliser of SplitMix64 (Steele, Lea, Flood 2014, "Fast splittable pseudorandom number
generators"). A word's two 32-bit halves give two uniforms, and by Box and Muller (1958) two normals. The integer part
is exact on every device, so a GPU run starts from the same noise as a CPU run.
"""

import hashlib
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

_GOLDEN = 0x9E3779B97F4A7C15 - 2**64  # as a signed 64-bit integer: torch's int64 arithmetic wraps modulo 2**64
_MUL_1 = 0xBF58476D1CE4E5B9 - 2**64
_MUL_2 = 0x94D049BB133111EB - 2**64


def sample_keys(seed: int, stream: str, step: int, index: Tensor) -> Tensor:
    """Keys of the samples `index` at `step` of a named stream: the nested mix of (1).

    Args:
        seed: run seed.
        stream: what the draw is for ("eps", "t", "scene", ...); streams never share numbers.
        step: training step, 0 where there is none.
        index: sample indices, (B,), int64.

    Returns:
        Keys, (B,), int64.
    """
    name = int.from_bytes(hashlib.blake2b(stream.encode(), digest_size=8).digest(), "big", signed=True)
    key = torch.zeros_like(index)
    for part in (seed, name, step, index):
        key = _mix(key + part)
    return key


def words(keys: Tensor, n: int) -> Tensor:
    """The first n random words of each key, (B, n), int64."""
    counter = torch.arange(1, n + 1, device=keys.device) * _GOLDEN
    return _mix(keys[:, None] + counter)


def uniform(seed: int, stream: str, step: int, index: Tensor, n: int) -> Tensor:
    """Uniform draws in (0, 1), (B, n), float32; see `sample_keys` for the arguments."""
    low, high = _halves(words(sample_keys(seed, stream, step, index), (n + 1) // 2))
    return torch.stack([low, high], 2).flatten(1)[:, :n].float()


def normal(seed: int, stream: str, step: int, index: Tensor, shape: Sequence[int]) -> Tensor:
    """Standard normal draws, (B, *shape), float32; see `sample_keys` for the arguments."""
    n = math.prod(shape)
    low, high = _halves(words(sample_keys(seed, stream, step, index), (n + 1) // 2))
    radius, angle = (-2 * low.log()).sqrt(), 2 * math.pi * high
    both = torch.cat([radius * angle.cos(), radius * angle.sin()], 1)
    return both[:, :n].reshape(len(index), *shape)


def _halves(word: Tensor) -> tuple[Tensor, Tensor]:
    """Lower 23 bits of each 32-bit half as uniforms in (0, 1): exact in float32, never 0 or 1."""
    scale, mask = 2.0**-23, 2**23 - 1
    return (((word & mask).float() + 0.5) * scale, (((word >> 32) & mask).float() + 0.5) * scale)


def _mix(z: Tensor) -> Tensor:
    z = (z ^ _shift_right(z, 30)) * _MUL_1
    z = (z ^ _shift_right(z, 27)) * _MUL_2
    return z ^ _shift_right(z, 31)


def _shift_right(z: Tensor, n: int) -> Tensor:
    """Logical shift: torch's >> keeps the sign."""
    return (z >> n) & ((1 << (64 - n)) - 1)


@dataclass(frozen=True)
class Draws:
    """Counted draws for the samples `index` (B,) of one training step."""

    seed: int
    step: int
    index: Tensor

    def normal(self, stream: str, shape: Iterable[int]) -> Tensor:
        """Standard normal, (B, *shape)."""
        return normal(self.seed, stream, self.step, self.index, tuple(shape))

    def uniform(self, stream: str) -> Tensor:
        """Uniform in (0, 1), (B,)."""
        return uniform(self.seed, stream, self.step, self.index, 1)[:, 0]

    def integer(self, stream: str, high: int) -> Tensor:
        """Uniform integers in [0, high), (B,)."""
        return (uniform(self.seed, stream, self.step, self.index, 1)[:, 0].double() * high).long()

"""Pictures as bytes, as numbers in [-1, 1], and as patches of 2 x 2 pixels."""

import torch
from torch import Tensor
from torch.nn.functional import pixel_shuffle, pixel_unshuffle


def to_patches(image: Tensor) -> Tensor:
    """(B, 3, R, R) -> (B, 12, R/2, R/2)."""
    return pixel_unshuffle(image, 2)


def from_patches(x: Tensor) -> Tensor:
    """(B, 12, R/2, R/2) -> (B, 3, R, R)."""
    return pixel_shuffle(x, 2)


def to_bytes(image: Tensor) -> Tensor:
    """Pictures (N, *D) in [-1, 1] clipped and rounded to uint8, as they would be saved.

    Raises:
        ValueError: a picture holds a number that is not finite: as bytes it would be black, and alike.
    """
    return (finite(image, "pictures").clamp(-1, 1) * 127.5 + 127.5).round().to(torch.uint8)


def finite(values: Tensor, name: str) -> Tensor:
    """What is measured, (N, *D), as it is; bytes always pass.

    Raises:
        ValueError: one of the N holds a number that is not finite.
    """
    if values.is_floating_point() and not values.sum().isfinite():  # a sum that overflows says nothing
        bad = (~values.reshape(len(values), -1).isfinite()).any(1).sum().item()
        if bad:
            raise ValueError(
                f"{bad} of {len(values)} {name} hold numbers that are not finite, which no metric can read; look for "
                "the network or the grid that they come from"
            )
    return values


def to_unit(image: Tensor) -> Tensor:
    """Pictures of bytes 0 to 255 -> numbers in [-1, 1], float32."""
    return image.float() / 127.5 - 1

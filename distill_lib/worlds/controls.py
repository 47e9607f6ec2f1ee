"""Control maps: what a ControlNet is shown of a picture, in [0, 1] as diffusers shows it.

    edges     1 on an edge of the picture (`canny`), else 0                    (N, 1, R, R)
    depth     1 - distance / 12: near is light, the horizon is black           (N, 1, R, R)
    coarse    the picture of a quarter of the side, enlarged again             (N, 3, R, R)

The first two are those of SDXS (Song et al. 2024, arXiv 2403.16627, Fig. 8); the third turns the very same code into
super-resolution, which that paper leaves to future work. A map can be drawn by hand: `read_map`.
"""

from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn.functional import avg_pool2d, interpolate

from distill_lib.canny import canny

__all__ = [
    "FACTOR",
    "KINDS",
    "as_picture",
    "check_kind",
    "coarse_map",
    "control_map",
    "depth_map",
    "edge_map",
    "read_map",
]

KINDS = ("edges", "depth", "coarse")
FACTOR = 4
"""How many times smaller the side of a picture is before it is enlarged again."""
_FAR = 12.0  # the scenes' largest depth


def edge_map(image: Tensor) -> Tensor:
    """Edges of pictures uint8 (N, 3, R, R), 0 or 1, (N, 1, R, R)."""
    return torch.cat([canny(part) for part in image.split(256)]).float()[:, None]


def depth_map(depth: Tensor) -> Tensor:
    """Map (N, 1, R, R) of distances (N, R, R) in scene units."""
    return (1 - depth.float()[:, None] / _FAR).clamp(0, 1)


def coarse_map(image: Tensor) -> Tensor:
    """Pictures uint8 (N, 3, R, R) averaged over squares of FACTOR pixels and enlarged by cubic interpolation."""
    small = avg_pool2d(image.float() / 255, FACTOR)
    return interpolate(small, scale_factor=FACTOR, mode="bicubic", align_corners=False).clamp(0, 1)


def control_map(kind: str, image: Tensor, depth: Tensor) -> Tensor:
    """The map of a kind, (N, C, R, R), of pictures uint8 (N, 3, R, R) and their distances (N, R, R).

    Raises:
        ValueError: the kind is unknown.
    """
    check_kind(kind)
    if kind == "depth":
        return depth_map(depth)
    return edge_map(image) if kind == "edges" else coarse_map(image)


def check_kind(kind: str) -> None:
    """Refuse a kind of map that there is not.

    Raises:
        ValueError: names it and those that there are.
    """
    if kind not in KINDS:
        raise ValueError(f"control={kind!r} is unknown; choose one of {', '.join(KINDS)}")


def as_picture(seen: Tensor) -> Tensor:
    """Maps (N, C, R, R) in [0, 1] as pictures uint8 (N, 3, R, R)."""
    return (seen.float() * 255).round().to(torch.uint8).expand(-1, 3, -1, -1).contiguous()


def read_map(path: str | Path, side: int, kind: str = "edges") -> Tensor:
    """A map (1, C, side, side) of any picture file of the right size: white is an edge, or near.

    Raises:
        ValueError: the kind is unknown, the file is no picture, or its size is another.
    """
    check_kind(kind)
    try:
        picture = Image.open(path).convert("RGB" if kind == "coarse" else "L")
    except OSError as error:
        raise ValueError(f"{path} is no readable picture: {error}; save the control as a PNG file") from error
    if picture.size != (side, side):
        width, height = picture.size
        raise ValueError(f"{path} has {width} x {height} pixels, but a control has to have {side} x {side}; resize it")
    pixels = torch.from_numpy(np.array(picture)).float() / 255
    return pixels.reshape(side, side, -1).movedim(2, 0)[None]

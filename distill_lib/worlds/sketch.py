"""The second look of the world: a line-and-tone drawing in ink and coloured pencil of what the rays have met.

    ink around a solid, and where its normal turns by more than 40 degrees                                (outlines)
    ink on one diagonal in `_PERIOD` where the light falls below 0.55, on both diagonals below 0.2      (tone)
    paper mixed with the surface's colour, evenly, without light or shadow                               (tint)

The photo's light is thereby told by lines, its colours and patterns by tint, its outlines by ink: a style transfer has
to redraw every pixel and may keep every shape.
"""

import math

import torch
from torch import Tensor

__all__ = ["sketch"]

_INK, _PAPER = (0.13, 0.12, 0.18), (0.97, 0.96, 0.92)
_PERIOD = 8  # rays between two lines of a hatching: 4 pixels at 2 x 2 rays a pixel
_TINT = 0.75  # of pencil on solids; half of it on the floor


def sketch(albedo: Tensor, lambert: Tensor, normal: Tensor, owner: Tensor, n: int) -> Tensor:
    """Colours (B, n * n, 3) in [0, 1].

    Args:
        albedo: surface colours, (B, n * n, 3).
        lambert: light that arrives, in [0, 1], (B, n * n).
        normal: surface normals, (B, n * n, 3).
        owner: what each ray has hit, (B, n * n): a solid's number, -1 the floor, -2 nothing.
        n: rays along a side of the picture.
    """
    paper, ink = torch.tensor(_PAPER), torch.tensor(_INK)
    tint = torch.where(owner >= 0, _TINT, torch.where(owner == -1, _TINT / 2, 0.0))[..., None]
    color = paper * (1 - tint) + albedo * tint
    y, x = torch.meshgrid(torch.arange(n), torch.arange(n), indexing="ij")
    down, up = ((x + y) % _PERIOD < 2).flatten(), ((x - y) % _PERIOD < 2).flatten()
    tone = (owner > -2) & (((lambert < 0.55) & down) | ((lambert < 0.2) & up))
    color = torch.where(tone[..., None], color * 0.35 + ink * 0.65, color)
    line = _outline(owner.reshape(-1, n, n), normal.reshape(-1, n, n, 3)).flatten(1)
    return torch.where(line[..., None], ink, color)


def _outline(owner: Tensor, normal: Tensor) -> Tensor:
    """Rays at an edge of a solid, (B, n, n): a neighbour has hit something else, or a face turned by 40 degrees."""
    edge = torch.zeros_like(owner, dtype=torch.bool)
    for axis in (1, 2):
        near, far = (owner.narrow(axis, k, owner.shape[axis] - 1) for k in (0, 1))
        a, b = (normal.narrow(axis, k, owner.shape[axis] - 1) for k in (0, 1))
        turned = (near == far) & (near >= 0) & ((a * b).sum(3) < math.cos(math.radians(40)))
        differs = ((near != far) & (torch.maximum(near, far) >= 0)) | turned
        for k in (0, 1):  # a line two rays wide is one pixel wide
            edge.narrow(axis, k, owner.shape[axis] - 1).logical_or_(differs)
    return edge

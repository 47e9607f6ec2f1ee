"""The other two looks of the world: a drawing in ink and coloured pencil, and solids kneaded of clay.

The drawing is made of what the rays have met:

    ink around a solid, and where its normal turns by more than 40 degrees                                (outlines)
    ink on one diagonal in `_PERIOD` where the light falls below 0.55, on both diagonals below 0.2      (tone)
    paper mixed with the surface's colour, evenly, without light or shadow                               (tint)

Lines are `stroke` pixels wide, at two rays a pixel, and hatchings as much coarser.

The photo's light is thereby given by lines, its colours and patterns by tint, its outlines by ink: a style transfer has
to redraw every pixel and may keep every shape.

Clay, on a table and before a wall of bare clay:

    wrap   = (1 + n l) / 2            light that reaches round a solid; nothing casts a shadow or shines        (light)
    rim    = 1 - (1 - facing)^2       a solid is darker where it turns away from the camera                     (edges)
    colour = (surface's colour mixed with clay) x (dark + (1 - dark) wrap) x (shade + (1 - shade) rim)          (solids)

The photo's sky, its tiles, its shadows and its highlights are gone; shapes, colours and patterns stay where they were.
"""

import math

import torch
from torch import Tensor
from torch.nn.functional import max_pool2d

_INK, _PAPER = (0.13, 0.12, 0.18), (0.97, 0.96, 0.92)
_PERIOD = 8  # rays between two lines of a hatching: 4 pixels at 2 x 2 rays a pixel
_TINT = 0.75  # of pencil on solids; half of it on the floor


def sketch(albedo: Tensor, lambert: Tensor, normal: Tensor, owner: Tensor, n: int, stroke: int = 1) -> Tensor:
    """Colours (B, n * n, 3) in [0, 1].

    Args:
        albedo: surface colours, (B, n * n, 3).
        lambert: light that arrives, in [0, 1], (B, n * n).
        normal: surface normals, (B, n * n, 3).
        owner: what each ray has hit, (B, n * n): a solid's number, -1 the floor, -2 nothing.
        n: rays along a side of the picture.
        stroke: width of a line.
    """
    paper, ink = torch.tensor(_PAPER), torch.tensor(_INK)
    tint = torch.where(owner >= 0, _TINT, torch.where(owner == -1, _TINT / 2, 0.0))[..., None]
    color = paper * (1 - tint) + albedo * tint
    y, x = torch.meshgrid(torch.arange(n), torch.arange(n), indexing="ij")
    period, wide = _PERIOD * stroke, 2 * stroke
    down, up = ((x + y) % period < wide).flatten(), ((x - y) % period < wide).flatten()
    tone = (owner > -2) & (((lambert < 0.55) & down) | ((lambert < 0.2) & up))
    color = torch.where(tone[..., None], color * 0.35 + ink * 0.65, color)
    line = _outline(owner.reshape(-1, n, n), normal.reshape(-1, n, n, 3))
    if stroke > 1:
        line = max_pool2d(line[:, None].float(), 2 * stroke - 1, 1, stroke - 1)[:, 0] > 0
    line = line.flatten(1)
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


_WALL, _TABLE = (0.88, 0.66, 0.54), (0.68, 0.56, 0.48)
_MIXED = 0.2  # of bare clay in a surface's colour
_DARK, _SHADE = 0.45, 0.35  # what is left where no light comes, and at a rim


def clay(albedo: Tensor, normal: Tensor, toward_light: Tensor, facing: Tensor, owner: Tensor) -> Tensor:
    """Colours (B, R, 3) in [0, 1] of R rays a picture.

    Args:
        albedo: surface colours, (B, R, 3).
        normal: surface normals, (B, R, 3).
        toward_light: unit direction of the light, (B, 1, 3).
        facing: cosine between the normal and the way back to the camera, in [0, 1], (B, R).
        owner: what each ray has hit, (B, R): a solid's number, -1 the floor, -2 nothing.
    """
    wall, table = torch.tensor(_WALL), torch.tensor(_TABLE)
    wrap = (1 + (normal * toward_light).sum(2)) / 2
    rim = 1 - (1 - facing).square()
    light = (_DARK + (1 - _DARK) * wrap) * (_SHADE + (1 - _SHADE) * rim)
    solid = (albedo * (1 - _MIXED) + wall * _MIXED) * light[..., None]
    bare = torch.where((owner == -1)[..., None], table, wall.expand_as(albedo))
    return torch.where((owner >= 0)[..., None], solid, bare).clamp(0, 1)

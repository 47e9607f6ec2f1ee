"""The third look of the world: solids kneaded of coloured clay, on a table and before a wall of bare clay.

    wrap   = (1 + n l) / 2            light that reaches round a solid; nothing casts a shadow or shines        (light)
    rim    = 1 - (1 - facing)^2       a solid is darker where it turns away from the camera                     (edges)
    colour = (surface's colour mixed with clay) x (dark + (1 - dark) wrap) x (shade + (1 - shade) rim)          (solids)

The photo's sky, its tiles, its shadows and its highlights are gone; shapes, colours and patterns stay where they were.
"""

import torch
from torch import Tensor

__all__ = ["clay"]

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

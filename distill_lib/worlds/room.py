"""The room of the world `studio`: its camera, its wall with a poster, and four kinds of floor, in closed form.

    wall      the plane z = WALL, of one colour; it fills the picture above the floor
    poster    7 x 9 cells of `CELL` on the wall; the inner 5 x 7 are a glyph, the cells at its border stay empty
    floor     plain | tiles (a checkerboard) | planks (boards that run away from the camera) | rings (about a point)
    box       the smallest upright rectangle of the picture around the corners of a solid's bounding box         (1)

The highest solid at the farthest place ends below the poster's lower edge, so that no solid hides a part of it.
"""

import math

import torch
from torch import Tensor

from distill_lib.worlds import rays
from distill_lib.worlds.glyphs import GLYPHS

VIEW = rays.View((0.0, 2.0, -5.0), (0.0, 0.75, 0.6), math.tan(math.radians(17)))
WALL = 2.0
"""Depth of the wall."""
CELL = 0.15
"""Side of a cell of a glyph; 2.3 pixels of 64."""
POSTER = (7 * CELL, 9 * CELL)
"""Width and height of the poster."""
POSTER_BOTTOM = 1.09
"""Height of the lowest poster's lower edge; from there up it moves by no more than `POSTER_LIFT`."""
POSTER_LIFT = 0.05
FLOORS = ("plain", "tiles", "planks", "rings")
_DARK = 0.62  # of a floor's brightness where its pattern is dark


def boxes(x: Tensor, z: Tensor, radius: Tensor, height: Tensor) -> Tensor:
    """(1) of upright solids at floor coordinates (B, K): left, right, bottom, top in half pictures, (B, K, 4)."""
    camera, right, up, forward = rays.view_axes(VIEW)
    corners = [
        torch.stack([x + a * radius, (h * height).expand_as(x), z + b * radius], -1)
        for a in (-1, 1)
        for b in (-1, 1)
        for h in (0, 1)
    ]
    offset = torch.stack(corners) - camera
    ahead = (offset * forward).sum(-1) * VIEW.half
    u, v = (offset * right).sum(-1) / ahead, (offset * up).sum(-1) / ahead
    return torch.stack([u.amin(0), u.amax(0), v.amin(0), v.amax(0)], -1)


def disjoint(box: Tensor, other: Tensor, margin: float) -> Tensor:
    """Whether two rectangles (.., 4) of `boxes` are at least `margin` apart, across or upwards."""
    gaps = [box[..., 0] - other[..., 1], other[..., 0] - box[..., 1]]
    gaps += [box[..., 2] - other[..., 3], other[..., 2] - box[..., 3]]
    return torch.stack(gaps).amax(0) > margin


def shell(origin: Tensor, direction: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Where rays meet floor or wall: t (B, R), the normal (B, R, 3), and the owner, -1 the floor and -2 the wall."""
    t_floor, normal, owner = rays.floor(origin, direction)
    ahead = direction[..., 2]
    t_wall = torch.where(ahead > 0, (WALL - origin[..., 2]) / ahead, rays.FAR)
    wall = t_wall < t_floor
    facing = torch.tensor([0.0, 0.0, -1.0]).expand_as(direction)
    normal = torch.where(wall[..., None], facing, normal)
    return torch.minimum(t_wall, t_floor), normal, torch.where(wall, -2, owner)


def floor_pattern(point: Tensor, kind: Tensor, frame: Tensor) -> Tensor:
    """Factor of the floor's brightness at points (B, R, 3): 1, or `_DARK` where the pattern is dark.

    Args:
        kind: of `FLOORS`, (B, 1).
        frame: turn in radians, and the pattern's phases across and away in periods, (B, 3).
    """
    turn, across, away = frame[:, :1], frame[:, 1:2], frame[:, 2:]
    x, z = point[..., 0], point[..., 2]
    u, v = turn.cos() * x + turn.sin() * z, turn.cos() * z - turn.sin() * x
    tiles = ((u / 0.5 + across).floor() + (v / 0.5 + away).floor()) % 2 == 0
    planks = (u / 0.34 + across).floor() % 2 == 0
    rings = ((x - 1.2 * (across - 0.5)).hypot(z - 0.8 * (away - 0.5)) / 0.3).floor() % 2 == 0
    dark = torch.where(kind == 1, tiles, torch.where(kind == 2, planks, (kind == 3) & rings))
    return torch.where(dark, _DARK, 1.0)


def on_poster(point: Tensor, owner: Tensor, corner: Tensor, glyph: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Which points (B, R, 3) lie on the poster, in ink of its glyph, and on a rim around it, bool (B, R) each.

    Args:
        owner: as `shell`; a point of a solid lies on no poster.
        corner: x and y of the poster's lower left corner, (B, 2).
        glyph: number of the glyph, (B, 1).
    """
    u, v = ((point[..., i] - corner[:, i : i + 1]) / CELL for i in (0, 1))
    wall = owner == -2
    on = wall & (u > 0) & (u < 7) & (v > 0) & (v < 9)
    rim = wall & ~on & (u > -1) & (u < 8) & (v > -1) & (v < 10)
    column, row = (u.floor().long() - 1), (7 - v.floor().long())
    inside = on & (column >= 0) & (column < 5) & (row >= 0) & (row < 7)
    cell = GLYPHS[glyph.expand_as(row), row.clamp(0, 6), column.clamp(0, 4)]
    return on, inside & cell, rim

"""The world `studio`: two named solids in a room, and detail that no caption names and no mean can draw.

A caption names of both solids one of 6 shapes, 12 colours and 5 textures, and how they stand:

    relation 0     left and right: at least `ACROSS` apart across, at most half of that in depth
    relation 1     front and back: at least `DEPTH` apart in depth, at most half of that across

Not named, and discrete: which of ten glyphs the poster on the wall shows, which of four kinds the floor is (`room`),
and whether each of three small solids of clutter is there, of any shape and colour.

Clutter stands where it meets nothing and hides nothing: circles around all bases keep a distance, and in the picture
the box (`room.boxes`) around a solid of clutter is apart from the boxes of all other solids. Of `_TRIES` places the
first one that obeys is taken; clutter for which none does is left out. A solid in front hides at most a part of the
one behind, the poster hangs above all of them.

Solids are those of `worlds.scenes`, with two more:

    pyramid    max(|x|, |z|) = .9 (1 - y / 1.8), 0 < y < 1.8          hemisphere    x^2 + y^2 + z^2 = 1, y > 0
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d, normalize

from distill_lib.diffusion.noise import uniform
from distill_lib.worlds import rays, room
from distill_lib.worlds.glyphs import GLYPHS
from distill_lib.worlds.looks import clay, sketch
from distill_lib.worlds.scenes import LOOKS, Rendered, Scenes, SceneSpec, class_names, draw_scenes, intersect, render

SHAPES = ("sphere", "cube", "cylinder", "cone", "pyramid", "hemisphere")
COLORS = {
    "red": (0.86, 0.10, 0.12),
    "orange": (0.98, 0.50, 0.05),
    "yellow": (0.98, 0.88, 0.12),
    "lime": (0.62, 0.92, 0.18),
    "green": (0.08, 0.52, 0.18),
    "cyan": (0.20, 0.82, 0.88),
    "blue": (0.12, 0.24, 0.86),
    "purple": (0.48, 0.14, 0.70),
    "magenta": (0.86, 0.06, 0.56),
    "pink": (1.00, 0.62, 0.78),
    "white": (0.98, 0.98, 0.98),
    "black": (0.07, 0.07, 0.08),
}
TEXTURES = ("plain", "striped", "ribbed", "checked", "dotted")
ACROSS, DEPTH = 1.0, 1.3
"""Least distance of two solids side by side, and of two of which one stands behind the other."""
CLUTTER = 3
_TRIES, _KEPT = 16, 0.75  # places tried for each solid of clutter, and how often there is one
_APART = 0.02  # of half a picture, between boxes
_FRAME = 0.97  # of half a picture: what is beyond touches the edge
_SIZES = torch.tensor((0.40, 0.41, 0.44, 0.45, 0.42, 0.50))  # by shape, so that all look alike in size
_RADIUS, _HEIGHT = torch.tensor(rays.HALF_WIDTH), torch.tensor(rays.HEIGHT)


@dataclass(frozen=True, kw_only=True)
class StudioSpec(SceneSpec):
    """What is drawn: always two named solids and at most three of clutter, in one of LOOKS."""

    resolution: int = 64
    objects: int = 2
    clutter: int = CLUTTER


@dataclass
class StudioScenes(Scenes):
    """A batch of B scenes of 2 + 3 solids, the named first, with wall, poster and kind of floor.

    `background` is the wall's colour; `tile_rotation` and `tile_phase` are the floor pattern's.
    """

    glyph: Tensor  # (B, 1) which of room.GLYPHS
    floor_kind: Tensor  # (B, 1) which of room.FLOORS
    poster: Tensor  # (B, 2) x and y of its lower left corner
    paper: Tensor  # (B, 3) colour
    ink: Tensor  # (B, 3) colour

    def labels(self, spec: SceneSpec) -> Tensor:
        """Class of the first solid, (B,): shape x colour x texture."""
        return (self.shape[:, 0] * len(COLORS) + self.color[:, 0]) * len(TEXTURES) + self.texture[:, 0]

    @property
    def relation(self) -> Tensor:
        """1 where one of the named solids stands behind the other, 0 where they stand side by side, (B,)."""
        apart = (self.position[:, 0] - self.position[:, 1]).abs()
        return (apart[:, 1] > apart[:, 0]).long()

    @property
    def swapped(self) -> Tensor:
        """Whether the second named solid is the left one, or the one in front, bool (B,)."""
        first, second = self.position[:, 0], self.position[:, 1]
        return torch.where(self.relation == 1, first[:, 1] > second[:, 1], first[:, 0] > second[:, 0])


@class_names.register
def _(spec: StudioSpec) -> list[str]:
    return [f"{t} {c} {s}" for s in SHAPES for c in COLORS for t in TEXTURES]


@draw_scenes.register
def _(spec: StudioSpec, seed: int, index: Tensor) -> StudioScenes:
    if spec.look not in LOOKS:
        raise ValueError(f"look={spec.look!r}: the world is drawn as {', '.join(LOOKS)}")
    if (spec.objects, spec.clutter) != (2, CLUTTER):
        raise ValueError(f"the studio has 2 named objects and up to {CLUTTER} of clutter; leave both as they are")
    k = 2 + CLUTTER
    columns = iter(uniform(seed, "studio", 0, index, 10 * k + 24 + 2 * CLUTTER * _TRIES).T)

    def draw(n: int) -> Tensor:
        return torch.stack([next(columns) for _ in range(n)], 1)

    def choose(n: int, kinds: int) -> Tensor:
        return (draw(n) * kinds).long()

    shape, color, texture = choose(k, len(SHAPES)), choose(k, len(COLORS)), choose(k, len(TEXTURES))
    small = torch.arange(k) >= 2
    texture = texture.masked_fill(small, 0)
    size = _SIZES[shape] * torch.where(small, 0.30 + 0.10 * draw(k), 0.90 + 0.20 * draw(k))
    radius, height = _RADIUS[shape] * size, _HEIGHT[shape] * size
    x, z = _named(draw(5), radius[:, :2].sum(1, keepdim=True))
    x, z, present = _with_clutter(
        x, z, (radius, height), draw(k) < _KEPT, draw(2 * CLUTTER * _TRIES).unflatten(1, (CLUTTER, _TRIES, 2))
    )
    palette, jitter = torch.tensor(list(COLORS.values())), draw(3 * k).unflatten(1, (k, 3)) - 0.5
    poster = torch.cat([-1.72 + 2.39 * draw(1), room.POSTER_BOTTOM + room.POSTER_LIFT * draw(1)], 1)
    return StudioScenes(
        shape=shape,
        color=color,
        texture=texture,
        present=present,
        position=torch.stack([x, z], 2),
        size=size,
        rotation=draw(k) * 2 * math.pi,
        albedo=(palette[color] + 0.05 * jitter).clamp(0, 1),
        frequency=torch.where(shape == 5, 3.0, 2.2) + 0.4 * draw(1),
        light=(draw(1) - 0.5) * 1.6,
        floor=0.58 + 0.2 * draw(1),
        background=0.45 + 0.3 * draw(3),
        tile_scale=torch.ones(len(index), 1),
        tile_rotation=0.5 * (draw(1) - 0.5),
        tile_phase=draw(2),
        glyph=choose(1, len(GLYPHS)),
        floor_kind=choose(1, len(room.FLOORS)),
        poster=poster,
        paper=0.86 + 0.14 * draw(3),
        ink=0.22 * draw(3),
    )


def _named(u: Tensor, reach: Tensor) -> tuple[Tensor, Tensor]:
    """Floor coordinates (B, 2) of the named solids from five uniform numbers, the left one or the front one first.

    `reach` (B, 1) is the sum of their radii, below `DEPTH` for all of them.
    """
    behind, side = u[:, :1] < 0.5, torch.where(u[:, 1:2] < 0.5, -1.0, 1.0)
    away, shift, spread = u[:, 2:3], u[:, 3:4] - 0.5, u[:, 4:5]
    across = torch.maximum(ACROSS + 0.25 * spread, 1.03 * reach)
    left_right = torch.cat([-across, across], 1) / 2 + 0.24 * shift
    row = -0.55 + 0.8 * away + torch.cat([-shift, shift], 1) * 0.3
    offset = side * (0.54 + 0.10 * spread)
    front_back = torch.cat([-offset, offset], 1) / 2 + 0.4 * shift
    depth = torch.cat([-0.85 + 0.15 * away, 0.60 + 0.30 * spread], 1)
    return torch.where(behind, front_back, left_right), torch.where(behind, depth, row)


def _with_clutter(
    x: Tensor, z: Tensor, extent: tuple[Tensor, Tensor], wanted: Tensor, u: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Coordinates (B, K) of named solids at x and z (B, 2) and of clutter, and which solids are there, bool (B, K).

    Args:
        extent: radius and height of all solids, (B, K) each.
        wanted: clutter that is there if it finds a place, bool (B, K).
        u: uniform numbers behind the places tried, (B, CLUTTER, _TRIES, 2).
    """
    (radius, height), present = extent, torch.ones(len(x), 2, dtype=torch.bool)
    for i in range(CLUTTER):
        r, h = radius[:, 2 + i : 3 + i], height[:, 2 + i : 3 + i]
        try_z = -1.05 + 2.75 * u[:, i, :, 0]
        try_x = (2 * u[:, i, :, 1] - 1) * 1.9
        box = room.boxes(try_x, try_z, r, h)  # (B, _TRIES, 4)
        good = (box[..., :2].abs().amax(-1) < _FRAME) & (box[..., 2] > -_FRAME)
        standing = room.boxes(x, z, radius[:, : x.shape[1]], height[:, : x.shape[1]])
        for j in range(x.shape[1]):
            gap = (try_x - x[:, j : j + 1]).hypot(try_z - z[:, j : j + 1]) - 1.05 * (r + radius[:, j : j + 1])
            free = (gap > 0) & room.disjoint(box, standing[:, j : j + 1], _APART)
            good &= free | ~present[:, j : j + 1]
        first = good.float().argmax(1, keepdim=True)
        x, z = torch.cat([x, try_x.gather(1, first)], 1), torch.cat([z, try_z.gather(1, first)], 1)
        present = torch.cat([present, (good.any(1) & wanted[:, 2 + i])[:, None]], 1)
    return x, z, present


@render.register
def _(scenes: StudioScenes, spec: StudioSpec) -> Rendered:
    (b, k), n = scenes.shape.shape, spec.resolution * spec.supersample
    origin, direction = rays.from_camera(n, room.VIEW)
    origin, direction = origin.expand(b, 1, 3), direction.expand(b, -1, 3)
    t, normal, owner = room.shell(origin, direction)
    for i in range(k):
        t_i, normal_i = intersect(scenes, i, origin, direction)
        nearer = t_i < t
        t, owner = torch.where(nearer, t_i, t), torch.where(nearer, i, owner)
        normal = torch.where(nearer[..., None], normal_i, normal)
    point = origin + direction * t[..., None]

    light = torch.cat([0.7 * scenes.light.sin(), torch.full((b, 1), 1.0), -0.8 * scenes.light.cos()], 1)
    light = normalize(light, dim=1)[:, None]
    shadow = torch.zeros_like(owner, dtype=torch.bool)
    for i in range(k):
        shadow |= intersect(scenes, i, point + 1e-2 * normal, light.expand_as(point))[0] < rays.FAR
    lambert = (normal * light).sum(2).clamp(min=0) * ~shadow

    albedo = _albedo(scenes, point, owner)
    on, inked, rim = room.on_poster(point, owner, scenes.poster, scenes.glyph)
    if spec.look == "sketch":
        color = sketch(albedo, lambert, normal, owner, n, 2)
        color = _poster(color, (on, inked | rim), albedo.new_tensor([0.97, 0.96, 0.92]), albedo.new_tensor([0.13] * 3))
    elif spec.look == "clay":
        facing = -(normal * direction).sum(2).clamp(max=0)
        color = clay(albedo, normal, light, facing, owner)
        color = _poster(color, (on, inked), albedo.new_tensor([0.95, 0.78, 0.67]), albedo.new_tensor([0.42, 0.27, 0.2]))
    else:
        half = normalize(light - direction, dim=2)
        shine = (normal * half).sum(2).clamp(min=0) ** 40 * (~shadow & (owner >= 0))
        albedo = _poster(albedo, (on, inked), scenes.paper[:, None], scenes.ink[:, None])
        color = (albedo * (0.45 + 0.62 * lambert)[..., None] + 0.25 * shine[..., None]).clamp(0, 1)
    masks = torch.stack([(owner == i).float() for i in range(k)], 2)
    layers = torch.cat([2 * color - 1, t.clamp(max=rays.HORIZON)[..., None], masks], 2)
    layers = avg_pool2d(layers.movedim(1, 2).reshape(b, 4 + k, n, n), spec.supersample)
    return Rendered(layers[:, :3], layers[:, 3:4], layers[:, 4:])


def _poster(color: Tensor, where: tuple[Tensor, Tensor], paper: Tensor, ink: Tensor) -> Tensor:
    """Colours (B, R, 3) with paper and then ink in the places of these two masks (B, R)."""
    on, inked = (mask[..., None] for mask in where)
    return torch.where(inked, ink, torch.where(on, paper, color))


def _albedo(scenes: StudioScenes, point: Tensor, owner: Tensor) -> Tensor:
    """Surface colours (B, R, 3) of floor, wall and solids, without the poster."""
    frame = torch.cat([scenes.tile_rotation, scenes.tile_phase], 1)
    warm = torch.tensor([1.0, 0.96, 0.90]) * scenes.floor[..., None]
    ground = warm * room.floor_pattern(point, scenes.floor_kind, frame)[..., None]
    albedo = torch.where((owner == -2)[..., None], scenes.background[:, None], ground)
    solid = owner.clamp(min=0)

    def of(column: Tensor) -> Tensor:
        return column.gather(1, solid)

    x, z = (point[..., axis] - of(scenes.position[..., i]) for i, axis in enumerate((0, 2)))
    angle = torch.atan2(x, z) + of(scenes.rotation)
    up = (point[..., 1] / of(scenes.size) * math.pi * of(scenes.frequency)).sin()
    kind, dots = of(scenes.texture), ((5 * angle).sin() * up) > 0.35
    ribs, checks = (5 * angle).sin() > 0, ((4 * angle).sin() * up) > 0
    other = (kind == 1) & (up < 0) | (kind == 2) & ribs | (kind == 3) & checks | (kind == 4) & dots
    base = scenes.albedo.gather(1, solid[..., None].expand_as(point))
    bright = base.mean(2, keepdim=True)
    second = torch.where(bright < 0.15, 0.36, 0.35 * base)  # black has a pattern lighter than itself
    dot = torch.where(bright < 0.7, 0.97, 0.12)
    second = torch.where((kind == 4)[..., None], dot, second)
    own = torch.where(other[..., None], second, base)
    return torch.where((owner >= 0)[..., None], own, albedo)

"""The embedded world: small pictures of textured solids on a tiled floor, ray-cast in batched torch.

A scene is drawn from counted noise (one key a picture), so picture i of seed k is the same whatever the batch. Each
solid stands on the floor y = 0; in its own frame, scaled by `size`, it is

    sphere    x^2 + (y-1)^2 + z^2 = 1                  cube      max(|x|, |y-.85|, |z|) = .85
    cylinder  x^2 + z^2 = .85^2, 0 < y < 1.8           cone      x^2 + z^2 = (2-y)^2 / 4, 0 < y < 2

A ray p = o + t d is intersected in closed form; a shadow ray goes from the hit to the one directional light; colour is
ambient + Lambert + Blinn-Phong, with fog towards the background. Pictures are supersampled, then box-filtered.
Because the scene is known, class, caption, depth and object masks are exact. The same scene can be drawn as a sketch or
in clay: the rays are the same, what they bring home is ink and tint (`worlds.sketch`), or clay (`worlds.clay`).
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d, normalize, one_hot

from distill_lib.noise import uniform
from distill_lib.worlds.clay import clay
from distill_lib.worlds.sketch import sketch

__all__ = [
    "COLORS",
    "LOOKS",
    "SHAPES",
    "TEXTURES",
    "Rendered",
    "SceneSpec",
    "Scenes",
    "class_names",
    "draw_scenes",
    "render",
]

SHAPES = ("sphere", "cube", "cylinder", "cone")
COLORS = {
    "red": (0.85, 0.15, 0.15),
    "orange": (0.95, 0.55, 0.10),
    "yellow": (0.95, 0.85, 0.20),
    "green": (0.20, 0.70, 0.25),
    "cyan": (0.15, 0.75, 0.80),
    "blue": (0.15, 0.30, 0.85),
    "purple": (0.55, 0.20, 0.75),
    "gray": (0.55, 0.55, 0.55),
}
TEXTURES = ("plain", "striped", "checked")
LOOKS = ("photo", "sketch", "clay")

_FAR = 1e6  # ray parameter of "no hit"
_HORIZON = 12.0  # floor and depth map end here
_CAMERA, _LOOK_AT, _HALF_VIEW = (0.0, 1.55, -3.6), (0.0, 0.35, 0.2), math.tan(math.radians(18))
_NEAREST_FLOOR = 1.36  # the frame's lower edge sees the floor from z = -1.40 on
_HALF_WIDTH = (1.0, 0.85 * math.sqrt(2), 0.85, 1.0)  # largest horizontal radius of each shape at size 1


@dataclass(frozen=True, kw_only=True)
class SceneSpec:
    """What is drawn; the fields below `objects` are the knobs of difficulty.

    objects is 1 (class-conditional set) or 2 (captioned set, two solids side by side); texture and tiles are the
    contrast of the patterns on solids and floor (0 is none); clutter is the most solids standing behind; look is
    one of LOOKS.
    """

    resolution: int = 32
    supersample: int = 2
    objects: int = 1
    texture: float = 0.5
    tiles: float = 0.22
    clutter: int = 2
    look: str = "photo"


@dataclass
class Scenes:
    """A batch of B scenes of K solids (the named objects first, then clutter); all angles in radians."""

    shape: Tensor  # (B, K) index into SHAPES
    color: Tensor  # (B, K) index into COLORS
    texture: Tensor  # (B, K) index into TEXTURES
    present: Tensor  # (B, K) bool
    position: Tensor  # (B, K, 2) floor coordinates x (right), z (away)
    size: Tensor  # (B, K) scale of the solid's own frame
    rotation: Tensor  # (B, K) about the vertical
    albedo: Tensor  # (B, K, 3) base colour with jitter
    frequency: Tensor  # (B, K) bands of the texture over the height of 2
    light: Tensor  # (B, 1) azimuth of the light
    floor: Tensor  # (B, 1) brightness
    background: Tensor  # (B, 3) colour
    tile_scale: Tensor  # (B, 1) tiles a unit, times pi
    tile_rotation: Tensor  # (B, 1)
    tile_phase: Tensor  # (B, 2)

    def __len__(self) -> int:
        return len(self.shape)

    def labels(self, spec: SceneSpec) -> Tensor:
        """Class of the main object, (B,): shape x colour, x texture where the world has textures."""
        label = self.shape[:, 0] * len(COLORS) + self.color[:, 0]
        return label * len(TEXTURES) + self.texture[:, 0] if spec.texture else label


@dataclass
class Rendered:
    """What the camera sees: image (B, 3, R, R) in [-1, 1], depth (B, 1, R, R), masks (B, K, R, R) as coverage."""

    image: Tensor
    depth: Tensor
    masks: Tensor


def class_names(spec: SceneSpec) -> list[str]:
    """Names in the order of `Scenes.labels`: "red sphere" or "striped red sphere"."""
    textures = TEXTURES if spec.texture else ("",)
    return [f"{t} {c} {s}".strip() for s in SHAPES for c in COLORS for t in textures]


def draw_scenes(spec: SceneSpec, seed: int, index: Tensor) -> Scenes:
    """Scenes number `index` (B,) of `seed`. Solids are placed so that none is cut off by the frame."""
    if spec.look not in LOOKS:
        raise ValueError(f"look={spec.look!r}: the world is drawn as {', '.join(LOOKS)}")
    if spec.objects not in (1, 2):
        raise ValueError(f"objects={spec.objects}: the world is drawn with 1 or 2 named objects")
    k = spec.objects + spec.clutter
    columns = iter(uniform(seed, "scene", 0, index, 13 * k + 9).T)

    def draw(n: int) -> Tensor:
        return torch.stack([next(columns) for _ in range(n)], 1)

    def choose(n: int) -> Tensor:
        return (draw(k) * n).long()

    shape, color, texture = choose(len(SHAPES)), choose(len(COLORS)), choose(len(TEXTURES))
    named = torch.arange(k) < spec.objects
    present = named | (draw(k) < 0.8)
    across, depth, scale = draw(k), draw(k), draw(k)
    if spec.objects == 1:
        z, size = (depth - 0.5) * 1.2, 0.42 + 0.28 * scale
    else:
        # a gap between small and not: a caption says which, so that it must be plain to see
        z, size = depth - 0.5, torch.where(scale < 1 / 3, 0.30 + 0.15 * scale, 0.39 + 0.13 * scale)
    z = torch.where(named, z, 1.1 + 1.5 * depth)
    size = torch.where(named, size, 0.28 + 0.2 * scale)
    z = torch.maximum(z, torch.tensor(_HALF_WIDTH)[shape] * size - _NEAREST_FLOOR)
    room = _room(shape, z, size)
    x = (2 * across - 1) * torch.where(named, room.clamp(max=0.75), room)
    if spec.objects == 2:
        gap, middle = 0.62 + 0.3 * across[:, :1], (2 * across[:, 1:2] - 1) * 0.2
        x = torch.cat([middle - gap, middle + gap, x[:, 2:]], 1).clamp(-room, room)
    z = _apart(x, z, torch.tensor(_HALF_WIDTH)[shape] * size, present)
    palette = torch.tensor(list(COLORS.values()))
    jitter = torch.stack([draw(k), draw(k), draw(k)], 2) - 0.5
    return Scenes(
        shape=shape,
        color=color,
        texture=texture,
        present=present,
        position=torch.stack([x, z], 2),
        size=size,
        rotation=draw(k) * 2 * math.pi,
        albedo=(palette[color] + 0.1 * jitter).clamp(0, 1),
        frequency=2 + 1.5 * draw(k),
        light=(draw(1) - 0.5) * 2.2,
        floor=0.45 + 0.35 * draw(1),
        background=0.55 + 0.4 * draw(3),
        tile_scale=2.5 + 3 * draw(1),
        tile_rotation=math.pi * draw(1),
        tile_phase=2 * math.pi * draw(2),
    )


def render(scenes: Scenes, spec: SceneSpec) -> Rendered:
    """Ray-cast a batch of scenes; every picture is independent of its neighbours in the batch."""
    b, k = scenes.shape.shape
    origin, direction = _rays(spec.resolution * spec.supersample)
    origin, direction = origin.expand(b, 1, 3), direction.expand(b, -1, 3)

    t, normal, owner = _floor(origin, direction)
    for i in range(k):
        t_i, normal_i = _intersect(scenes, i, origin, direction)
        nearer = t_i < t
        t = torch.where(nearer, t_i, t)
        normal = torch.where(nearer[..., None], normal_i, normal)
        owner = torch.where(nearer, i, owner)
    hit = t < _FAR
    point = origin + direction * t.clamp(max=50)[..., None]

    toward_light = torch.cat([scenes.light.sin() * 0.8, torch.full((b, 1), 1.1), -scenes.light.cos() * 0.7], 1)
    toward_light = normalize(toward_light, dim=1)[:, None]
    shadow = torch.zeros_like(hit)
    for i in range(k):
        shadow |= _intersect(scenes, i, point + 1e-2 * normal, toward_light.expand_as(point))[0] < _FAR

    albedo = _albedo(scenes, spec, point, t, owner)
    lambert = (normal * toward_light).sum(2).clamp(min=0) * ~shadow
    n = spec.resolution * spec.supersample
    if spec.look == "sketch":
        color = sketch(albedo, lambert, normal, owner.masked_fill(~hit, -2), n)
    elif spec.look == "clay":
        facing = -(normal * direction).sum(2).clamp(max=0)
        color = clay(albedo, normal, toward_light, facing, owner.masked_fill(~hit, -2))
    else:
        half = normalize(toward_light - direction, dim=2)
        shine = (normal * half).sum(2).clamp(min=0) ** 40 * (~shadow & (owner >= 0))
        color = albedo * (0.38 + 0.72 * lambert)[..., None] + 0.35 * shine[..., None]
        sky = scenes.background[:, None] * (1 + 0.25 * direction[..., 1:2])
        fog = (t.clamp(max=_HORIZON) / _HORIZON)[..., None] ** 3
        color = torch.where(hit[..., None], color * (1 - fog) + sky * fog, sky).clamp(0, 1)

    masks = torch.stack([(owner == i).float() for i in range(k)], 2)
    layers = torch.cat([2 * color - 1, t.clamp(max=_HORIZON)[..., None], masks], 2)
    layers = avg_pool2d(layers.movedim(1, 2).reshape(b, 4 + k, n, n), spec.supersample)
    return Rendered(layers[:, :3], layers[:, 3:4], layers[:, 4:])


def _view_axes() -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Camera position and its right, up and forward directions."""
    camera = torch.tensor(_CAMERA)
    forward = normalize(torch.tensor(_LOOK_AT) - camera, dim=0)
    right = normalize(torch.linalg.cross(torch.tensor([0.0, 1.0, 0.0]), forward), dim=0)
    return camera, right, torch.linalg.cross(forward, right), forward


def _rays(n: int) -> tuple[Tensor, Tensor]:
    """Camera position (3,) and unit directions (n * n, 3) through the pixel centres, row by row from the top."""
    camera, right, up, forward = _view_axes()
    grid = (torch.arange(n) + 0.5) / n * 2 - 1
    y, x = torch.meshgrid(-grid, grid, indexing="ij")
    direction = forward + _HALF_VIEW * (x[..., None] * right + y[..., None] * up)
    return camera, normalize(direction.reshape(-1, 3), dim=1)


def _room(shape: Tensor, z: Tensor, size: Tensor) -> Tensor:
    """Largest |x| at which a solid at depth z stays inside the frame, with a margin of 4 %."""
    camera, _, _, forward = _view_axes()
    radius = torch.tensor(_HALF_WIDTH)[shape] * size
    nearest = (z - radius - camera[2]) * forward[2] + (0 - camera[1]) * forward[1]
    return 0.96 * _HALF_VIEW * nearest - radius


def _apart(x: Tensor, z: Tensor, radius: Tensor, present: Tensor) -> Tensor:
    """Depths (B, K) at which no two solids meet: one that would is pushed back, behind those drawn before it.

    Away from the camera there is more room, so a solid that was inside the frame stays inside it.
    """
    z = z.clone()
    for j in range(1, z.shape[1]):
        for _ in range(j):  # a push may lead into another of the j solids before
            for i in range(j):
                reach = 1.02 * (radius[:, i] + radius[:, j])
                behind = (reach.square() - (x[:, i] - x[:, j]).square()).clamp(min=0).sqrt()
                meets = present[:, i] & present[:, j] & ((z[:, j] - z[:, i]).abs() < behind)
                z[:, j] = torch.where(meets, z[:, i] + behind, z[:, j])
    return z


def _floor(origin: Tensor, direction: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    down = direction[..., 1]
    t = torch.where(down < 0, -origin[..., 1] / down, _FAR)
    t = torch.where(t > _HORIZON, _FAR, t)
    normal = torch.tensor([0.0, 1.0, 0.0]).expand_as(direction)
    return t, normal, torch.full(t.shape, -1)


def _intersect(scenes: Scenes, i: int, origin: Tensor, direction: Tensor) -> tuple[Tensor, Tensor]:
    """First hit of rays (B, R, 3) with solid i of each scene: t (B, R), _FAR where none, and the normal (B, R, 3)."""
    t = torch.full(direction.shape[:2], _FAR)
    normal = torch.zeros_like(direction)
    for shape, solid in enumerate((_sphere, _cube, _cylinder, _cone)):
        which = ((scenes.shape[:, i] == shape) & scenes.present[:, i]).nonzero()[:, 0]
        if len(which) == 0:
            continue
        cos, sin = scenes.rotation[which, i].cos()[:, None], scenes.rotation[which, i].sin()[:, None]
        x, z = scenes.position[which, i].T[..., None]
        size = scenes.size[which, i][:, None]
        ox, oy, oz = origin[which].unbind(2)
        dx, dy, dz = direction[which].unbind(2)
        ox, oz = ox - x, oz - z
        own_origin = [(cos * ox + sin * oz) / size, oy / size, (cos * oz - sin * ox) / size]
        own_direction = [(cos * dx + sin * dz) / size, dy / size, (cos * dz - sin * dx) / size]
        t_own, (nx, ny, nz) = solid(own_origin, own_direction)
        t[which] = t_own
        normal[which] = torch.stack([cos * nx - sin * nz, ny, cos * nz + sin * nx], 2)
    return t, normalize(normal, dim=2)


def _first(candidates: list[tuple[Tensor, Tensor, list[Tensor]]]) -> tuple[Tensor, list[Tensor]]:
    """Nearest valid (t, normal) among (valid, t, normal); a hit closer than 1e-3 is the surface that was left."""
    t = torch.full_like(candidates[0][1], _FAR)
    normal = [torch.zeros_like(t)] * 3
    for valid, t_i, normal_i in candidates:
        nearer = valid & (t_i > 1e-3) & (t_i < t)
        t = torch.where(nearer, t_i, t)
        normal = [torch.where(nearer, new, old) for new, old in zip(normal_i, normal, strict=True)]
    return t, normal


def _quadratic(a: Tensor, b: Tensor, c: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Whether a t^2 + 2 b t + c = 0 has real roots, and the roots."""
    discriminant = b * b - a * c
    root = discriminant.clamp(min=0).sqrt()
    return discriminant > 0, (-b - root) / a, (-b + root) / a


def _sphere(o: list[Tensor], d: list[Tensor]) -> tuple[Tensor, list[Tensor]]:
    (ox, oy, oz), (dx, dy, dz) = o, d
    oy = oy - 1
    a, b, c = dx * dx + dy * dy + dz * dz, ox * dx + oy * dy + oz * dz, ox * ox + oy * oy + oz * oz - 1
    real, t, _ = _quadratic(a, b, c)
    return _first([(real, t, [ox + t * dx, oy + t * dy, oz + t * dz])])


def _cube(o: list[Tensor], d: list[Tensor]) -> tuple[Tensor, list[Tensor]]:
    half = 0.85
    origin, direction = torch.stack([o[0], o[1] - half, o[2]], 2), torch.stack(d, 2)
    direction = torch.where(direction.abs() < 1e-6, 1e-6, direction)
    side_1, side_2 = (-half - origin) / direction, (half - origin) / direction
    enter, axis = torch.minimum(side_1, side_2).max(2)
    leave = torch.maximum(side_1, side_2).amin(2)
    normal = -direction.sign() * one_hot(axis, 3)
    return _first([(enter < leave, enter, list(normal.unbind(2)))])


def _cylinder(o: list[Tensor], d: list[Tensor]) -> tuple[Tensor, list[Tensor]]:
    (ox, oy, oz), (dx, dy, dz) = o, d
    radius, height = 0.85, 1.8
    a, b, c = dx * dx + dz * dz + 1e-9, ox * dx + oz * dz, ox * ox + oz * oz - radius**2
    real, t_side, _ = _quadratic(a, b, c)
    y = oy + t_side * dy
    zero = torch.zeros_like(y)
    side = (real & (y > 0) & (y < height), t_side, [ox + t_side * dx, zero, oz + t_side * dz])
    t_top = (height - oy) / dy
    x, z = ox + t_top * dx, oz + t_top * dz
    return _first([side, (x * x + z * z < radius**2, t_top, [zero, zero + 1, zero])])


def _cone(o: list[Tensor], d: list[Tensor]) -> tuple[Tensor, list[Tensor]]:
    (ox, oy, oz), (dx, dy, dz) = o, d
    k2 = 0.25  # slope squared: radius 1 at the floor, apex at height 2
    down = 2 - oy
    a, b, c = dx * dx + dz * dz - k2 * dy * dy, ox * dx + oz * dz + k2 * down * dy, ox * ox + oz * oz - k2 * down**2
    real, *roots = _quadratic(a, b, c)
    hits = []
    for t in roots:
        y = oy + t * dy
        hits.append((real & (y > 0) & (y < 2), t, [ox + t * dx, k2 * (2 - y), oz + t * dz]))
    return _first(hits)


def _albedo(scenes: Scenes, spec: SceneSpec, point: Tensor, t: Tensor, owner: Tensor) -> Tensor:
    """Surface colour (B, R, 3): floor tiles that fade with distance, stripes by height, checks by height and angle."""
    warm = torch.tensor([1.0, 0.97, 0.93])
    albedo = (scenes.floor * warm)[:, None].expand_as(point)
    if spec.tiles:
        cos, sin = scenes.tile_rotation.cos(), scenes.tile_rotation.sin()
        u = (cos * point[..., 0] + sin * point[..., 2]) * scenes.tile_scale + scenes.tile_phase[:, :1]
        v = (cos * point[..., 2] - sin * point[..., 0]) * scenes.tile_scale + scenes.tile_phase[:, 1:]
        fade = spec.tiles * (-0.12 * t.clamp(max=20)).exp()
        albedo = albedo * (1 + (u.sin() * v.sin()).sign() * fade)[..., None]
    for i in range(scenes.shape.shape[1]):
        own = scenes.albedo[:, i][:, None].expand_as(point)
        if spec.texture:
            x, z = (point[..., [0, 2]] - scenes.position[:, i][:, None]).unbind(2)
            angle = torch.atan2(x, z) + scenes.rotation[:, i][:, None]
            height = point[..., 1] / scenes.size[:, i][:, None]
            stripe = (height * math.pi * scenes.frequency[:, i][:, None]).sin().sign()
            check = stripe * (4 * angle).sin().sign()
            kind = scenes.texture[:, i][:, None]
            pattern = torch.where(kind == 1, stripe, torch.where(kind == 2, check, 0.0))
            own = own * (1 + 0.8 * spec.texture * pattern)[..., None]
        albedo = torch.where((owner == i)[..., None], own.clamp(0, 1), albedo)
    return albedo

"""The embedded world: small pictures of textured solids on a tiled floor, ray-cast in batched torch.

A scene is drawn from counted noise (one key a picture), so picture i of seed k is the same whatever the batch. Each
solid stands on the floor y = 0; in its own frame, scaled by `size`, it is

    sphere    x^2 + (y-1)^2 + z^2 = 1                  cube      max(|x|, |y-.85|, |z|) = .85
    cylinder  x^2 + z^2 = .85^2, 0 < y < 1.8           cone      x^2 + z^2 = (2-y)^2 / 4, 0 < y < 2

A ray p = o + t d is intersected in closed form; a shadow ray goes from the hit to the one directional light; colour is
ambient + Lambert + Blinn-Phong, with fog towards the background. Pictures are supersampled, then box-filtered.
Because the scene is known, class, caption, depth and object masks are exact. The same scene can be drawn as a sketch or
in clay: the rays are the same, what they bring home is ink and tint (`worlds.looks`), or clay (`worlds.looks`).
"""

import math
from dataclasses import dataclass, replace
from functools import singledispatch

import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d, normalize

from distill_lib.diffusion.noise import uniform
from distill_lib.worlds import rays
from distill_lib.worlds.looks import clay, sketch

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


@singledispatch
def class_names(spec: SceneSpec) -> list[str]:
    """Names in the order of `Scenes.labels`: "red sphere" or "striped red sphere"."""
    textures = TEXTURES if spec.texture else ("",)
    return [f"{t} {c} {s}".strip() for s in SHAPES for c in COLORS for t in textures]


@singledispatch
def draw_scenes(spec: SceneSpec, seed: int, index: Tensor) -> Scenes:
    """Scenes number `index` (B,) of `seed`, by the kind of `spec`. The frame cuts off no solid."""
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
    z = torch.maximum(z, torch.tensor(rays.HALF_WIDTH)[shape] * size - rays.NEAREST_FLOOR)
    room = rays.room(shape, z, size)
    x = (2 * across - 1) * torch.where(named, room.clamp(max=0.75), room)
    if spec.objects == 2:
        gap, middle = 0.62 + 0.3 * across[:, :1], (2 * across[:, 1:2] - 1) * 0.2
        x = torch.cat([middle - gap, middle + gap, x[:, 2:]], 1).clamp(-room, room)
    z = rays.apart(x, z, torch.tensor(rays.HALF_WIDTH)[shape] * size, present)
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


@singledispatch
def render(scenes: Scenes, spec: SceneSpec) -> Rendered:
    """Ray-cast a batch of scenes; every picture is independent of its neighbours in the batch."""
    b, k = scenes.shape.shape
    origin, direction = rays.from_camera(spec.resolution * spec.supersample)
    origin, direction = origin.expand(b, 1, 3), direction.expand(b, -1, 3)

    t, normal, owner = rays.floor(origin, direction)
    for i in range(k):
        t_i, normal_i = intersect(scenes, i, origin, direction)
        nearer = t_i < t
        t = torch.where(nearer, t_i, t)
        normal = torch.where(nearer[..., None], normal_i, normal)
        owner = torch.where(nearer, i, owner)
    hit = t < rays.FAR
    point = origin + direction * t.clamp(max=50)[..., None]

    toward_light = torch.cat([scenes.light.sin() * 0.8, torch.full((b, 1), 1.1), -scenes.light.cos() * 0.7], 1)
    toward_light = normalize(toward_light, dim=1)[:, None]
    shadow = torch.zeros_like(hit)
    for i in range(k):
        shadow |= intersect(scenes, i, point + 1e-2 * normal, toward_light.expand_as(point))[0] < rays.FAR

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
        fog = (t.clamp(max=rays.HORIZON) / rays.HORIZON)[..., None] ** 3
        color = torch.where(hit[..., None], color * (1 - fog) + sky * fog, sky).clamp(0, 1)

    masks = torch.stack([(owner == i).float() for i in range(k)], 2)
    layers = torch.cat([2 * color - 1, t.clamp(max=rays.HORIZON)[..., None], masks], 2)
    layers = avg_pool2d(layers.movedim(1, 2).reshape(b, 4 + k, n, n), spec.supersample)
    return Rendered(layers[:, :3], layers[:, 3:4], layers[:, 4:])


def intersect(scenes: Scenes, i: int, origin: Tensor, direction: Tensor) -> tuple[Tensor, Tensor]:
    """First hit of rays (B, R, 3) with solid i of each scene: t (B, R), FAR where none, and the normal (B, R, 3)."""
    t = torch.full(direction.shape[:2], rays.FAR)
    normal = torch.zeros_like(direction)
    for shape, solid in enumerate(rays.SOLIDS):
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


_SCENES_AT_ONCE = 32  # small enough that the rays stay in the processor's cache


def rendered(spec: SceneSpec, scenes: Scenes) -> tuple[Tensor, Tensor, Tensor]:
    """Pictures uint8 (N, 3, R, R) of scenes, depth and coverage of the named solids (N, R, R) in half precision."""
    images, depths, masks = [], [], []
    for part in torch.arange(len(scenes)).split(_SCENES_AT_ONCE):
        rendering = render(replace(scenes, **{name: column[part] for name, column in vars(scenes).items()}), spec)
        images.append((rendering.image * 127.5 + 127.5).round().to(torch.uint8))
        depths.append(rendering.depth[:, 0].half())
        masks.append(rendering.masks[:, : spec.objects].sum(1).half())
    return torch.cat(images), torch.cat(depths), torch.cat(masks)

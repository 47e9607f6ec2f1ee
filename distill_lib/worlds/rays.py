"""Rays of the camera, the room that solids have before it, and where rays meet floor and solids, in closed form."""

import math
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import normalize, one_hot

FAR = 1e6  # ray parameter of "no hit"
HORIZON = 12.0  # floor and depth map end here
_CAMERA, _LOOK_AT, _HALF_VIEW = (0.0, 1.55, -3.6), (0.0, 0.35, 0.2), math.tan(math.radians(18))
NEAREST_FLOOR = 1.36  # the frame's lower edge sees the floor from z = -1.40 on
_BASE, _PEAK = 0.9, 1.8  # of the pyramid: half of its side on the floor, and its height
HALF_WIDTH = (1.0, 0.85 * math.sqrt(2), 0.85, 1.0, _BASE * math.sqrt(2), 1.0)
"""Largest horizontal radius of each of `SOLIDS` at size 1."""
HEIGHT = (2.0, 1.7, 1.8, 2.0, _PEAK, 1.0)
"""Height of each of `SOLIDS` at size 1."""


class View(NamedTuple):
    """Where a camera stands, the point in the middle of its picture, and the tangent of half its angle of view."""

    camera: tuple[float, float, float] = _CAMERA
    look_at: tuple[float, float, float] = _LOOK_AT
    half: float = _HALF_VIEW


SCENES_VIEW = View()
"""Of all worlds without walls."""


def view_axes(view: View = SCENES_VIEW) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Camera position and its right, up and forward directions."""
    camera = torch.tensor(view.camera)
    forward = normalize(torch.tensor(view.look_at) - camera, dim=0)
    right = normalize(torch.linalg.cross(torch.tensor([0.0, 1.0, 0.0]), forward), dim=0)
    return camera, right, torch.linalg.cross(forward, right), forward


def from_camera(n: int, view: View = SCENES_VIEW) -> tuple[Tensor, Tensor]:
    """Camera position (3,) and unit directions (n * n, 3) through the pixel centres, row by row from the top."""
    camera, right, up, forward = view_axes(view)
    grid = (torch.arange(n) + 0.5) / n * 2 - 1
    y, x = torch.meshgrid(-grid, grid, indexing="ij")
    direction = forward + view.half * (x[..., None] * right + y[..., None] * up)
    return camera, normalize(direction.reshape(-1, 3), dim=1)


def room(shape: Tensor, z: Tensor, size: Tensor) -> Tensor:
    """Largest |x| at which a solid at depth z stays inside the frame, with a margin of 4 %."""
    camera, _, _, forward = view_axes()
    radius = torch.tensor(HALF_WIDTH)[shape] * size
    nearest = (z - radius - camera[2]) * forward[2] + (0 - camera[1]) * forward[1]
    return 0.96 * _HALF_VIEW * nearest - radius


def apart(x: Tensor, z: Tensor, radius: Tensor, present: Tensor) -> Tensor:
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


def floor(origin: Tensor, direction: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Where rays meet the floor: t (B, R), FAR where they do not, the normal (B, R, 3), and the owner -1 (B, R)."""
    down = direction[..., 1]
    t = torch.where(down < 0, -origin[..., 1] / down, FAR)
    t = torch.where(t > HORIZON, FAR, t)
    normal = torch.tensor([0.0, 1.0, 0.0]).expand_as(direction)
    return t, normal, torch.full(t.shape, -1)


def _first(candidates: list[tuple[Tensor, Tensor, list[Tensor]]]) -> tuple[Tensor, list[Tensor]]:
    """Nearest valid (t, normal) among (valid, t, normal); a hit closer than 1e-3 is the surface that was left."""
    t = torch.full_like(candidates[0][1], FAR)
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


def _pyramid(o: list[Tensor], d: list[Tensor]) -> tuple[Tensor, list[Tensor]]:
    (ox, oy, oz), (dx, dy, dz) = o, d
    lean = _BASE / _PEAK  # a side is the plane +-x + lean y = base, or +-z + lean y = base
    zero = torch.zeros_like(dx * ox)
    faces = [
        (a * ox + c * oz + lean * oy - _BASE, a * dx + c * dz + lean * dy, [zero + a, zero + lean, zero + c])
        for a, c in ((1, 0), (-1, 0), (0, 1), (0, -1))
    ]
    faces.append((-oy + zero, -dy + zero, [zero, zero - 1, zero]))
    ahead, toward = torch.stack([face[0] + zero for face in faces]), torch.stack([face[1] + zero for face in faces])
    toward = torch.where(toward.abs() < 1e-6, 1e-6, toward)
    crossing = -ahead / toward
    enter, which = torch.where(toward < 0, crossing, -FAR).max(0)
    leave = torch.where(toward > 0, crossing, FAR).amin(0)
    normals = torch.stack([torch.stack(face[2]) for face in faces])  # (5, 3, B, R)
    normal = normals.gather(0, which[None, None].expand(1, 3, *which.shape))[0]
    return _first([(enter < leave, enter, list(normal))])


def _hemisphere(o: list[Tensor], d: list[Tensor]) -> tuple[Tensor, list[Tensor]]:
    (ox, oy, oz), (dx, dy, dz) = o, d
    a, b, c = dx * dx + dy * dy + dz * dz, ox * dx + oy * dy + oz * dz, ox * ox + oy * oy + oz * oz - 1
    real, t, _ = _quadratic(a, b, c)
    y = oy + t * dy
    return _first([(real & (y > 0), t, [ox + t * dx, y, oz + t * dz])])


SOLIDS = (_sphere, _cube, _cylinder, _cone, _pyramid, _hemisphere)
"""Origin and direction of rays in a solid's own frame -> t, FAR where they miss, and the normal; by number of shape."""

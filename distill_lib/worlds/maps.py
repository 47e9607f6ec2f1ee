"""Control maps in [0, 1], as a ControlNet is shown them: edges by Canny's method, depth, coarse pictures.

    edges     1 on an edge of the picture (`canny`), else 0                    (N, 1, R, R)
    depth     1 - distance / 12: near is light, the horizon is black           (N, 1, R, R)
    coarse    the picture of a quarter of the side, enlarged again             (N, 3, R, R)

The first two are those of SDXS (Song et al. 2024, arXiv 2403.16627, Fig. 8); the third turns the very same code into
super-resolution, which that paper leaves to future work. A map can be drawn by hand: `read_map`.

Edges, and how well two maps of edges agree:

    g(p)       gradient of the smoothed picture, of the channel in which it is longest                         (1)
    thin(p)    |g(p)| where it is not below its two neighbours along g, of eight directions; else 0            (2)
    edge(p)    thin(p) > high, or thin(p) > low and joined to such a place by places above low                 (3)

    precision  share of the edges found that lie within a pixel of a wanted one
    recall     share of the wanted edges that lie within a pixel of one found
    F1         2 precision recall / (precision + recall)                                                       (4)

Canny 1986 (IEEE PAMI 8, 679). No library here has it, and OpenCV would be a dependency for this alone.
"""

import math
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn.functional import avg_pool2d, conv2d, interpolate, max_pool2d, pad

from distill_lib.worlds.folders import in_eight_bits
from distill_lib.worlds.rays import HORIZON

KINDS = ("edges", "depth", "coarse")
FACTOR = 4
"""How many times smaller the side of a picture is before it is enlarged again."""


def edge_map(image: Tensor) -> Tensor:
    """Edges of pictures uint8 (N, 3, R, R), 0 or 1, (N, 1, R, R)."""
    return torch.cat([canny(part) for part in image.split(256)]).float()[:, None]


def depth_map(depth: Tensor) -> Tensor:
    """Map (N, 1, R, R) of distances (N, R, R) in scene units."""
    return (1 - depth.float()[:, None] / HORIZON).clamp(0, 1)


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
        picture = in_eight_bits(Image.open(path)).convert("RGB" if kind == "coarse" else "L")
    except (OSError, ValueError) as error:
        raise ValueError(f"{path} is no readable picture: {error}; save the control as a PNG file") from error
    if picture.size != (side, side):
        width, height = picture.size
        raise ValueError(f"{path} has {width} x {height} pixels, but a control has to have {side} x {side}; resize it")
    pixels = torch.from_numpy(np.array(picture)).float() / 255
    return pixels.reshape(side, side, -1).movedim(2, 0)[None]


_BLUR = 1.0  # standard deviation of the smoothing in pixels
_LOW, _HIGH = 0.03, 0.08  # per pixel, of pictures in [0, 1]: a step of a quarter, smoothed, has 0.1
_NEAR = 1  # pixels, in both directions, by which an edge may be off
_DIRECTIONS = (
    (0, 1),
    (1, 1),
    (1, 0),
    (1, -1),
)  # (down, right) of the neighbour along a gradient at 0, 45, 90, 135 degrees


def _gradient(x: Tensor) -> tuple[Tensor, Tensor]:
    """(1) of (N, C, R, R): across and down, (N, R, R) each."""
    reach = torch.arange(-3, 4, dtype=x.dtype, device=x.device)
    bell = (-0.5 * (reach / _BLUR) ** 2).exp()
    bell = bell / bell.sum()
    flat = x.flatten(0, 1)[:, None]
    flat = conv2d(pad(flat, (3, 3, 3, 3), mode="replicate"), (bell[:, None] * bell)[None, None])
    slope = x.new_tensor([[-1.0, 0.0, 1.0], [-2.0, 0.0, 2.0], [-1.0, 0.0, 1.0]]) / 8
    flat = pad(flat, (1, 1, 1, 1), mode="replicate")
    across, down = (conv2d(flat, kernel[None, None])[:, 0].unflatten(0, x.shape[:2]) for kernel in (slope, slope.T))
    longest = across.hypot(down).argmax(1, keepdim=True)
    return across.gather(1, longest)[:, 0], down.gather(1, longest)[:, 0]


def _thinned(across: Tensor, down: Tensor) -> Tensor:
    """(2), (N, R, R)."""
    size = across.hypot(down)
    sector = (torch.atan2(down, across) / (math.pi / 4)).round().long() % 4
    around, (height, width) = pad(size, (1, 1, 1, 1)), size.shape[-2:]
    kept = torch.zeros_like(size, dtype=torch.bool)
    for number, (y, x) in enumerate(_DIRECTIONS):
        ahead, behind = (around[:, 1 + s * y :, 1 + s * x :][:, :height, :width] for s in (1, -1))
        # of two equal neighbours one is kept, so that a perfect step is one pixel wide; rounding must not part them
        kept |= (sector == number) & (size > behind + 1e-6) & (size >= ahead - 1e-6)
    return size * kept


def canny(image: Tensor) -> Tensor:
    """(3): edges bool (N, R, R) of pictures (N, C, R, R) in [0, 1], or uint8."""
    x = image.float() / 255 if image.dtype == torch.uint8 else image.float()
    thin = _thinned(*_gradient(x))
    weak, edge = (thin > _LOW).float()[:, None], (thin > _HIGH).float()[:, None]
    while True:
        grown = max_pool2d(edge, 3, 1, 1) * weak
        if torch.equal(grown, edge):
            return edge[:, 0] > 0
        edge = grown


def edge_f1(edges: Tensor, wanted: Tensor) -> Tensor:
    """(4) of edge maps bool (N, R, R), one value a pair, (N,); 1 where neither holds an edge."""

    def share(points: Tensor, others: Tensor) -> Tensor:
        wide = max_pool2d(others.float()[:, None], 2 * _NEAR + 1, 1, _NEAR)[:, 0] > 0
        count = points.flatten(1).sum(1)
        return (points & wide).flatten(1).sum(1) / count.clamp(min=1)

    precision, recall = share(edges, wanted), share(wanted, edges)
    f1 = 2 * precision * recall / (precision + recall).clamp(min=1e-9)
    return torch.where(edges.flatten(1).any(1) | wanted.flatten(1).any(1), f1, torch.ones_like(f1))

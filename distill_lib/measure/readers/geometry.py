"""The network that reads shape off a picture: where the named solids are, and how far away they are.

Trained on pictures whose masks and depths are known, of several looks, so that a picture can be compared with a scene
whatever it was drawn with. No loss of any method uses it.
"""

from collections.abc import Iterator
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits, interpolate

from distill_lib.diffusion.pixels import to_unit
from distill_lib.engine.loop import Loop, Progress, TrainSettings
from distill_lib.engine.precision import autocast
from distill_lib.engine.store import Run
from distill_lib.engine.trainable import Trainable
from distill_lib.measure.readers.extractor import degrade
from distill_lib.worlds.scenes import SceneSpec, draw_scenes, rendered

_FAR = 12.0  # the scenes' largest depth


class Geometry(nn.Module):
    """Pictures (B, 3, R, R) in [-1, 1] -> mask logits (B, R, R) of the named solids, depth (B, R, R) in scene units."""

    def __init__(self, width: int = 24) -> None:
        super().__init__()

        def block(a: int, b: int, stride: int = 1) -> nn.Sequential:
            return nn.Sequential(nn.Conv2d(a, b, 3, stride, 1, bias=False), nn.GroupNorm(8, b), nn.SiLU())

        sizes = (width, 2 * width, 4 * width, 4 * width)
        self.first = block(3, width)
        self.down = nn.ModuleList(nn.Sequential(block(a, b, 2), block(b, b)) for a, b in pairwise(sizes))
        self.up = nn.ModuleList(block(a + b, b) for a, b in pairwise(sizes[::-1]))
        self.read = nn.Conv2d(width, 2, 1)

    def maps(self, image: Tensor) -> Tensor:
        """What the last layer says of each pixel, (B, 2, R, R)."""
        seen = [self.first(image)]
        for down in self.down:
            seen.append(down(seen[-1]))
        found = seen.pop()
        for up in self.up:
            below = seen.pop()
            found = up(torch.cat([interpolate(found, size=below.shape[-2:], mode="nearest"), below], 1))
        return self.read(found)

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
        mask, depth = self.maps(image).unbind(1)
        return mask, _FAR * depth.sigmoid()


def geometry_loss(logits: Tensor, depth: Tensor, mask: Tensor, true_depth: Tensor) -> Tensor:
    """Cross-entropy of the mask plus absolute error of the depth, five times on the solid, (B,); all are (B, R, R)."""
    shape = binary_cross_entropy_with_logits(logits, mask, reduction="none").flatten(1).mean(1)
    error = (depth - true_depth).abs()
    return shape + 0.1 * (error * (1 + 4 * mask)).flatten(1).mean(1)


def train_geometry(
    net: Trainable, worlds: list[SceneSpec], count: int, settings: TrainSettings, run: Run
) -> Iterator[Progress]:
    """Train net.module on `count` pictures of each world, mixed; half of them blurred, half overlaid with noise."""
    parts = [rendered(world, draw_scenes(world, settings.seed, torch.arange(count))) for world in worlds]
    image, depth, mask = (torch.cat(column) for column in zip(*parts, strict=True))
    loop = Loop(net, settings, run)
    for _, draws in loop:
        index = draws.integer("picture", len(image)).cpu()
        shown, true_depth, true_mask = (part[index].to(loop.device) for part in (image, depth, mask))
        blur, grain = ((2 * draws.uniform(stream) - 1).clamp(min=0) for stream in ("blur", "grain"))
        shown = degrade(to_unit(shown), 1.2 * blur, 0.15 * grain, draws.normal("eps", shown.shape[1:]))
        with autocast(loop.device, settings.bf16):
            logits, found = net.forward(shown)
        yield loop.update(geometry_loss(logits.float(), found.float(), true_mask.float(), true_depth.float()))


@torch.no_grad()
def _read(net: Geometry, image: Tensor) -> tuple[Tensor, Tensor]:
    found = [net(to_unit(part)) for part in image.split(256)]
    return torch.cat([mask for mask, _ in found]), torch.cat([depth for _, depth in found])


def read_depth(net: Geometry, image: Tensor) -> Tensor:
    """Distances (N, R, R) in scene units that are read off pictures uint8 (N, 3, R, R)."""
    return _read(net, image)[1]


def mask_iou(net: Geometry, image: Tensor, mask: Tensor) -> Tensor:
    """Intersection over union of the solid as read off pictures uint8 (N, 3, R, R) and as it is (N, R, R), (N,)."""
    found, true = _read(net, image)[0] > 0, mask > 0.5
    both, either = (found & true).flatten(1).sum(1), (found | true).flatten(1).sum(1)
    return both / either.clamp(min=1)


def depth_error(net: Geometry, image: Tensor, mask: Tensor, depth: Tensor) -> Tensor:
    """Mean absolute error of the depth read off pictures, over the pixels of the true solid, in scene units, (N,)."""
    true = (mask > 0.5).float()
    error = (_read(net, image)[1] - depth.float()).abs() * true
    return error.flatten(1).sum(1) / true.flatten(1).sum(1).clamp(min=1)

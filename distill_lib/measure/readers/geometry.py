"""The network that reads shape off a picture: where the named solids are, and how far away they are.

Trained on pictures whose masks and depths are known, of several looks, so that a picture can be compared with a scene
whatever it was drawn with. No loss of any method uses it.
"""

from collections.abc import Iterator
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits, interpolate

from distill_lib.engine.loop import Progress, TrainSettings
from distill_lib.engine.store import Run
from distill_lib.engine.trainable import Trainable
from distill_lib.measure.readers.common import answers_of, chosen, train_degraded
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
        features = seen.pop()
        for up in self.up:
            below = seen.pop()
            features = up(torch.cat([interpolate(features, size=below.shape[-2:], mode="nearest"), below], 1))
        return self.read(features)

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
    """Train net.module on `count` pictures of each world, mixed, as `train_degraded` does."""
    parts = [rendered(world, draw_scenes(world, settings.seed, torch.arange(count))) for world in worlds]
    image, depth, mask = (torch.cat(column) for column in zip(*parts, strict=True))

    def loss(answers: list[Tensor], depth: Tensor, mask: Tensor, *_: Tensor) -> Tensor:
        return geometry_loss(*answers, mask.float(), depth.float())

    return train_degraded(net, chosen(image, depth, mask), loss, settings, run)


def read_depth(net: Geometry, image: Tensor) -> Tensor:
    """Distances (N, R, R) in scene units that are read off pictures uint8 (N, 3, R, R)."""
    return answers_of(net, image)[1]


def mask_iou(net: Geometry, image: Tensor, mask: Tensor) -> Tensor:
    """Intersection over union of the solid as read off pictures uint8 (N, 3, R, R) and as it is (N, R, R), (N,)."""
    predicted, true = answers_of(net, image)[0] > 0, mask > 0.5
    both, either = (predicted & true).flatten(1).sum(1), (predicted | true).flatten(1).sum(1)
    return both / either.clamp(min=1)


def depth_error(net: Geometry, image: Tensor, mask: Tensor, depth: Tensor) -> Tensor:
    """Mean absolute error of the depth read off pictures, over the pixels of the true solid, in scene units, (N,)."""
    true = (mask > 0.5).float()
    error = (answers_of(net, image)[1] - depth.float()).abs() * true
    return error.flatten(1).sum(1) / true.flatten(1).sum(1).clamp(min=1)

"""Where the two named solids of a picture stand, in whatever look it is drawn: a network reads their masks.

    masks (N, 2, R, R)     whether a pixel shows the left solid, and whether it shows the right one
    layout_iou             |A and B| / |A or B| of masks of two pictures, or of a picture and a truth, mean over both

Trained on scenes drawn in several looks, so that a picture and another one of the same layout can be compared across
them. No loss of any method uses it.
"""

from collections.abc import Iterator

import torch
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits

from distill_lib.diffusion.noise import Draws
from distill_lib.engine.loop import Progress, TrainSettings
from distill_lib.engine.store import Run, cached
from distill_lib.engine.trainable import Trainable
from distill_lib.measure.readers.common import answers_of, train_degraded
from distill_lib.measure.readers.geometry import Geometry
from distill_lib.worlds.pictures import rendered_once
from distill_lib.worlds.scenes import Scenes, SceneSpec, draw_scenes, render

_CHUNK = 32  # scenes rendered at a time


class Layout(Geometry):
    """Pictures (B, 3, R, R) in [-1, 1] -> mask logits (B, 2, R, R) of the left and of the right solid."""

    def forward(self, image: Tensor) -> Tensor:
        return self.maps(image)


def true_layout(spec: SceneSpec, seed: int, index: Tensor) -> Tensor:
    """Coverage of the left and of the right solid of scenes `index` of a seed, (N, 2, R, R) in half precision.

    Of a solid that stands behind another one, what is seen.

    Raises:
        ValueError: the world does not show two named objects.
    """
    if spec.objects != 2:
        raise ValueError(f"a layout is that of two named objects; this world has {spec.objects}")
    return torch.cat([_masks(draw_scenes(spec, seed, part), spec) for part in index.split(_CHUNK)])


def _masks(scenes: Scenes, spec: SceneSpec) -> Tensor:
    both = render(scenes, spec).masks[:, :2].half()
    swapped = scenes.position[:, 0, 0] > scenes.position[:, 1, 0]
    return torch.where(swapped[:, None, None, None], both.flip(1), both)


def train_layout(
    net: Trainable, worlds: list[SceneSpec], count: int, settings: TrainSettings, run: Run
) -> Iterator[Progress]:
    """Train net.module on `count` pictures of each world, as `train_degraded` does.

    The worlds differ in their looks alone, so that the same scenes give the same masks.
    """
    index = torch.arange(count)
    image = torch.stack([rendered_once(world, settings.seed, count)[0] for world in worlds])
    make = lambda: {"mask": true_layout(worlds[0], settings.seed, index)}  # noqa: E731
    mask = cached("layout", {"world": worlds[0], "seed": settings.seed, "count": count}, make, true_layout)["mask"]

    def batch(draws: Draws) -> tuple[Tensor, Tensor]:
        look, scene = draws.integer("look", len(worlds)).cpu(), draws.integer("picture", count).cpu()
        return image[look, scene], mask[scene]

    def loss(logits: Tensor, true: Tensor, *_: Tensor) -> Tensor:
        return binary_cross_entropy_with_logits(logits, true.float(), reduction="none").flatten(1).mean(1)

    return train_degraded(net, batch, loss, settings, run)


def read_layout(net: Layout, image: Tensor) -> Tensor:
    """Masks bool (N, 2, R, R) read off pictures uint8 (N, 3, R, R)."""
    return answers_of(net, image)[0] > 0


def layout_iou(predicted: Tensor, true: Tensor) -> Tensor:
    """Intersection over union of masks bool (N, 2, R, R), mean over both solids, (N,); 1 where neither mask has any."""
    both, either = ((a.flatten(2).sum(2)) for a in (predicted & true, predicted | true))
    return torch.where(either > 0, both / either.clamp(min=1), 1.0).mean(1)

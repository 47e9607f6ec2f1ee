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

from distill_lib.diffusion.pixels import to_unit
from distill_lib.engine.loop import Loop, Progress, TrainSettings
from distill_lib.engine.precision import autocast
from distill_lib.engine.store import Run, cached
from distill_lib.engine.trainable import Trainable
from distill_lib.measure.readers.extractor import degrade
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
    """Train net.module on `count` pictures of each world; half of them blurred, half overlaid with noise.

    The worlds differ in their looks alone, so that the same scenes give the same masks.
    """
    index = torch.arange(count)
    image = torch.stack([rendered_once(world, settings.seed, count)[0] for world in worlds])
    make = lambda: {"mask": true_layout(worlds[0], settings.seed, index)}  # noqa: E731
    mask = cached("layout", {"world": worlds[0], "seed": settings.seed, "count": count}, make, true_layout)["mask"]
    loop = Loop(net, settings, run)
    for _, draws in loop:
        look, scene = draws.integer("look", len(worlds)).cpu(), draws.integer("picture", count).cpu()
        shown, true = image[look, scene].to(loop.device), mask[scene].to(loop.device)
        blur, grain = ((2 * draws.uniform(stream) - 1).clamp(min=0) for stream in ("blur", "grain"))
        shown = degrade(to_unit(shown), 1.2 * blur, 0.15 * grain, draws.normal("eps", shown.shape[1:]))
        with autocast(loop.device, settings.bf16):
            logits = net.forward(shown)
        loss = binary_cross_entropy_with_logits(logits.float(), true.float(), reduction="none")
        yield loop.update(loss.flatten(1).mean(1))


@torch.no_grad()
def read_layout(net: Layout, image: Tensor) -> Tensor:
    """Masks bool (N, 2, R, R) read off pictures uint8 (N, 3, R, R)."""
    device = next(net.parameters()).device
    return torch.cat([(net(to_unit(part.to(device))) > 0).cpu() for part in image.split(256)])


def layout_iou(found: Tensor, true: Tensor) -> Tensor:
    """Intersection over union of masks bool (N, 2, R, R), mean over both solids, (N,); 1 where neither mask has any."""
    both, either = ((a.flatten(2).sum(2)) for a in (found & true, found | true))
    return torch.where(either > 0, both / either.clamp(min=1), 1.0).mean(1)

"""The network behind the metrics: 64 features from which every factor of a scene can be read.

A metric network that knows only the class is blind to what distillation loses, so this one is trained to read class,
position, size, rotation, texture frequency, light, floor, tiles, background, albedo and clutter, and how much a
picture was blurred and overlaid with noise: what few steps lose first is sharpness. No loss of any method uses it.
"""

import math
from collections.abc import Iterable, Iterator
from dataclasses import replace

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, interpolate, one_hot

from distill_lib.engine.loop import Progress, TrainSettings
from distill_lib.engine.store import Run
from distill_lib.engine.trainable import Trainable
from distill_lib.measure.readers.common import answers_of, chosen, train_degraded
from distill_lib.worlds.glyphs import GLYPHS
from distill_lib.worlds.pictures import Pictures, rendered_once
from distill_lib.worlds.room import FLOORS
from distill_lib.worlds.scenes import LOOKS, Scenes, SceneSpec
from distill_lib.worlds.studio import StudioScenes

FEATURES = 64
_CLUTTER = 2  # solids behind the main one whose factors are read


class Extractor(nn.Module):
    """Pictures (B, 3, R, R) in [-1, 1] -> features (B, 64), class logits (B, C), factor estimates (B, F)."""

    def __init__(self, n_classes: int, n_factors: int, width: int = 32, side: int = 32) -> None:
        super().__init__()
        self.side = side

        def block(a: int, b: int, stride: int) -> list[nn.Module]:
            return [nn.Conv2d(a, b, 3, stride, 1, bias=False), nn.GroupNorm(8, b), nn.ReLU()]

        self.body = nn.Sequential(
            *block(3, width, 1),
            *(block(width, width, 2) if side == 64 else []),
            *block(width, 2 * width, 2),
            *block(2 * width, 2 * width, 1),
            *block(2 * width, 4 * width, 2),
            *block(4 * width, 4 * width, 1),
            *block(4 * width, 4 * width, 2),
            nn.Flatten(),
            nn.Linear(4 * width * 16, 256),
            nn.ReLU(),
            nn.Linear(256, FEATURES),
        )
        self.classes = nn.Sequential(nn.ReLU(), nn.Linear(FEATURES, n_classes))
        self.factors = nn.Linear(FEATURES, n_factors)

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        if image.shape[-1] != self.side:
            image = interpolate(image, size=(self.side, self.side), mode="area")
        features = self.body(image)
        return features, self.classes(features), self.factors(features)


def factors(scenes: Scenes, spec: SceneSpec) -> tuple[Tensor, Tensor]:
    """What can be read off a scene: values (B, F), each of about unit spread, and weights (B, F), 0 where invisible.

    Angles enter as sine and cosine of the multiple under which the picture repeats; a rotation shows only on cubes and
    checks, a texture's frequency only where there is one, clutter only where it stands. Every world has the same
    columns, so that one network reads them all.
    """
    ones = torch.ones(len(scenes), 1)
    kind = scenes.texture[:, :1] * bool(spec.texture)
    turns = ((scenes.shape[:, :1] == 1) | (kind == 2)).float()
    tiled = ones * bool(spec.tiles)
    columns = [
        (2 * scenes.position[:, 0], ones),
        (8 * (scenes.size[:, :1] - 0.5), ones),
        ((4 * scenes.rotation[:, :1]).sin(), turns),
        ((4 * scenes.rotation[:, :1]).cos(), turns),
        (2 * (scenes.frequency[:, :1] - 2.75), (kind > 0).float()),
        (4 * (scenes.albedo[:, 0] - 0.5), ones),
        (1.5 * scenes.light, ones),
        (8 * (scenes.floor - 0.62), ones),
        (6 * (scenes.background - 0.75), ones * (spec.look == "photo")),  # a drawing leaves the paper white
        ((2 * scenes.tile_rotation).sin(), tiled),
        ((2 * scenes.tile_rotation).cos(), tiled),
        (scenes.tile_scale - 4, tiled),
    ]
    for i in range(1, 1 + _CLUTTER):
        if i < scenes.present.shape[1]:
            present = scenes.present[:, i : i + 1].float()
            columns += [
                (2 * present - 1, ones),
                (scenes.position[:, i, :1], present),
                (4 * scenes.albedo[:, i] - 2, present),
            ]
        else:
            columns += [(-ones, ones), (0 * ones, 0 * ones), (torch.zeros(len(ones), 3), 0 * ones)]
    values = torch.cat([value for value, _ in columns], 1)
    return values, torch.cat([weight.expand_as(value) for value, weight in columns], 1)


_OWN = 9  # columns of `factors` that are the main object's own


def factors_of_two(scenes: Scenes, spec: SceneSpec) -> tuple[Tensor, Tensor]:
    """`factors` of a scene of two named objects: those of the left one with the scene's, then the right one's own."""
    swapped = scenes.position[:, 0, 0] > scenes.position[:, 1, 0]
    both = []
    for swap in (swapped, ~swapped):
        order = torch.arange(scenes.shape.shape[1]).repeat(len(scenes), 1)
        order[swap, 0], order[swap, 1] = 1, 0
        seen = {
            name: column[torch.arange(len(scenes))[:, None], order] if column.shape[1:2] == order.shape[1:] else column
            for name, column in vars(scenes).items()
            if name not in ("light", "floor", "background", "tile_scale", "tile_rotation", "tile_phase")
        }
        both.append(factors(replace(scenes, **seen), spec))
    (left, left_weight), (right, right_weight) = both
    return torch.cat([left, right[:, :_OWN]], 1), torch.cat([left_weight, right_weight[:, :_OWN]], 1)


def discrete_factors(scenes: StudioScenes) -> Tensor:
    """Glyph and kind of floor as factors, (B, 14): 3 in the column of its number, -3 in the others."""
    parts = [one_hot(scenes.glyph[:, 0], len(GLYPHS)), one_hot(scenes.floor_kind[:, 0], len(FLOORS))]
    return 6.0 * torch.cat(parts, 1) - 3


def joint_label(scenes: Scenes) -> Tensor:
    """Shape x colour x texture of the main object, (B,): the classes of the extractor in every world."""
    return scenes.labels(SceneSpec())


def extractor_loss(logits: Tensor, read: Tensor, label: Tensor, values: Tensor, weights: Tensor) -> Tensor:
    """Cross-entropy of the class plus the weighted square error of the factors read, (B,)."""
    error = (weights * (read - values).square()).sum(1) / math.sqrt(values.shape[1])
    return cross_entropy(logits, label, reduction="none") + 0.5 * error


Examples = tuple[Tensor, Tensor, Tensor, Tensor]
"""Pictures uint8 (N, 3, R, R), classes (N,), values to be read (N, F) and their weights (N, F)."""


def scene_examples(worlds: list[SceneSpec], count: int, seed: int) -> Examples:
    """`count` pictures of each world with the factors of their scenes; several looks add theirs (`look_codes`).

    Without those factors photos and drawings of the same scenes share their features, and no distance tells them apart.
    """
    images, labels, values, weights = [], [], [], []
    for world in worlds:
        image, scenes = rendered_once(world, seed, count)
        value, weight = (factors_of_two if world.objects == 2 else factors)(scenes, world)
        if isinstance(scenes, StudioScenes):
            unnamed = discrete_factors(scenes)
            value, weight = torch.cat([value, unnamed], 1), torch.cat([weight, torch.ones_like(unnamed)], 1)
        plain = torch.zeros_like(scenes.texture) if not world.texture else scenes.texture
        images.append(image)
        labels.append(joint_label(replace(scenes, texture=plain)))
        if len({spec.look for spec in worlds}) > 1:
            look = look_codes([spec.look for spec in worlds])[world.look].expand(count, -1)
            value, weight = torch.cat([value, look], 1), torch.cat([weight, torch.ones_like(look)], 1)
        values.append(value)
        weights.append(weight)
    return torch.cat(images), torch.cat(labels), torch.cat(values), torch.cat(weights)


def look_codes(looks: Iterable[str]) -> dict[str, Tensor]:
    """How each of L looks is written as factors, (L - 1,): 3 in its own column, -3 in the others; the last has none."""
    named = [look for look in LOOKS if look in set(looks)]
    codes = 6 * torch.eye(len(named))[:, :-1] - 3
    return dict(zip(named, codes, strict=True))


def called_look(net: nn.Module, image: Tensor, looks: Iterable[str]) -> Tensor:
    """Which of the looks that the extractor was trained on each picture uint8 (N, 3, R, R) is read as, (N,).

    The numbers are those of `LOOKS` without the ones that are not among `looks`.
    """
    codes = torch.stack([*look_codes(looks).values()])
    columns = slice(-2 - codes.shape[1], -2)  # before blur and grain
    return torch.cdist(answers_of(net, image)[2][:, columns], codes).argmin(1)


def picture_examples(pictures: Pictures) -> Examples:
    """Real pictures, of which no factors are known: what is read is the grey picture in 8 x 8 squares."""
    grey = pictures.image.float().mean(1, keepdim=True) / 127.5 - 1
    values = 2 * interpolate(grey, size=(8, 8), mode="area").flatten(1)
    return pictures.image, pictures.label, values, torch.ones_like(values)


def train_extractor(net: Trainable, examples: Examples, settings: TrainSettings, run: Run) -> Iterator[Progress]:
    """Train net.module on lessons, mixed, as `train_degraded` does.

    The last two factors are the blur (up to 1.2 pixels) and the noise (up to 0.15).
    """

    def loss(answers: list[Tensor], label: Tensor, values: Tensor, weights: Tensor, *degraded: Tensor) -> Tensor:
        added = 3 * torch.stack(degraded, 1) - 0.75
        values, weights = torch.cat([values, added], 1), torch.cat([weights, torch.ones_like(added)], 1)
        return extractor_loss(*answers[1:], label, values, weights)

    return train_degraded(net, chosen(*examples), loss, settings, run)

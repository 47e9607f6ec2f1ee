"""What a picture of the studio shows, named or not: both solids and their relation, the glyph and the kind of floor.

    glyphs_read        share of posters whose glyph is named right                                                (1)
    legible            mean over pictures of the largest probability of a glyph: how sure the reader is           (2)
    legible_agreement  share of pictures whose glyph is read as that of the teacher's picture from the same noise (3)

A mean of several glyphs is none of them, so that (2) falls where a network draws the mean of what it might have drawn:
the plainest sign of blur. (2) is 1/10 at worst. No prompt names a glyph: (3) is for deterministic samplers, whose
picture is a function of the noise. No loss of any method uses the reader, which is trained on rendered pictures alone.
"""

from collections.abc import Iterator

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from distill_lib.engine.loop import Progress, TrainSettings
from distill_lib.engine.store import Run
from distill_lib.engine.trainable import Trainable
from distill_lib.measure.readers.attributes import AttributeReader, attribute_loss
from distill_lib.measure.readers.common import answers_of, chosen, train_degraded
from distill_lib.worlds.glyphs import GLYPHS
from distill_lib.worlds.room import FLOORS
from distill_lib.worlds.studio import StudioScenes
from distill_lib.worlds.vocabulary import STUDIO

_DETAILS = len(GLYPHS), len(FLOORS)


class StudioReader(AttributeReader):
    """Pictures (B, 3, R, R) in [-1, 1] -> logits of both solids (B, 2, 25), glyph (B, 10), floor (B, 4)."""

    def __init__(self, width: int = 32, side: int = 64) -> None:
        super().__init__(width, side, STUDIO)
        inputs = self.read.in_features
        self.detail = nn.Sequential(nn.Linear(inputs, 128), nn.SiLU(), nn.Linear(128, sum(_DETAILS)))

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        seen = self.body(image).flatten(1)
        return self.read(seen).unflatten(1, (2, -1)), *self.detail(seen).split(_DETAILS, 1)


def details(scenes: StudioScenes) -> Tensor:
    """Glyph and kind of floor of scenes, (B, 2)."""
    return torch.cat([scenes.glyph, scenes.floor_kind], 1)


def studio_loss(answers: tuple[Tensor, Tensor, Tensor], truth: Tensor, unnamed: Tensor) -> Tensor:
    """Mean cross-entropy of the attributes (B, 2, 4) plus those of glyph and floor, `unnamed` (B, 2), (B,)."""
    solids, *rest = answers
    parts = [cross_entropy(part, right, reduction="none") for part, right in zip(rest, unnamed.unbind(1), strict=True)]
    return attribute_loss(solids, truth, STUDIO.kinds) + torch.stack(parts).sum(0)


def train_studio_reader(
    net: Trainable, image: Tensor, truth: tuple[Tensor, Tensor], settings: TrainSettings, run: Run
) -> Iterator[Progress]:
    """Train net.module, as all readers, on pictures uint8 (N, 3, R, R), their attributes (N, 2, 4) and `details`."""

    def loss(answers: list[Tensor], attributes: Tensor, unnamed: Tensor, *_: Tensor) -> Tensor:
        return studio_loss((answers[0], answers[1], answers[2]), attributes, unnamed)

    return train_degraded(net, chosen(image, *truth), loss, settings, run)


def glyph_probabilities(net: nn.Module, image: Tensor) -> Tensor:
    """What a reader thinks of the posters of pictures uint8 (N, 3, R, R), (N, 10)."""
    return answers_of(net, image)[1].softmax(1)


def floors_read(net: nn.Module, image: Tensor) -> Tensor:
    """The kind of floor that a reader sees in pictures uint8 (N, 3, R, R), (N,)."""
    return answers_of(net, image)[2].argmax(1)


def glyphs_read(probability: Tensor, glyph: Tensor) -> float:
    """(1) of probabilities (N, 10) and the true glyphs (N,)."""
    return (probability.argmax(1) == glyph).double().mean().item()


def legible(probability: Tensor) -> float:
    """(2) of probabilities (N, 10)."""
    return probability.amax(1).double().mean().item()


def legible_agreement(probability: Tensor, teacher: Tensor) -> float:
    """(3) of probabilities (N, 10) in pictures, and in the teacher's from the same noise."""
    return (probability.argmax(1) == teacher.argmax(1)).double().mean().item()

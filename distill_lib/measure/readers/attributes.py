"""Whether a picture shows what its prompt asks for: a network reads both solids, and its answers are counted.

    attribute_accuracy   share of shapes and colours that are right, in the order of the solids that fits better   (1)
    prompt_accuracy      share of pictures with shape, colour, texture and size right, of the left and the right    (2)

Attributes (B, 2, 4) are those of `worlds.captions`: shape, colour, texture, small, of the left and of the right solid;
in the studio of the first and the second one, with their relation in the place of small.
The reader is trained on rendered pictures alone, with a seed and a form of its own; no loss of any method uses it.
"""

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from distill_lib.engine.loop import Progress, TrainSettings
from distill_lib.engine.store import Run
from distill_lib.engine.trainable import Trainable
from distill_lib.measure.readers.common import answers_of, chosen, train_degraded
from distill_lib.worlds.vocabulary import SCENES, Vocabulary


class AttributeReader(nn.Module):
    """Pictures (B, 3, R, R) in [-1, 1] -> logits of each attribute of the left and the right solid, (B, 2, 17).

    So many of the words of the first world.
    """

    def __init__(self, width: int = 32, side: int = 64, words: Vocabulary = SCENES) -> None:
        super().__init__()
        sizes = (width, 2 * width, 4 * width, 4 * width)
        layers: list[nn.Module] = [nn.Conv2d(3, width, 3, 1, 1, bias=False), nn.GroupNorm(8, width), nn.SiLU()]
        for a, b in zip((width, *sizes), sizes, strict=False):
            layers += [nn.Conv2d(a, b, 3, 2, 1, bias=False), nn.GroupNorm(8, b), nn.SiLU()]
            layers += [nn.Conv2d(b, b, 3, 1, 1, bias=False), nn.GroupNorm(8, b), nn.SiLU()]
        self.body = nn.Sequential(*layers)
        self.read = nn.Linear(sizes[-1] * (side // 16) ** 2, 2 * words.logits)

    def forward(self, image: Tensor) -> Tensor:
        return self.read(self.body(image).flatten(1)).unflatten(1, (2, -1))


def attribute_loss(logits: Tensor, truth: Tensor, kinds: Sequence[int] = SCENES.kinds) -> Tensor:
    """Mean cross-entropy of all attributes (B, 2, 17) of both solids against the truth (B, 2, 4), (B,).

    `kinds` says how many values each attribute has.
    """
    parts = zip(logits.split(tuple(kinds), 2), truth.unbind(2), strict=True)
    return torch.stack([cross_entropy(part.mT, right, reduction="none").mean(1) for part, right in parts]).mean(0)


def train_reader(net: Trainable, image: Tensor, truth: Tensor, settings: TrainSettings, run: Run) -> Iterator[Progress]:
    """Train net.module on pictures uint8 (N, 3, R, R) and their attributes, blurred or grainy by halves."""
    return _train(net, image, truth, settings, run)


def train_on_clean(
    net: Trainable, image: Tensor, truth: Tensor, kinds: Sequence[int], settings: TrainSettings, run: Run
) -> Iterator[Progress]:
    """The same on pictures as they are: a network whose features see blur, since nothing tells it to overlook it.

    `kinds` as in `attribute_loss`.
    """
    return _train(net, image, truth, settings, run, kinds, 0.0)


def _train(
    net: Trainable,
    image: Tensor,
    truth: Tensor,
    settings: TrainSettings,
    run: Run,
    kinds: Sequence[int] = SCENES.kinds,
    most: float = 1.0,
) -> Iterator[Progress]:
    def loss(logits: Tensor, truth: Tensor, *_: Tensor) -> Tensor:
        return attribute_loss(logits, truth, kinds)

    return train_degraded(net, chosen(image, truth), loss, settings, run, most)


def read_attributes(net: nn.Module, image: Tensor, kinds: Sequence[int] = SCENES.kinds) -> Tensor:
    """The attributes that the reader finds in pictures uint8 (N, 3, R, R), (N, 2, 4); `kinds` as `attribute_loss`."""
    return torch.stack([part.argmax(2) for part in answers_of(net, image)[0].split(tuple(kinds), 2)], 2)


def attribute_accuracy(predicted: Tensor, wanted_attributes: Tensor) -> Tensor:
    """(1) of each picture, (N,); attributes (N, 2, 4)."""
    straight, crossed = (
        (objects[..., :2] == wanted_attributes[..., :2]).double().mean((1, 2))
        for objects in (predicted, predicted.flip(1))
    )
    return torch.maximum(straight, crossed)


def prompt_accuracy(predicted: Tensor, wanted_attributes: Tensor) -> Tensor:
    """(2) of each picture, 0 or 1, (N,); attributes (N, 2, 4)."""
    return (predicted == wanted_attributes).flatten(1).all(1).double()

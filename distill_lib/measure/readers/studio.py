"""What a picture of the studio shows, named or not: both solids and their relation, the glyph and the kind of floor.

    glyphs_read        share of posters whose glyph is named right                                                (1)
    legible            mean over pictures of the largest probability of a glyph: how sure the reader is           (2)
    legible_agreement  share of pictures whose glyph is read as that of the teacher's picture from the same noise (3)

A mean of several glyphs is none of them, so that (2) falls where a network draws the mean of what it might have drawn:
the plainest sign of blur. (2) is 1/10 at worst. No prompt names a glyph: (3) is for deterministic samplers, whose
picture is a function of the noise. No loss of any method uses the reader, which is trained on rendered pictures alone.

A reader of whole glyphs alone is sure of a mean too: the mean of all ten looks like an 8. So half of what it is trained
on are means of one scene with every glyph, and it answers with their weights:

    picture = sum_g p_g picture_g,     p = softmax(8 u n),   u uniform in (0, 1), n (10,) unit normal           (4)
"""

from collections.abc import Iterator
from dataclasses import replace

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, one_hot

from distill_lib.diffusion.noise import Draws
from distill_lib.engine.loop import Progress, TrainSettings
from distill_lib.engine.store import Run
from distill_lib.engine.trainable import Trainable
from distill_lib.measure.readers.attributes import AttributeReader, attribute_loss
from distill_lib.measure.readers.common import answers_of, train_degraded
from distill_lib.worlds.glyphs import GLYPHS
from distill_lib.worlds.room import FLOORS
from distill_lib.worlds.scenes import draw_scenes, rendered
from distill_lib.worlds.studio import StudioScenes, StudioSpec
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


def in_all_glyphs(spec: StudioSpec, seed: int, count: int) -> Tensor:
    """The first `count` scenes of a seed, each with every glyph on its poster, uint8 (N, 10, 3, R, R)."""
    scenes = draw_scenes(spec, seed, torch.arange(count))
    pictures = [rendered(spec, replace(scenes, glyph=torch.full_like(scenes.glyph, g)))[0] for g in range(len(GLYPHS))]
    return torch.stack(pictures, 1)


def mixed(image: Tensor, share: Tensor) -> Tensor:
    """Means (B, 3, R, R) of pictures uint8 (B, K, 3, R, R) with weights `share` (B, K), which add up to 1; rounded."""
    return torch.einsum("bk,bkcij->bcij", share, image.float()).round().to(torch.uint8)


def glyph_shares(draws: Draws) -> Tensor:
    """p of (4), (B, 10)."""
    return (8 * draws.uniform("spread")[:, None] * draws.normal("glyphs", (len(GLYPHS),))).softmax(1)


def studio_loss(
    answers: tuple[Tensor, Tensor, Tensor], truth: Tensor, share: Tensor, floor: Tensor, whole: Tensor
) -> Tensor:
    """Cross-entropy of the glyph's weights, of whole pictures also the mean of the attributes', and the floor's, (B,).

    Args:
        answers: of `StudioReader`.
        truth: attributes (B, 2, 4).
        share: weights of the glyphs, (B, 10), of a whole picture all on one.
        floor: kind, (B,).
        whole: which pictures are no mean, bool (B,); of a mean neither `truth` nor `floor` is read.
    """
    solids, glyph, kind = answers
    rest = attribute_loss(solids, truth, STUDIO.kinds) + cross_entropy(kind, floor, reduction="none")
    return cross_entropy(glyph, share, reduction="none") + whole * rest


def train_studio_reader(
    net: Trainable, image: Tensor, truth: tuple[Tensor, Tensor], every: Tensor, settings: TrainSettings, run: Run
) -> Iterator[Progress]:
    """Train net.module, as all readers, on pictures and on means of pictures, in turn.

    Args:
        image: whole pictures, uint8 (N, 3, R, R).
        truth: their attributes (N, 2, 4) and `details` (N, 2).
        every: `in_all_glyphs` of other scenes, uint8 (M, 10, 3, R, R).
    """
    solids, unnamed = truth

    def batch(draws: Draws) -> list[Tensor]:
        whole, share = draws.index.cpu() % 2 == 0, glyph_shares(draws).cpu()
        i, j = (draws.integer(name, len(of)).cpu() for name, of in (("picture", image), ("scene", every)))
        x = torch.where(whole[:, None, None, None], image[i], mixed(every[j], share))
        share = torch.where(whole[:, None], one_hot(unnamed[i, 0], share.shape[1]).to(share), share)
        return [x, solids[i], share, unnamed[i, 1], whole]

    def loss(answers: list[Tensor], *known: Tensor) -> Tensor:
        attributes, share, floor, whole, *_ = known
        return studio_loss((answers[0], answers[1], answers[2]), attributes, share, floor, whole)

    return train_degraded(net, batch, loss, settings, run)


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

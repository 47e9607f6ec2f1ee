"""Styles measured: the same scenes in several looks, so that what a styled picture should be is known.

    style            share of pictures that a reader of looks calls pictures of the wanted one
    fid_look         Frechet distance to the world's pictures of the same prompts, in that look
    mmd_look         `distances.mmd2` to true pictures of other scenes in that look: 0 on average for true ones
    layout           overlap of both solids with those of the same picture before the style, same prompt and noise
    prompt_accuracy  as everywhere; the reader knows photos alone, so that what it says of true pictures is its bound
    sharpness        variance of the Laplacian

Prompts are what the scenes show, in words; noise is the same for everybody. No network that reads is behind a loss.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from distill_lib.measure.distances import mmd2
from distill_lib.measure.features import Features, reference
from distill_lib.measure.metrics import Reader, fid, laplacian_variance, psnr
from distill_lib.measure.prompts import Judges, PromptBenchmark, real_pictures, through
from distill_lib.measure.readers.attributes import prompt_accuracy, read_attributes
from distill_lib.measure.readers.common import Once
from distill_lib.measure.readers.extractor import Extractor, called_look
from distill_lib.measure.readers.layout import Layout, layout_iou, read_layout
from distill_lib.measure.rows import Estimate, Row, tidy
from distill_lib.networks.adapter import Network
from distill_lib.networks.pipeline import TextToImage
from distill_lib.worlds.captions import say
from distill_lib.worlds.scenes import LOOKS

_STANDARD = 8  # real pictures behind the standardised features, for one that is measured
Decode = Callable[[Tensor], Tensor]
"""Latents (B, C, H, W) -> pictures (B, 3, R, R) in [-1, 1]."""


def world_of(look: str) -> str:
    """The world of two objects in a look.

    Raises:
        ValueError: the world is not drawn so.
    """
    if look not in LOOKS:
        raise ValueError(f"look={look!r}: the world is drawn as {', '.join(LOOKS)}")
    return "captioned" if look == "photo" else f"captioned-{look}"


@dataclass(frozen=True)
class Readers:
    """What measures: an extractor that knows all looks, a reader of layouts, one of attributes that knows photos."""

    extractor: Extractor
    layout: Layout
    attributes: nn.Module


class Looks:
    """Scenes in all looks, their prompts, and what pictures of these prompts are compared with.

    Args:
        model: the plain teacher.
        readers: what measures.
        n: scenes, prompts and pictures behind each metric.
        steps, w: of the teacher.
        seed: of scenes and noise.
    """

    def __init__(self, model: TextToImage, readers: Readers, n: int, steps: int, w: float, seed: int = 0) -> None:
        self.model, self.readers, self.n, self.steps, self.w, self.seed = model, readers, n, steps, w, seed
        self.real = {look: real_pictures(world_of(look), n, seed, use="looks")[0] for look in LOOKS}
        self.shows = real_pictures("captioned", n, seed, use="looks")[1]
        self.reader = Reader(readers.extractor)
        self.layout = Once(partial(read_layout, readers.layout))
        self._others: dict[str, tuple[Features, Tensor]] = {}
        self._benchmarks = [self._prompted(seed), self._prompted(seed + 1000)]

    def _prompted(self, seed: int) -> PromptBenchmark:
        judges = Judges(self.reader, lambda image, prompts: torch.zeros(len(image)))
        return PromptBenchmark(self.model, judges, "", self.n, self.steps, self.w, seed, prompts=say(self.shows))

    @property
    def prompts(self) -> list[str]:
        """What is asked for, the same for all looks."""
        return self._benchmarks[0].prompts

    def one_step(self, net: Network, fresh: bool = False) -> Tensor:
        """Pictures uint8 (n, 3, R, R) of the prompts by a student of one step; `fresh`: from other noise."""
        return self._benchmarks[fresh].pictures(net, 1, 0.0)

    def many_steps(self, net: Network) -> Tensor:
        """The same by a teacher with guidance."""
        return self._benchmarks[0].pictures(net, self.steps, self.w, "unipc")

    def others(self, look: str) -> tuple[Features, Tensor]:
        """Features that real pictures of a look standardise, and its true pictures uint8 (n, 3, R, R) of other scenes.

        What is measured answers the prompts of `real`, so that it is no set independent of those.
        """
        if look not in self._others:
            features = Features(self.reader, reference(self.reader, world_of(look), _STANDARD * self.n))
            image = real_pictures(world_of(look), self.n, self.seed, use="looks again")[0]
            self._others[look] = features, image
        return self._others[look]

    def look_distance(self, image: Tensor, look: str) -> Estimate:
        """mmd_look of pictures uint8 (n, 3, R, R)."""
        features, other = self.others(look)
        return mmd2(features(image), features(other))

    def judged(self, image: Tensor, look: str, before: Tensor) -> dict[str, float | Estimate]:
        """The metrics of pictures uint8 (n, 3, R, R) that should be of a look; `before`: without the style."""
        called = called_look(self.readers.extractor, image, LOOKS)
        predicted = read_attributes(self.readers.attributes, image)
        return {
            "style": (called == LOOKS.index(look)).double().mean().item(),
            "fid_look": fid(self.reader, image, self.real[look]),
            "mmd_look": self.look_distance(image, look),
            "layout": layout_iou(self.layout(image), self.layout(before)).mean().item(),
            "prompt_accuracy": prompt_accuracy(predicted, self.shows).mean().item(),
            "sharpness": laplacian_variance(image),
        }

    def rows(self, method: str, image: Tensor, look: str, before: Tensor, **columns: Any) -> list[Row]:
        """What `judged` finds, a row a metric; `columns` holds more columns."""
        values = self.judged(image, look, before)
        return tidy(values, method=method, kind=look, **columns, n=self.n, seed=self.seed)

    def through(self, image: Tensor, decode: Decode) -> Tensor:
        """Pictures uint8 after the pipeline's encoder and a decoder of its latents."""
        return through(self.model, image, decode)

    def decoder_rows(self, decoders: dict[str, Decode], looks: Sequence[str] = LOOKS) -> list[Row]:
        """What decoders make of latents of true pictures in each look: PSNR in dB, and the share of the sharpness kept.

        A look that is lost here can be reached by no student behind the decoder.
        """
        rows = []
        for look in looks:
            for method, decode in decoders.items():
                image = self.through(self.real[look], decode)
                kept = laplacian_variance(image) / laplacian_variance(self.real[look])
                values = {"psnr": psnr(image, self.real[look]), "sharpness_kept": kept}
                rows += tidy(values, method=method, kind=look, n=self.n, seed=self.seed)
        return rows

    def bound_rows(self, look: str, decode: Decode) -> list[Row]:
        """True pictures in a look, as they are and through a student's decoder, beside photos of the same scenes."""
        true, photo = self.real[look], self.real["photo"]
        # what is left between two true sets
        values = self.judged(true, look, photo) | {"fid_look": fid(self.reader, self.others(look)[1], true)}
        rows = tidy(values, method="true pictures", kind=look, n=self.n, seed=self.seed)
        return rows + self.rows("true, tiny decoder", self.through(true, decode), look, photo)

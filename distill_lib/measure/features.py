"""Standardised features of pictures, from the last layer and two early layers of the extractor; moments of real ones.

    f = [64 features of the last layer; mean and standard deviation over places of each channel of two early layers]
    z = (f - mean_r) / std_r,    r: real pictures                                                                (1)

The last layer describes what is shown and little of fine pattern; the early layers describe pattern and little of what
is shown. Without (1) a distance would depend almost only on the few features of large spread. Nothing is trained for
these features. A reader that is no `Extractor` (Inception) has no early layers here.

Moments of real pictures are updated part by part (Chan's update), so that the pictures need not be kept:

    n = a + b,    mean = mean_a + b/n d,    S = S_a + S_b + a b/n d d^T,    d = mean_b - mean_a                  (2)
"""

import torch
from torch import Tensor
from torch.nn.functional import interpolate
from torch.utils.weak import WeakTensorKeyDictionary

from distill_lib.diffusion.pixels import to_unit
from distill_lib.engine.store import cached
from distill_lib.measure.distances import Moments
from distill_lib.measure.metrics import Reader
from distill_lib.measure.readers.extractor import Extractor
from distill_lib.worlds.captions import attributes, names_held_out
from distill_lib.worlds.pictures import REAL, WORLDS, DatasetSpec, fingerprint, load, render_pictures
from distill_lib.worlds.scenes import draw_scenes
from distill_lib.worlds.seeds import held_out_seed
from distill_lib.worlds.vocabulary import vocabulary_of

_PART = 1024  # pictures of the stream at a time
_REFERENCE = 2  # part of the held-out pictures; 0 and 1 are those that samples are compared with one by one
_BLOCK = 3  # layers of a block of the extractor: convolution, norm, ReLU


@torch.no_grad()
def early(net: Extractor, image: Tensor) -> Tensor:
    """Mean and standard deviation over places of the channels of the first two blocks, (N, 2 (C_1 + C_2)), float64.

    Args:
        net: the extractor. Its convolutions are read before they are normalised: blur makes their answers smaller, and
            a normalisation would make them larger again. (With normalised ones DDIM with 8 steps is 5 standard errors
            from the teacher in place of 10, LOG.md.)
        image: pictures uint8 (N, 3, R, R).
    """
    batches = []
    for part in image.split(256):
        first = net.body[0](_sized(to_unit(part), net.side))
        second = net.body[_BLOCK](net.body[1:_BLOCK](first))
        parts = [stat(layer, (2, 3)) for layer in (first, second) for stat in (torch.mean, torch.std)]
        batches.append(torch.cat(parts, 1).double())
    return torch.cat(batches)


def _sized(image: Tensor, side: int) -> Tensor:
    return image if image.shape[-1] == side else interpolate(image, size=(side, side), mode="area")


class Features:
    """f of a reader, and z by the moments of real pictures; kept for as long as a tensor of pictures lives.

    Args:
        reader: reads the last layer.
        real: moments of f over real pictures, as `reference` gives.
    """

    def __init__(self, reader: Reader, real: Moments) -> None:
        self.reader, self.real = reader, real
        self._read = WeakTensorKeyDictionary()

    def raw(self, image: Tensor) -> Tensor:
        """f, (N, F), of pictures uint8 (N, 3, R, R)."""
        if image not in self._read:
            self._read[image] = features_of(self.reader, image)
        return self._read[image]

    def __call__(self, image: Tensor) -> Tensor:
        """z of (1), (N, F); a feature that is the same for all real pictures is set to 0."""
        spread = self.real.covariance.diagonal().sqrt()
        return torch.where(spread > 0, (self.raw(image) - self.real.mean) / spread, 0.0)

    def last(self, image: Tensor) -> Tensor:
        """The last layer alone, not standardised, as FID and coverage read it."""
        return self.reader.read(image)[self.reader.features]


def features_of(reader: Reader, image: Tensor) -> Tensor:
    """f of pictures uint8 (N, 3, R, R), (N, F), float64."""
    last = reader.read(image)[reader.features].double()
    return torch.cat([last, early(reader.net, image)], 1) if isinstance(reader.net, Extractor) else last


def joined(first: Moments, other: Moments) -> Moments:
    """(2): the moments of two sets together."""
    n, d = first.count + other.count, other.mean - first.mean
    outer = first.count * other.count / n * torch.outer(d, d)
    total = (first.count - 1) * first.covariance + (other.count - 1) * other.covariance + outer
    return Moments(first.mean + other.count / n * d, total / (n - 1), n)


def moments(features: Tensor) -> Moments:
    """Of features (N, F), N at least 2."""
    return Moments(features.mean(0), features.T.cov(), len(features))


def reference(reader: Reader, world: str, count: int) -> Moments:
    """Moments of f over `count` real pictures that no training of ours has seen; of real data over training pictures.

    Rendered and read once, and kept by the reader: its class, its weights and the layer that is read. Of a world of two
    objects they leave out those that hold a pair of `worlds.captions.HELD_OUT`, which no prompt names.
    """
    spec = {"data": fingerprint(world)} if world in REAL else {"world": WORLDS[world]}
    spec |= {"reader": reader.net, "layer": reader.features, "count": count}

    def make() -> dict[str, Tensor]:
        whole = None
        for part in torch.arange(count).split(_PART):
            if len(image := _real(world, part)) > 1:
                of_part = moments(features_of(reader, image))
                whole = of_part if whole is None else joined(whole, of_part)
        return {"mean": whole.mean, "covariance": whole.covariance, "count": torch.tensor(whole.count)}

    kept = cached("reference", spec, make, reference)
    return Moments(kept["mean"], kept["covariance"], int(kept["count"]))


def _real(world: str, index: Tensor) -> Tensor:
    if world in REAL:
        image = load(DatasetSpec(name=world)).image
        return image[index[index < len(image)]]
    spec, seed = WORLDS[world], held_out_seed("measured", _REFERENCE)
    if spec.objects == 2:
        index = index[~names_held_out(attributes(draw_scenes(spec, seed, index), spec), vocabulary_of(spec))]
    return render_pictures(spec, seed, index)[0]

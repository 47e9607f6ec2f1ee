"""Memorisation and diversity: how close samples come to training pictures, and to one another.

    nearest     Euclidean distance of pixels from each sample to the nearest of a set of pictures, and which that is
    novelty     `nearest` among training pictures over `nearest` among as many that were never trained on
    pairwise    mean distance between the features of samples of one class

`novelty` is 1 for a network that draws new pictures, and near 0 for one that repeats its training set; blur changes
both distances alike.
"""

from dataclasses import replace

import torch
from torch import Tensor

from distill_lib.diffusion.pixels import to_unit
from distill_lib.measure.metrics import Reader
from distill_lib.worlds.pictures import REAL, Pictures, load

_CHUNK = 4096  # training pictures compared at a time


def unseen(pictures: Pictures) -> Pictures:
    """As many pictures of the same kind that no training has seen: other scenes of a world; of real data test pictures,
    at most as many as there are."""
    other = {"split": "test"} if pictures.spec.name in REAL else {"seed": 1}
    return load(replace(pictures.spec, **other))


def nearest(image: Tensor, among: Tensor) -> tuple[Tensor, Tensor]:
    """For pictures uint8 (N, 3, R, R): distance (N,) to the nearest of `among` (M, 3, R, R), and its number (N,)."""
    x = to_unit(image.flatten(1))
    distance = torch.full((len(x),), torch.inf)
    number = torch.zeros(len(x), dtype=torch.long)
    for start in range(0, len(among), _CHUNK):
        y = to_unit(among[start : start + _CHUNK].flatten(1))
        square = x.square().sum(1, keepdim=True) - 2 * x @ y.T + y.square().sum(1)
        closest, index = square.clamp(min=0).min(1)
        number = torch.where(closest < distance, start + index, number)
        distance = torch.minimum(closest, distance)
    return distance.sqrt(), number


def novelty(image: Tensor, training: Tensor, other: Tensor) -> Tensor:
    """Distance to the nearest of `training` over that to the nearest of `other`, (N,), for uint8 (N, 3, R, R)."""
    return nearest(image, training)[0] / nearest(image, other)[0]


def with_counts(label: Tensor, wanted: Tensor) -> Tensor:
    """Numbers of pictures of classes (M,) of which class c comes wanted[c] times, or as often as there are."""
    return torch.cat([(label == c).nonzero()[:count, 0] for c, count in enumerate(wanted.tolist())])


def pairwise(reader: Reader, image: Tensor, label: Tensor) -> float:
    """Mean distance between the features of different pictures of one class, over all classes that have two.

    image: uint8 (N, 3, R, R); label: (N,).

    Raises:
        ValueError: no class has two pictures.
    """
    features = reader.read(image)["64"]
    same = (label[:, None] == label).triu(1)
    if not same.any():
        raise ValueError(f"{len(label)} pictures hold no two of one class; take more")
    return torch.cdist(features, features)[same].mean().item()

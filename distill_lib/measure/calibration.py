"""How each ruler answers to damage that is known: what it sees, from which strength on, and what it is blind to.

Untouched sets of n real pictures, K of them, say how far a value moves by chance; damage is seen where

    |value - mean over untouched sets| > THRESHOLD times their standard deviation                                    (1)

All sets of a bench are compared with one set of n other real pictures, and FID with the moments of many. Each seed has
a bench of its own, with another set to compare with, so a value is judged by the untouched sets of its own bench. `fid`
stands beside `fid_inf` to show the bias of few pictures. The rulers are those of `rulers.world_values`, and

    copies    share of pictures whose distance to the nearest training picture is less than half of the distance to the
              nearest picture that was never trained on (`memorisation.novelty` below 0.5)
"""

from collections.abc import Iterable
from dataclasses import dataclass
from statistics import fmean, stdev

from torch import Tensor

from distill_lib.measure.corruptions import CORRUPTIONS, STRENGTHS, Pool
from distill_lib.measure.distances import frechet
from distill_lib.measure.features import Features
from distill_lib.measure.memorisation import novelty
from distill_lib.measure.rows import Estimate, Row, select, tidy
from distill_lib.measure.rulers import world_values
from distill_lib.worlds.pictures import REAL, DatasetSpec, Pictures, load
from distill_lib.worlds.seeds import held_out_seed

THRESHOLD = 4
"""Standard deviations of a bench's untouched sets, beyond which damage counts as seen. With eight sets chance alone
exceeds it in less than one case in a hundred."""
PURPOSE = {
    "fid": "one number for tables; with few pictures mostly its own bias",
    "fid_inf": "the same without the bias, so that numbers of two sizes compare",
    "mmd_world": "whether two distributions differ at all: 0 on average where they do not, with an error of its own",
    "precision": "share of samples that lie among real pictures: spoiled ones do not",
    "recall": "share of real pictures that lie among samples: lost variety shows, in large sets",
    "density": "as precision, but not fooled by a single outlying real picture",
    "coverage": "share of real pictures with a sample nearby: what was dropped is missing here",
    "sharpness_ratio": "blur below 0.9, noise above 1.1; says nothing of what is shown",
    "fine_ratio": "where in the spectrum it is lost: the share of power above 7 cycles",
    "copies": "the one that looks into the training set: all others count a copy as a perfect sample",
}
"""What each ruler is for, in the order of tables."""
_POOL, _OTHER, _REAL, _SEEDS = 3, 4, 5, 10  # parts of the held-out pictures, and parts to each seed


@dataclass(frozen=True)
class Bench:
    """What damaged sets are compared with.

    Args:
        features: standardised by many real pictures.
        pool: sets of n to be measured, and training pictures.
        real: n other real pictures.
        other: as many pictures as the training ones that were never trained on.
        seed: which of all such sets these are; rows hold it.
    """

    features: Features
    pool: Pool
    real: Tensor
    other: Tensor
    seed: int = 0

    @property
    def n(self) -> int:
        """Pictures of a set."""
        return len(self.real)

    def untouched(self, n: int) -> list[Tensor]:
        """Disjoint sets of n real pictures: the first n of each of those that the pool holds."""
        return [part[:n] for part in self.pool.real.image.split(self.n)]

    def values(self, image: Tensor) -> dict[str, float | Estimate]:
        """What each ruler says of pictures uint8 (n, 3, R, R), by the names of PURPOSE, n at most that of the sets.

        Sets of fewer pictures are there to show what few pictures do, so `fid_inf` is computed of them at any size.
        """
        last = self.features.last(image)
        values = world_values(self.features, image, self.real[: len(image)], few=len(image) < self.n)
        values["fid"] = frechet(last, self.features.real.first(last.shape[1]))
        copies = novelty(image, self.pool.training, self.other) < 0.5
        return values | {"copies": copies.double().mean().item()}


def bench(features: Features, world: str, n: int, sets: int, seed: int = 0) -> Bench:
    """A bench of `sets` untouched sets of n pictures of an embedded world, and of n training pictures to copy.

    Raises:
        ValueError: the world is real data, of which no new pictures can be rendered.
    """
    if world in REAL:
        raise ValueError(f"world={world!r}: rulers are tried on an embedded world, where new pictures can be rendered")

    def fresh(part: int, count: int) -> Pictures:
        return load(DatasetSpec(name=world, count=count, seed=held_out_seed("measured", part + _SEEDS * seed)))

    pool = Pool(fresh(_POOL, sets * n), load(DatasetSpec(name=world, count=n)).image)
    return Bench(features, pool, fresh(_REAL, n).image, fresh(_OTHER, n).image, seed)


def untouched_rows(bench: Bench, counts: Iterable[int]) -> list[Row]:
    """The rulers on sets that nothing was done to, of each of the sizes; rows differ in `set` and `n`."""
    rows = []
    for n in counts:
        for number, image in enumerate(bench.untouched(n)):
            rows += tidy(bench.values(image), corruption="none", strength=0.0, set=number, n=n, seed=bench.seed)
    return rows


def corruption_rows(bench: Bench, name: str, strengths: int) -> list[Row]:
    """The rulers on sets with damage of `corruptions`, the last so many of its STRENGTHS."""
    rows = []
    for strength in STRENGTHS[name][-strengths:]:
        image = CORRUPTIONS[name](bench.pool, bench.n, strength)
        rows += tidy(bench.values(image), corruption=name, strength=strength, n=bench.n, seed=bench.seed)
    return rows


def chance(rows: list[Row], metric: str, n: int, seed: int) -> tuple[float, float]:
    """Mean and standard deviation of a ruler over the untouched sets of n pictures of one bench."""
    values = [row["value"] for row in select(rows, corruption="none", metric=metric, n=n, seed=seed)]
    return fmean(values), stdev(values)


def seen_from(rows: list[Row], metric: str, corruption: str) -> float | None:
    """The least strength such that a ruler sees it and all greater ones, by (1), in every seed's bench; or None."""
    selected, least = select(rows, corruption=corruption, metric=metric), None
    for strength in sorted({row["strength"] for row in selected}, reverse=True):
        same = select(selected, strength=strength)
        values = [(row["value"], *chance(rows, metric, row["n"], row["seed"])) for row in same]
        if any(abs(value - mean) <= THRESHOLD * spread for value, mean, spread in values):
            break
        least = strength
    return least

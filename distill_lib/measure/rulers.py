"""The second set of rulers: one row a metric for samples that are independent of what they are compared with.

    mmd_teacher        `distances.mmd2` to the many-step teacher at the same w, from other noise and other classes; its
                       mean is 0 for a perfect student, whatever its sampler
    mmd_world          the same to real pictures
    fid_inf            FID to the world, extrapolated to infinitely many samples
    precision, recall  torch-fidelity's, to as many real pictures
    density, coverage  `coverage.density_and_coverage`, likewise
    sharpness_ratio    sharpness over that of real pictures
    fine_ratio         share of the power above 7 cycles over that of real pictures

Rows of the first three hold the standard error beside the value, `error`. Guidance with w > 0 makes the distribution
narrower than that of the world on purpose, so a distance to the world becomes smaller where a student follows guidance
less. What distillation loses is measured by `mmd_teacher`.
"""

from dataclasses import asdict
from typing import Any

from torch import Tensor

from distill_lib.diffusion.samplers import nfe
from distill_lib.measure.coverage import density_and_coverage, precision_and_recall
from distill_lib.measure.distances import Estimate, fid_inf, mmd2
from distill_lib.measure.draw import held_out
from distill_lib.measure.features import Features
from distill_lib.measure.independent import Sampled, independent_samples
from distill_lib.measure.metrics import paired
from distill_lib.measure.rows import Row
from distill_lib.measure.spectrum import fine_share, sharpness_ratio


def world_values(features: Features, image: Tensor, real: Tensor, few: bool = False) -> dict[str, float | Estimate]:
    """All of these metrics but the teacher's, of pictures uint8 (n, 3, R, R) against as many real ones.

    Args:
        features: standardised by the moments of the reference pictures, whose last layer FID is taken to.
        image, real: independent sets of one size.
        few: as in `distances.fid_inf`, which refuses too few pictures otherwise.
    """
    last, known = features.last(image), features.last(real)
    return {
        "mmd_world": mmd2(features(image), features(real)),
        "fid_inf": fid_inf(last, features.real.first(last.shape[1]), few),
        **precision_and_recall(last, known),
        **density_and_coverage(last, known),
        "sharpness_ratio": sharpness_ratio(image, real),
        "fine_ratio": fine_share(image) / fine_share(real),
    }


def tidy(values: dict[str, float | Estimate], **columns: Any) -> list[Row]:
    """A row a value, with its `error` where it has one."""
    return [
        columns | {"metric": metric} | (asdict(value) if isinstance(value, Estimate) else {"value": value})
        for metric, value in values.items()
    ]


def paired_distance(sampled: Sampled, image: Tensor, other: Tensor) -> float:
    """Mean of `metrics.paired` between pictures of a sampler and others from the same z_T.

    Raises:
        ValueError: the sampler draws noise on the way, so that even a perfect network would not get 0.
    """
    if not sampled.deterministic:
        raise ValueError(
            f"sampler={sampled.sampler!r} with {sampled.n_steps} steps draws noise on the way: its pictures have no "
            "partners; take mmd_teacher"
        )
    return paired(image, other).mean().item()


class Rulers:
    """What samples of networks of one world are measured by.

    Args:
        features: the reader, standardised.
        world: a name of WORLDS or of REAL.
        truth: the teacher and its many steps; its w is that of whatever is compared with it.
        n: samples behind each metric.
        seed: of the samples, and of the truth's, which are others.
    """

    def __init__(self, features: Features, world: str, truth: Sampled, n: int, seed: int = 0) -> None:
        self.features, self.world, self._teacher, self.n, self.seed = features, world, truth, n, seed
        self.real = held_out(world, n)
        self._truth: dict[float, Tensor] = {}

    def truth(self, w: float) -> Tensor:
        """The teacher's pictures at w, from noise that no student meets."""
        if w not in self._truth:
            teacher = Sampled(self._teacher.net, self._teacher.n_steps, w, self._teacher.sampler)
            self._truth[w] = independent_samples(teacher, self.n, self.seed, "truth")
        return self._truth[w]

    def rows(self, method: str, sampled: Sampled) -> list[Row]:
        """All metrics of this module for a network's samples, one row each; `method` is their label."""
        image = independent_samples(sampled, self.n, self.seed)
        values = {"mmd_teacher": mmd2(self.features(image), self.features(self.truth(sampled.w)))}
        values |= world_values(self.features, image, self.real)
        evaluations = nfe(sampled.n_steps, sampled.w, not sampled.net.takes_w)
        columns = {"method": method, "steps": sampled.n_steps, "w": sampled.w, "nfe": evaluations, "seed": self.seed}
        return tidy(values, **columns, n=self.n)

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

from collections.abc import Callable, Iterable, Sequence

from torch import Tensor

from distill_lib.diffusion.samplers import nfe
from distill_lib.measure.coverage import density_and_coverage, precision_and_recall
from distill_lib.measure.distances import enough, fid_inf, mmd2
from distill_lib.measure.features import Features
from distill_lib.measure.independent import Sampled, independent_samples
from distill_lib.measure.rows import Estimate, Row, tidy
from distill_lib.measure.spectrum import fine_share, sharpness_ratio
from distill_lib.networks.adapter import Network

OF_NETWORKS = ("mmd_teacher", "fid_inf")
"""The metrics of `Rulers`; "recall" is told where it is asked for."""


def fid_rows(features: Features, image: Tensor, **columns: object) -> list[Row]:
    """A row of `fid_inf` of pictures uint8 (n, 3, R, R), to the real ones that standardise the features.

    None where the pictures are too few for a result (`distances.enough`), as at quick.
    """
    last = features.last(image)
    real = features.real.first(last.shape[1])
    return tidy({"fid_inf": fid_inf(last, real)}, **columns, n=len(image)) if enough(len(image), real) else []


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


class Rulers:
    """What independent samples of networks of one world are measured by, `OF_NETWORKS`.

    All networks share the stream "student", also for the teacher's own row: what chance does to the FID of one it does
    to that of another, so that less of it is left in their ratio. Only the truth of mmd_teacher has noise of its own.

    Args:
        features: the reader, standardised.
        draw: independent pictures uint8 (n, 3, R, R) of a network in one of `independent.STREAMS`; of "truth" fewer do.
        truth: the teacher and its many steps; its w is that of whatever is compared with it.
        seed: of the samples, which rows hold.
        real: as many real pictures as it is asked for, uint8 (n, 3, R, R), for recall.
    """

    def __init__(
        self,
        features: Features,
        draw: Callable[[Sampled, str], Tensor],
        truth: Sampled,
        seed: int = 0,
        real: Callable[[int], Tensor] | None = None,
    ) -> None:
        self.features, self.draw, self._teacher, self.seed, self._real = features, draw, truth, seed, real
        self._truth: dict[float, Tensor] = {}

    @classmethod
    def of_classes(cls, features: Features, truth: Sampled, n: int, seed: int = 0) -> "Rulers":
        """Of networks of classes, by n samples of `independent_samples`, and half as many of the truth.

        FID is what needs many, and the truth is what costs most.
        """
        count = {"student": n, "truth": n // 2}

        def draw(sampled: Sampled, stream: str) -> Tensor:
            return independent_samples(sampled, count[stream], seed, stream)

        return cls(features, draw, truth, seed)

    def truth(self, w: float) -> Tensor:
        """The teacher's pictures at w, from noise that no student meets; drawn once, when they are first asked for."""
        if w not in self._truth:
            teacher = Sampled(self._teacher.net, self._teacher.n_steps, w, self._teacher.sampler)
            self._truth[w] = self.draw(teacher, "truth")
        return self._truth[w]

    def rows(self, method: str, sampled: Sampled, metrics: Sequence[str] = OF_NETWORKS) -> list[Row]:
        """These metrics of a network's samples, one row each (`fid_rows`: or none); `method` is their label.

        Raises:
            ValueError: recall is asked for, and there are no real pictures.
        """
        image, rows = self.draw(sampled, "student"), []
        evaluations = nfe(sampled.n_steps, sampled.w, not sampled.net.takes_w)
        columns = {"method": method, "steps": sampled.n_steps, "w": sampled.w, "nfe": evaluations, "seed": self.seed}
        if "mmd_teacher" in metrics:
            z = self.features(self.truth(sampled.w))
            rows += tidy({"mmd_teacher": mmd2(self.features(image)[: len(z)], z)}, **columns, n=len(z))
        if "fid_inf" in metrics:
            rows += fid_rows(self.features, image, **columns)
        if "recall" in metrics:
            if self._real is None:
                raise ValueError("recall needs real pictures, which these rulers were not given")
            near = precision_and_recall(self.features.last(image), self.features.last(self._real(len(image))))
            rows += tidy({"recall": near["recall"]}, **columns, n=len(image))
        return rows

    def measure(
        self,
        method: str,
        nets: dict[int, Network],
        ws: Iterable[float],
        sampler: str = "ddim",
        metrics: Sequence[str] = OF_NETWORKS,
    ) -> list[Row]:
        """`rows` of the network of each step count, at each strength."""
        samples = [Sampled(net, n, w, sampler) for w in ws for n, net in nets.items()]
        return [row for sampled in samples for row in self.rows(method, sampled, metrics)]

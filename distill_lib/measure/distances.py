"""Distances between two distributions, from independent samples, without the bias of few samples, each with its error.

Squared maximum mean discrepancy (Gretton et al. 2012, JMLR 13), as a U-statistic over pairs z_i = (x_i, y_i):

    h_ij = k(x_i, x_j) + k(y_i, y_j) - k(x_i, y_j) - k(x_j, y_i),    mmd2 = mean of h_ij over i != j             (1)
    k(x, y) = mean over b in BANDWIDTHS of exp(-|x - y|^2 / (2 b D))                                             (2)

Its mean is exactly 0 where both distributions are the same, and a value can have either sign. Features are
standardised, so |x - y|^2 is about 2 D. The bandwidths are therefore fixed: bandwidths that are fitted to the data
would make two numbers incomparable. The variance of a U-statistic (Hoeffding 1948) holds near 0, where its first term
vanishes, as well as far from 0:

    Var mmd2 = 4 (n - 2) / (n (n - 1)) zeta_1 + 2 / (n (n - 1)) zeta_2                                           (3)
    zeta_1 = E[h_12 h_13] - E[h_12]^2,    zeta_2 = E[h_12^2] - E[h_12]^2

each by its unbiased estimate (Sutherland and Deka 2019, arXiv 1906.02104), and zeta_1 not below 0.

Frechet distance (FID), whose bias is one over the number N of samples (Chong and Forsyth 2020, arXiv 1911.07023):

    FID_N = FID_inf + c / N,    a line through the mean FID of k disjoint parts, N = n / k, k in PARTS           (4)

The line is right to first order in 1 / N alone. With n close to the number F of features it goes far below the truth:
measured with F = 64 and a true distance of 0, the mean of FID_inf over 12 sets is

    n              256     384     512     768    1024    2048
    FID_inf      -1.41   -0.44   -0.23   -0.09   -0.04   -0.02

so take n of at least LEAST F. Where the smallest part, n / 4, holds fewer samples than there are features, `fid_inf`
raises. The error of FID_inf is a jackknife. Far from 0 it is the true spread; near 0, where the first-order term of the
distance vanishes, it is an upper bound: 1.4 to 1.9 times the true spread, measured with F of 4 to 64.
"""

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch_fidelity.metric_fid import fid_features_to_statistics, fid_statistics_to_metric

from distill_lib.measure.rows import Estimate

BANDWIDTHS = (0.25, 0.5, 1.0, 2.0)
"""b of (2): the squared distance that counts as one bandwidth, in units of D."""
PARTS = (1, 2, 3, 4)
"""k of (4)."""
LEAST = 12
"""Samples for each feature that a result of `fid_inf` needs."""
_BLOCK = 512  # rows of a matrix of distances held at a time
_GROUPS = 16  # of the jackknife, about
FEWEST = 2 * _GROUPS
"""Samples that FID_inf takes at least."""
_EVEN = math.lcm(*PARTS)  # a group of so many neighbours takes as many samples from every part


def kernel(x: Tensor, y: Tensor) -> Tensor:
    """(2) for all pairs of features (N, D) and (M, D): (N, M)."""
    square = (x.square().sum(1)[:, None] + y.square().sum(1) - 2 * x @ y.T).clamp(min=0) / x.shape[1]
    return sum((-square / (2 * b)).exp() for b in BANDWIDTHS) / len(BANDWIDTHS)


def mmd2(x: Tensor, y: Tensor) -> Estimate:
    """(1) with the root of (3), of features (n, D) of two independent sets of as many samples.

    Raises:
        ValueError: the sets differ in size, or hold fewer than four samples, which have no error.
    """
    n = len(x)
    if len(y) != n or n < 4:
        raise ValueError(f"mmd2 of {n} and {len(y)} samples: take two sets of one size, of 4 or more")
    x, y = x.double(), y.double()
    row, square = [], 0.0
    for part in torch.arange(n).split(_BLOCK):
        h = kernel(x[part], x) + kernel(y[part], y) - kernel(x[part], y) - kernel(y[part], x)
        h[torch.arange(len(part)), part] = 0
        row.append(h.sum(1))
        square += h.square().sum().item()
    row = torch.cat(row)
    total, rows_square = row.sum().item(), row.square().sum().item()
    mean, pairs = total / (n * (n - 1)), n * (n - 1)
    mean_square = (total**2 - 4 * rows_square + 2 * square) / (pairs * (n - 2) * (n - 3))
    shared, own = (rows_square - square) / (pairs * (n - 2)), square / pairs
    variance = 4 * (n - 2) / pairs * max(0.0, shared - mean_square) + 2 / pairs * max(0.0, own - mean_square)
    return Estimate(mean, math.sqrt(variance))


@dataclass(frozen=True)
class Moments:
    """Mean (F,) and covariance (F, F) of features, in float64, and the number of pictures that they are of."""

    mean: Tensor
    covariance: Tensor
    count: int

    @property
    def plumbing(self) -> bool:
        """Whether they are of so few pictures, as in a smoke run, that no distance to them can be a result."""
        return self.count < LEAST * len(self.mean)

    def first(self, n: int) -> "Moments":
        """Those of the first n features."""
        return Moments(self.mean[:n], self.covariance[:n, :n], self.count)


def frechet(features: Tensor, real: Moments) -> float:
    """|mean - mean_r|^2 + tr(C + C_r - 2 (C C_r)^1/2) of features (n, F): FID_n of (4)."""
    known = {"mu": real.mean.numpy(), "sigma": real.covariance.numpy()}
    sample = fid_features_to_statistics(features.double())
    return fid_statistics_to_metric(sample, known, verbose=False)["frechet_inception_distance"]


def _extrapolated(features: Tensor, real: Moments, index: Tensor) -> float:
    """FID_inf of the samples with these numbers, (m,); a sample's part is its number modulo k, whoever is left out."""
    places = [k / len(index) for k in PARTS]
    means = [np.mean([frechet(features[index[index % k == i]], real) for i in range(k)]) for k in PARTS]
    return float(np.polynomial.Polynomial.fit(places, means, 1)(0))


def enough(n: int, real: Moments) -> bool:
    """Whether `fid_inf` of n samples is a result: the smallest part holds as many as there are features, or more.

    In a smoke run, whose numbers mean nothing, any n will do.
    """
    return n >= PARTS[-1] * len(real.mean) or real.plumbing


def fid_inf(features: Tensor, real: Moments, few: bool = False) -> Estimate:
    """FID_inf of (4) of features (n, F), in the order of independent samples, with the error of a jackknife.

    With theta_g the value without the samples of group g, and d samples in each group:

        error^2 = (n - d) / d  var(theta_g)                                                                       (5)

    Groups are neighbours in order, a multiple of 12, so that each takes as many samples from every part; a rest of
    fewer than d samples is in no group.

    Args:
        features: of independent samples.
        real: the moments that they are compared with.
        few: compute it of too few samples all the same, to show what comes out. Not needed where `real` is of a smoke
            run (`Moments.plumbing`).

    Raises:
        ValueError: there are fewer than `FEWEST` samples, or too few (`enough`).
    """
    n, n_features = features.shape
    if n < FEWEST:
        raise ValueError(f"fid_inf of {n} samples: take {FEWEST} or more")
    if not (few or enough(n, real)):
        raise ValueError(
            f"fid_inf of {n} samples with {n_features} features: the smallest part holds fewer samples than features, "
            f"and the value would be far below the truth; take {LEAST * n_features} samples or more"
        )
    size, index = _EVEN * max(1, n // (_EVEN * _GROUPS)), torch.arange(n)
    left = [_extrapolated(features, real, index[index // size != g]) for g in range(n // size)]
    return Estimate(_extrapolated(features, real, index), math.sqrt((n - size) / size * np.var(left)))

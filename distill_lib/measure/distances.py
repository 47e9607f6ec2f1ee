"""Distances of two laws from independent samples of them, without the bias that few samples give, each with its error.

Squared maximum mean discrepancy (Gretton et al. 2012, JMLR 13), as a U-statistic over pairs z_i = (x_i, y_i):

    h_ij = k(x_i, x_j) + k(y_i, y_j) - k(x_i, y_j) - k(x_j, y_i),    mmd2 = mean of h_ij over i != j             (1)
    k(x, y) = mean over b in BANDWIDTHS of exp(-|x - y|^2 / (2 b D))                                             (2)

Its mean is exactly 0 where both laws are one, and it is of either sign. Features are standardised, so that |x - y|^2 is
about 2 D and the bandwidths need not be fitted to the data, which would make two numbers incomparable. The variance
of a U-statistic (Hoeffding 1948) holds near 0, where the first term vanishes, as well as far from it:

    Var mmd2 = 4 (n - 2) / (n (n - 1)) zeta_1 + 2 / (n (n - 1)) zeta_2                                           (3)
    zeta_1 = E[h_12 h_13] - E[h_12]^2,    zeta_2 = E[h_12^2] - E[h_12]^2

each by its unbiased estimate (Sutherland and Deka 2019, arXiv 1906.02104), and zeta_1 not below 0.

Frechet distance (FID), whose bias is one over the number N of samples (Chong and Forsyth 2020, arXiv 1911.07023):

    FID_N = FID_inf + c / N,    a line through the mean FID of k disjoint parts, N = n / k, k in PARTS           (4)

It needs n of several times the number of features: where the smallest parts hold fewer pictures than features, the line
overshoots.
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
_BLOCK = 512  # rows of a matrix of distances held at a time
_GROUPS = 16  # of the jackknife
FEWEST = 2 * _GROUPS
"""Samples that FID_inf takes at least."""


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

    def first(self, n: int) -> "Moments":
        """Those of the first n features."""
        return Moments(self.mean[:n], self.covariance[:n, :n], self.count)


def frechet(features: Tensor, real: Moments) -> float:
    """|mean - mean_r|^2 + tr(C + C_r - 2 (C C_r)^1/2) of features (n, F): FID_n of (4)."""
    known = {"mu": real.mean.numpy(), "sigma": real.covariance.numpy()}
    sample = fid_features_to_statistics(features.double())
    return fid_statistics_to_metric(sample, known, verbose=False)["frechet_inception_distance"]


def _extrapolated(features: Tensor, real: Moments) -> float:
    places = [k / len(features) for k in PARTS]
    means = [np.mean([frechet(features[i::k], real) for i in range(k)]) for k in PARTS]
    return float(np.polynomial.Polynomial.fit(places, means, 1)(0))


def fid_inf(features: Tensor, real: Moments) -> Estimate:
    """FID_inf of (4) of features (n, F), in order of independent samples; its error by a jackknife over groups.

    Raises:
        ValueError: there are fewer than `FEWEST` samples.
    """
    n = len(features)
    if n < FEWEST:
        raise ValueError(f"fid_inf of {n} samples: take {FEWEST} or more")
    group = torch.arange(n) * _GROUPS // n
    left = [_extrapolated(features[group != g], real) for g in range(_GROUPS)]
    error = math.sqrt((_GROUPS - 1) * np.var(left))
    return Estimate(_extrapolated(features, real), error)

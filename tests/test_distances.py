"""Distances between distributions: closed forms of Gaussians, no bias, honest errors; coverage of known sets."""

import math
from itertools import combinations, permutations

import pytest
import torch
from torch_fidelity.metric_kid import kernel_mmd

from distill_lib.measure import distances
from distill_lib.measure.coverage import density_and_coverage, expected_coverage, precision_and_recall
from distill_lib.measure.distances import BANDWIDTHS, Moments, enough, fid_inf, frechet, kernel, mmd2
from distill_lib.measure.rows import Estimate


def gaussian(n, d, seed, mean=0.0, std=1.0):
    generator = torch.Generator().manual_seed(seed)
    return mean + std * torch.randn(n, d, generator=generator, dtype=torch.float64)


def mean_kernel(d, variance, shift):
    """E k(x, y) for x - y ~ N(shift 1, variance I) in d dimensions: a Gaussian integral for each bandwidth."""
    every = []
    for b in BANDWIDTHS:
        s = b * d
        every.append((s / (s + variance)) ** (d / 2) * math.exp(-d * shift**2 / (2 * (s + variance))))
    return sum(every) / len(every)


def closed_form(d, std, shift):
    """MMD^2 of N(0, I) and N(shift 1, std^2 I)."""
    return mean_kernel(d, 2.0, 0) + mean_kernel(d, 2 * std**2, 0) - 2 * mean_kernel(d, 1 + std**2, shift)


# ------------------------------------------------------------------------------------------------ mmd2


@pytest.mark.parametrize("std, shift", [(1.0, 0.4), (1.4, 0.0), (0.8, 0.2)])
def test_mmd2_of_two_gaussians_is_its_closed_form_within_its_own_error(std, shift):
    result = [mmd2(gaussian(400, 5, 2 * i), gaussian(400, 5, 2 * i + 1, shift, std)) for i in range(20)]
    values = torch.tensor([estimate.value for estimate in result])
    exact = closed_form(5, std, shift)
    # of 20 independent draws: mean within 4 of its errors; error of one within the chi distribution of 20, +- 45 %
    assert values.mean().item() == pytest.approx(exact, abs=4 * values.std().item() / 20**0.5)
    errors = torch.tensor([estimate.error for estimate in result])
    assert errors.mean().item() == pytest.approx(values.std().item(), rel=0.45)
    assert exact > 5 * errors.mean().item()  # so that the test is not one of noise


def test_mmd2_of_one_distribution_has_mean_0_and_an_error_that_is_its_spread():
    result = [mmd2(gaussian(60, 4, 2 * i), gaussian(60, 4, 2 * i + 1)) for i in range(200)]
    values = torch.tensor([estimate.value for estimate in result])
    spread = values.std().item()
    assert abs(values.mean().item()) < 4 * spread / 200**0.5
    assert (values < 0).any() and (values > 0).any()
    errors = torch.tensor([estimate.error for estimate in result])
    assert 0.9 < errors.mean().item() / spread < 1.4  # zeta_1, cut off at 0, adds to it
    assert sum(estimate.within(2) for estimate in result) >= 180


def test_mmd2_is_the_sum_over_all_pairs_and_does_not_depend_on_blocks(monkeypatch):
    x, y = gaussian(9, 3, 0), gaussian(9, 3, 1, 0.5)
    h = [
        (kernel(x[i : i + 1], x[j : j + 1]) + kernel(y[i : i + 1], y[j : j + 1])).item()
        - (kernel(x[i : i + 1], y[j : j + 1]) + kernel(x[j : j + 1], y[i : i + 1])).item()
        for i, j in permutations(range(9), 2)
    ]
    whole = mmd2(x, y)
    assert whole.value == pytest.approx(sum(h) / len(h), rel=1e-9)
    monkeypatch.setattr(distances, "_BLOCK", 4)
    assert mmd2(x, y) == Estimate(pytest.approx(whole.value), pytest.approx(whole.error))


def test_the_variance_is_that_of_sums_over_distinct_indices():
    x, y = gaussian(7, 2, 0), gaussian(7, 2, 1, 1.0)
    h = (kernel(x, x) + kernel(y, y) - kernel(x, y) - kernel(y, x)).tolist()
    n, mean = 7, lambda values: sum(values) / len(values)
    shared = mean([h[i][j] * h[i][k] for i, j, k in permutations(range(n), 3)])
    apart = mean([h[i][j] * h[k][m] for i, j, k, m in permutations(range(n), 4)])
    own = mean([h[i][j] ** 2 for i, j in combinations(range(n), 2)])
    variance = 4 * (n - 2) / (n * (n - 1)) * max(0, shared - apart) + 2 / (n * (n - 1)) * max(0, own - apart)
    assert mmd2(x, y).error == pytest.approx(math.sqrt(variance), rel=1e-6)


def test_with_one_bandwidth_it_is_torch_fidelitys_but_for_the_pairs_i_i(monkeypatch):
    monkeypatch.setattr(distances, "BANDWIDTHS", (0.7,))
    x, y = gaussian(50, 6, 0), gaussian(50, 6, 1, 0.4)
    reference = kernel_mmd(x.numpy(), y.numpy(), kid_kernel="rbf", kid_kernel_rbf_sigma=math.sqrt(0.7 * 6))
    cross = kernel(x, y)
    # they take the mean over all pairs (x_i, y_j), i = j as well; both have the same expectation
    change = 2 * (cross.mean() - (cross.sum() - cross.trace()) / (50 * 49))
    assert mmd2(x, y).value == pytest.approx((reference + change).item(), rel=1e-9)


def test_sets_of_two_sizes_or_of_three_samples_are_refused():
    for n, m in ((5, 6), (3, 3)):
        with pytest.raises(ValueError, match=f"mmd2 of {n} and {m} samples: take two sets of one size, of 4 or more"):
            mmd2(gaussian(n, 2, 0), gaussian(m, 2, 1))


# ------------------------------------------------------------------------------------------------ FID


def unit(d):
    return Moments(torch.zeros(d, dtype=torch.float64), torch.eye(d, dtype=torch.float64), 10**9)


def test_the_frechet_distance_to_known_moments_is_its_closed_form():
    d, std, shift = 8, 1.5, 0.3
    result = frechet(gaussian(20_000, d, 0, shift, std), unit(d))
    # bias d (std^2 + (d + 1) ..) / n is below 0.01; sampling spread of the scale term some 0.02
    assert result == pytest.approx(d * shift**2 + d * (std - 1) ** 2, abs=0.08)


def test_fid_inf_takes_the_bias_away():
    d, n = 8, 400
    sets = [gaussian(n, d, i) for i in range(12)]
    plain = sum(frechet(x, unit(d)) for x in sets) / 12
    far = torch.tensor([distances._extrapolated(x, unit(d), torch.arange(n)) for x in sets])
    # one sided: d / n from the mean and d (d + 1) / (4 n) from the covariance, the next order is d / n = 2 %
    bias = d / n + d * (d + 1) / (4 * n)
    assert plain == pytest.approx(bias, rel=0.2)
    assert abs(far.mean().item()) < 0.15 * bias + 3 * far.std().item() / 12**0.5


@pytest.mark.parametrize("shift, low, high", [(0.0, 1.1, 1.95), (0.5, 0.8, 1.25)])
def test_the_error_of_fid_inf_is_its_spread_far_away_and_less_than_twice_that_near_0(shift, low, high):
    d, n = 8, 400  # not a multiple of 16 groups of 12, where dealing the rest anew gives 2.2 times the spread
    result = [fid_inf(gaussian(n, d, i, shift), unit(d)) for i in range(16)]
    values = [distances._extrapolated(gaussian(n, d, i, shift), unit(d), torch.arange(n)) for i in range(120)]
    spread = torch.tensor(values).std().item()  # known within 7 %; the mean of 16 errors within 5 %
    assert low < sum(estimate.error for estimate in result) / 16 / spread < high
    assert sum(abs(estimate.value - d * shift**2) <= 2 * estimate.error for estimate in result) >= 13


def test_fid_inf_keeps_a_true_distance():
    d, n, shift = 8, 600, 0.5
    estimate = fid_inf(gaussian(n, d, 3, shift), unit(d))
    assert not estimate.within(5)
    assert estimate.value == pytest.approx(d * shift**2, abs=3 * estimate.error)


def test_too_few_samples_for_a_jackknife_are_refused():
    with pytest.raises(ValueError, match="fid_inf of 31 samples: take 32 or more"):
        fid_inf(gaussian(31, 2, 0), unit(2))


def test_fewer_samples_than_features_in_the_smallest_part_are_refused_unless_they_are_asked_for():
    x, few = gaussian(63, 16, 0), Moments(torch.zeros(16).double(), torch.eye(16).double(), 12 * 16 - 1)
    with pytest.raises(ValueError, match=r"fid_inf of 63 samples with 16 features: .*; take 192 samples or more"):
        fid_inf(x, unit(16))
    assert fid_inf(x, unit(16), few=True) == fid_inf(x, few)  # moments of a smoke run ask for it
    assert fid_inf(gaussian(64, 16, 0), unit(16)).value < 0


# ------------------------------------------------------------------------------------------------ coverage


def test_equal_sets_are_covered_and_sets_apart_are_not():
    x = gaussian(300, 4, 0)
    same = density_and_coverage(x, x) | precision_and_recall(x, x)
    # inside each ball lie the picture itself and k - 1 neighbours: the k-th is on the rim
    assert same == {"density": 1.0, "coverage": 1.0, "precision": 1.0, "recall": 1.0}
    apart = density_and_coverage(x + 100, x) | precision_and_recall(x + 100, x)
    assert set(apart.values()) == {0.0}


def test_coverage_and_density_of_one_distribution_are_what_counting_says(monkeypatch):
    n = 500
    result = [density_and_coverage(gaussian(n, 3, 2 * i), gaussian(n, 3, 2 * i + 1)) for i in range(8)]
    coverage = sum(shares["coverage"] for shares in result) / 8
    assert expected_coverage(n) == pytest.approx(1 - 2**-5, abs=0.002)
    assert coverage == pytest.approx(expected_coverage(n), abs=0.01)  # 0.97 of 4000: spread 0.003
    assert sum(shares["density"] for shares in result) / 8 == pytest.approx(1, abs=0.05)
    monkeypatch.setattr("distill_lib.measure.coverage._BLOCK", 64)
    assert density_and_coverage(gaussian(n, 3, 0), gaussian(n, 3, 1)) == result[0]


def test_half_of_the_distribution_covers_half_of_it_at_full_density():
    real, half = gaussian(1000, 2, 0), gaussian(1000, 2, 1)
    half[:, 0] = half[:, 0].abs()
    result = density_and_coverage(half, real)
    assert result["coverage"] == pytest.approx(0.5, abs=0.06) and result["density"] > 0.9


def test_too_few_neighbours_are_refused():
    with pytest.raises(ValueError, match="5 real pictures have no 5 neighbours"):
        density_and_coverage(gaussian(9, 2, 0), gaussian(5, 2, 1))


def test_samples_are_enough_from_four_a_feature_on_and_always_in_a_smoke_run():
    real = unit(8)
    few, many = (Moments(real.mean, real.covariance, count) for count in (12 * 8 - 1, 12 * 8))
    assert enough(32, real) and not enough(31, real)
    assert enough(1, few) and not enough(1, many)

"""Scores of points in the plane against Gaussians, whose every score, divergence and direction is a formula."""

import math

import pytest
import torch
from closed_forms import Gaussian

from distill_lib.diffusion.mixture import Mixture, ring
from distill_lib.diffusion.noise import normal
from distill_lib.diffusion.schedules import OURS, add_noise
from distill_lib.sdxs.cloud import Cloud, denoised, direction_sizes, divergence, mean_direction, opposite_noise
from distill_lib.sdxs.score_distillation import score_direction, score_loss

CENTRE = torch.tensor([[0.4, -0.2]], dtype=torch.float64)
OTHER = torch.tensor([[-0.5, 0.3]], dtype=torch.float64)
LEVELS = (20, 200, 512, 900)


def states(n=64, seed=0):
    return normal(seed, "z", 0, torch.arange(n), (2,)).double()


def at(t, n=64):
    return torch.full((n,), t)


def shrinkage(std, t):
    """alpha^2 s^2 / V of a Gaussian, and its variance V."""
    alpha, sigma = (value.item() for value in OURS(torch.tensor([t]), torch.zeros(1, dtype=torch.float64)))
    variance = alpha**2 * std**2 + sigma**2
    return alpha**2 * std**2 / variance, variance, alpha


@pytest.mark.parametrize("t", LEVELS)
def test_one_point_is_a_gaussian(t):
    z = states()
    cloud = Cloud(torch.zeros(1, 2, dtype=torch.float64), 0.5)
    assert torch.allclose(cloud(z, at(t)), Gaussian(0.0, 0.5)(z, at(t)), atol=1e-9)


@pytest.mark.parametrize("t", LEVELS)
def test_the_score_is_the_gradient_of_the_log_density(t):
    """(alpha x_hat - z) / sigma^2, of several points of unequal weight, one of them listed three times."""
    points = ring(4).double()[[0, 0, 0, 1, 2]]
    z = states().requires_grad_()
    cloud = Cloud(points, 0.3)
    (score,) = torch.autograd.grad(cloud.log_density(z, at(t)).sum(), z)
    alpha, sigma = OURS(at(t), z)
    formula = (alpha * denoised(cloud)(z, at(t)) - z) / sigma**2
    assert torch.allclose(score, formula.detach(), rtol=1e-7, atol=1e-7)


def test_the_density_of_one_point_is_a_normal_one_and_that_of_several_integrates_to_one():
    z, t = states(), at(300)
    _, variance, alpha = shrinkage(0.3, 300)
    normal_density = torch.distributions.Normal(alpha * CENTRE, variance**0.5).log_prob(z).sum(1)
    assert torch.allclose(Cloud(CENTRE, 0.3).log_density(z, t), normal_density)
    side = torch.linspace(-6, 6, 241, dtype=torch.float64)
    grid = torch.cartesian_prod(side, side)
    density = Cloud(ring(5).double()[[0, 0, 1, 3]], 0.2).log_density(grid, at(300, len(grid))).exp()
    assert density.sum().item() * (side[1] - side[0]).item() ** 2 == pytest.approx(1, abs=1e-6)


def test_it_reads_no_label_and_is_the_mixture_without_a_class():
    z, t = states(8), at(400, 8)
    mixture, cloud = Mixture(ring(3).double(), 0.2), Cloud(ring(3).double(), 0.2)
    assert torch.equal(cloud(z, t, at(1, 8)), mixture(z, t, at(3, 8)))
    assert torch.equal(cloud(z, t), cloud(z, t, at(0, 8)))


@pytest.mark.parametrize("t", [200, 512, 900])
def test_the_kernel_score_of_many_draws_is_that_of_their_gaussian(t):
    """x_hat of 20,000 draws of N(m, s^2 I), with no width of their own but the noise."""
    draws = CENTRE + 0.3 * normal(1, "draws", 0, torch.arange(20_000), (2,)).double()
    z = add_noise(CENTRE + 0.3 * states(), states(64, 2), at(t))
    exact, kernel = (denoised(cloud)(z, at(t)) for cloud in (Cloud(CENTRE, 0.3), Cloud(draws)))
    # a weighted mean of draws of spread 0.3; within three spreads of z the weights are of 500 draws and more
    assert (kernel - exact).square().sum(1).mean().sqrt() < 0.02


def test_a_model_that_is_wrong_at_high_noise_is_moved_there_and_nowhere_else():
    z, right, wrong = states(8), Cloud(CENTRE, 0.3), Cloud(CENTRE, 0.3, (0.5, -1.0), 600)
    for t, move in ((599, (0.0, 0.0)), (600, (0.5, -1.0)), (1024, (0.5, -1.0))):
        moved = denoised(wrong)(z, at(t, 8)) - denoised(right)(z, at(t, 8))
        assert torch.allclose(moved, torch.tensor(move, dtype=torch.float64).expand(8, 2), atol=1e-6)


@pytest.mark.parametrize("t", LEVELS)
def test_the_divergence_of_two_gaussians_of_one_width_is_their_distance(t):
    """KL = |alpha (m - n)|^2 / (2 V); exact, since the log ratio is linear and draws come in opposite pairs."""
    _, variance, alpha = shrinkage(0.3, t)
    x = CENTRE + 0.3 * opposite_noise(256, 3).double()
    expected = alpha**2 * (CENTRE - OTHER).square().sum().item() / (2 * variance)
    assert divergence(Cloud(CENTRE, 0.3), Cloud(OTHER, 0.3), x, t) == pytest.approx(expected, rel=1e-6)


def test_missing_modes_cost_little_one_way_and_much_the_other():
    """Of far modes the divergence of a student that keeps two of four is log 2."""
    whole, half = Cloud(10 * ring(4).double(), 0.1), Cloud(10 * ring(4).double()[:2], 0.1)
    assert divergence(half, whole, half.draw(64, 0).double(), 64) == pytest.approx(math.log(2), abs=1e-6)
    assert divergence(whole, half, whole.draw(64, 0).double(), 64) > 100


def test_opposite_noise_takes_an_even_number():
    noise = opposite_noise(6, 0)
    assert torch.equal(noise[:3], -noise[3:]) and not torch.equal(noise, opposite_noise(6, 0, step=1))
    with pytest.raises(ValueError, match="count=7 is odd"):
        opposite_noise(7, 0)


@pytest.mark.parametrize("t", [20, 500, 1000])
def test_the_gradient_of_the_loss_is_the_difference_of_two_gaussian_scores(t):
    """Of equal widths x_hat differs by (m - n) sigma^2 / V, whatever the noise; over each sample's |x - x_offline| it
    is what the loss takes."""
    x = states(32).requires_grad_()
    z_t = add_noise(x.detach(), states(32, 5), at(t, 32))
    x_online, x_offline = (denoised(Cloud(centre, 0.3))(z_t, at(t, 32)) for centre in (CENTRE, OTHER))
    difference = (1 - shrinkage(0.3, t)[0]) * (CENTRE - OTHER)
    size = (x.detach() - x_offline).abs().mean(1, keepdim=True)
    for normalised, expected in ((False, difference.expand(32, 2)), (True, difference / size)):
        direction = score_direction(x, x_online, x_offline, normalised)
        (gradient,) = torch.autograd.grad(score_loss(x, direction).sum(), x)
        assert torch.allclose(2 * gradient, expected)  # the loss is a mean over two coordinates


def test_two_gaussians_that_differ_in_place_move_all_points_alike_and_those_that_differ_in_width_do_not():
    """|m - n| sigma^2 / V of the one; (g_m - g_n) (z - alpha m) of the other, whose mean is nothing."""
    _, variance, alpha = shrinkage(0.3, 400)
    x = CENTRE + 0.3 * opposite_noise(512, 1).double()
    student = denoised(Cloud(CENTRE, 0.3))
    size, common = direction_sizes(student, denoised(Cloud(OTHER, 0.3)), x, 400)
    distance = (CENTRE - OTHER).norm().item()
    assert (size, common) == pytest.approx((distance * (1 - shrinkage(0.3, 400)[0]), 1.0), rel=1e-6)
    size, common = direction_sizes(student, denoised(Cloud(CENTRE, 0.6)), x, 400)
    gains = [shrinkage(std, 400)[0] / alpha for std in (0.3, 0.6)]
    # z - alpha m has the variance V in each of two coordinates, here of 512 draws
    assert size == pytest.approx(abs(gains[0] - gains[1]) * (2 * variance) ** 0.5, rel=0.1)
    assert common < 1e-12


@pytest.mark.parametrize("alpha", [0.3, 1.0])
def test_the_mean_direction_at_a_point_is_the_integral_of_the_formula_over_times(alpha):
    """Of equal widths and without the sample's own size it would be (m - n) times the mean of sigma^2 / V; with it,
    each draw is over |x - x_offline|, so that all point along m - n and none the other way."""
    online, offline = (denoised(Cloud(centre, 0.3)) for centre in (CENTRE, OTHER))
    direction = mean_direction(online, offline, states(16), alpha)
    unit = (CENTRE - OTHER) / (CENTRE - OTHER).norm()
    along = (direction * unit).sum(1)
    assert torch.allclose(direction, along[:, None] * unit) and (along > 0).all()
    assert not mean_direction(online, online, states(16), alpha).any()

"""Losses of SDXS against closed forms: similarity of known maps, scores of Gaussians, gradients as the formulas say."""

import pytest
import torch
from closed_forms import Gaussian

from distill_lib.diffusion.schedules import OURS, add_noise
from distill_lib.sdxs.feature_matching import feature_matching_loss, ssim
from distill_lib.sdxs.score_distillation import drawn_times, score_direction, score_loss
from distill_lib.sdxs.tiny_unet import feature_loss, knowledge_loss, output_loss


def maps(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_knowledge_is_the_sum_that_eq_8_says():
    v, w = maps(3, 4, 2, 2), maps(3, 4, 2, 2, seed=1)
    a, b = [maps(3, 2, 4, 4), maps(3, 5, 2, 2)], [maps(3, 2, 4, 4, seed=2), maps(3, 5, 2, 2, seed=3)]
    by_hand = ((v - w) ** 2).mean((1, 2, 3)) + 0.5 * sum(
        ((x - y) ** 2).mean((1, 2, 3)) for x, y in zip(a, b, strict=True)
    )
    assert torch.allclose(knowledge_loss(v, w, a, b, 0.5), by_hand)
    assert torch.equal(knowledge_loss(v, w, a, b, 0.0), output_loss(v, w))
    with pytest.raises(ValueError, match="2 stages of the student stand beside 1"):
        feature_loss(a, b[:1])


def test_equal_maps_are_alike_and_negatives_are_opposite():
    a = maps(2, 3, 8, 8)
    for window in (0, 3, 20):
        assert torch.allclose(ssim(a, a, window), torch.ones(2, dtype=a.dtype), atol=1e-5)
    centred = a - a.mean((2, 3), keepdim=True)
    assert torch.allclose(ssim(centred, -centred), -torch.ones(2, dtype=a.dtype), atol=0.01)  # but for c


def test_similarity_of_whole_maps_has_its_closed_form():
    """b = 2 a + 1 with E a = 0, var a = s: mu_b = 1, var_b = 4 s, cov = 2 s."""
    a = maps(1, 1, 64, 64)
    a = (a - a.mean()) / a.std(correction=0)
    c = 1e-3
    expected = (c / (1 + c)) * ((4 + c) / (5 + c))
    assert ssim(a, 2 * a + 1, c=c).item() == pytest.approx(expected, rel=1e-3)


def test_windows_see_what_whole_maps_do_not():
    """Shuffled places keep mean and variance of the map and lose every window's."""
    a = maps(1, 1, 16, 16).cumsum(3)
    half = torch.cat([a[..., 8:], a[..., :8]], 3)
    assert ssim(a, half, 3) < ssim(a, a, 3) - 0.1
    blurred = torch.nn.functional.avg_pool2d(maps(1, 4, 16, 16), 3, 1, 1)
    assert ssim(maps(1, 4, 16, 16), blurred) < 0.8  # blur lowers variance and covariance


def test_matching_weighs_layers_and_lies_between_0_and_2():
    a, b = [maps(2, 3, 8, 8), maps(2, 4, 4, 4)], [maps(2, 3, 8, 8, seed=5), maps(2, 4, 4, 4, seed=6)]
    loss = feature_matching_loss(a, b, [3.0, 1.0])
    assert torch.allclose(loss, (3 * (1 - ssim(a[0], b[0])) + (1 - ssim(a[1], b[1]))) / 4)
    assert ((loss > 0) & (loss < 2)).all() and loss.shape == (2,)
    with pytest.raises(ValueError, match="1 weights and 2 windows for 2 layers beside 2"):
        feature_matching_loss(a, b, [1.0])


def test_matching_pulls_a_blurred_map_towards_the_sharp_one():
    sharp, flat = maps(1, 1, 8, 8), (0.5 * maps(1, 1, 8, 8)).requires_grad_(True)
    (gradient,) = torch.autograd.grad(feature_matching_loss([flat], [sharp]).sum(), flat)
    assert (gradient * sharp).sum() < 0  # more of the sharp map makes the loss smaller


@pytest.mark.parametrize("t", [100, 500, 900])
def test_the_direction_of_two_gaussians_is_the_difference_of_their_scores(t):
    """s = -(z - alpha m) / (alpha^2 std^2 + sigma^2), so that (1) is known."""
    online, offline = Gaussian(1.0, 0.8), Gaussian(-0.5, 0.3)
    x, eps, times = maps(6, 2), maps(6, 2, seed=1), torch.full((6,), t)
    z_t = add_noise(x, eps, times)
    alpha, sigma = OURS(times, z_t)

    def score(g):
        return -(z_t - alpha * g.mean) / (alpha**2 * g.std**2 + sigma**2)

    result = score_direction(x, online.x_hat(z_t, times), offline.x_hat(z_t, times), normalised=False)
    assert torch.allclose(alpha * result / sigma**2, score(online) - score(offline), atol=1e-4)


def test_the_gradient_of_the_loss_is_the_direction_and_none_where_the_models_agree():
    x = maps(4, 3, 2, 2).requires_grad_(True)
    direction = maps(4, 3, 2, 2, seed=1)
    (gradient,) = torch.autograd.grad(score_loss(x, direction).sum(), x)
    assert torch.allclose(gradient, direction / 12)
    same = maps(4, 3, 2, 2, seed=2)
    assert (score_direction(x, same, same) == 0).all()


def test_a_normalised_direction_has_the_size_of_the_distance_to_the_teacher():
    x, online, offline = maps(4, 5), maps(4, 5, seed=1), maps(4, 5, seed=2)
    result = score_direction(x, online, offline)
    assert torch.allclose(result * (x - offline).abs().mean(1, keepdim=True), online - offline)


def test_a_gaussian_generator_finds_its_teacher():
    """x = m + s z; the exact online model is Gaussian(m, s); both parameters move to the teacher's."""
    teacher = Gaussian(1.0, 0.5)
    theta = torch.tensor([-1.0, 1.5], dtype=torch.float64, requires_grad=True)
    optimiser = torch.optim.Adam([theta], lr=0.05)
    for step in range(300):
        z, eps, u = maps(256, 1, seed=3 * step), maps(256, 1, seed=3 * step + 1), torch.rand(256)
        x = theta[0] + theta[1] * z
        t = drawn_times(u, 0.7)
        z_t = add_noise(x.detach(), eps, t)
        online = Gaussian(*theta.detach().tolist())
        direction = score_direction(x.detach(), online.x_hat(z_t, t), teacher.x_hat(z_t, t))
        optimiser.zero_grad()
        score_loss(x, direction).mean().backward()
        optimiser.step()
    assert theta.tolist() == pytest.approx([1.0, 0.5], abs=0.05)  # Adam's step of 0.05 bounds how near it stays


def test_times_fill_the_segment_and_no_more():
    t = drawn_times(torch.linspace(1e-6, 1 - 1e-6, 5000), 0.5)
    assert t.min() == 20 and t.max() == 512
    assert drawn_times(torch.tensor([1 - 1e-9]), 1.0) <= 1024
    for alpha in (0.0, 0.02, 1.1):
        with pytest.raises(ValueError, match="should lie in"):
            drawn_times(torch.rand(2), alpha)

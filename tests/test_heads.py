"""Heads and weightings: all heads of one truth agree, and each weighting is the formula in its name."""

import pytest
import torch
from closed_forms import Gaussian, fake_network

from distill_lib.diffusion.errors import v_loss
from distill_lib.diffusion.samplers import sample
from distill_lib.diffusion.schedules import OURS, add_noise
from distill_lib.teachers.heads import HEADS, WEIGHTINGS, denoise_by_head, eps_from_x, head_loss, x_from_head

T = torch.tensor([1, 100, 512, 900, 1023])


def draw():
    return torch.randn(5, 3, 4, dtype=torch.float64), torch.randn(5, 3, 4, dtype=torch.float64)


def truth(head, x, eps, t):
    alpha, sigma = OURS(t, x)
    return {"x": x, "eps": eps, "v": alpha * eps - sigma * x, "(x, eps)": torch.cat([x, eps], 1)}[head]


@pytest.mark.parametrize("head", HEADS)
def test_the_true_answer_of_every_head_is_the_same_picture(head):
    x, eps = draw()
    z_t = add_noise(x, eps, T)
    x_hat = x_from_head(head, truth(head, x, eps, T), z_t, T)
    assert torch.allclose(x_hat, x, atol=1e-8)
    assert torch.allclose(eps_from_x(z_t, x_hat, T), eps, atol=1e-5)
    for weighting in WEIGHTINGS:
        loss = head_loss(lambda *_: truth(head, x, eps, T), head, weighting, x, eps, T, None)
        assert loss.shape == (5,) and loss.max() < 1e-9


@pytest.mark.parametrize("head", ["x", "eps", "v"])
def test_weightings_are_the_snr_its_larger_with_1_and_its_sum_with_1(head):
    x, eps = draw()
    z_t = add_noise(x, eps, T)
    x_error = (x - x_from_head(head, fake_network(z_t, T), z_t, T)).square().flatten(1).mean(1)
    alpha, sigma = (a.flatten() for a in OURS(T, x))
    snr = (alpha / sigma) ** 2
    expected = {"SNR": snr, "truncated SNR": snr.clamp(min=1), "SNR + 1": snr + 1}
    for weighting, weight in expected.items():
        result = head_loss(lambda z, t, _: fake_network(z, t), head, weighting, x, eps, T, None)
        assert torch.allclose(result, weight * x_error, rtol=1e-6)


def test_the_v_head_with_snr_plus_1_is_the_loss_of_our_teachers():
    def net(z_t, t, _):
        return fake_network(z_t, t)

    x, eps = draw()
    ours = head_loss(net, "v", "SNR + 1", x, eps, T, None)
    assert torch.allclose(ours, v_loss(net, x, eps, T, None), rtol=1e-6)


def test_near_pure_noise_truncated_snr_multiplies_an_error_of_eps_beyond_bounds():
    """Why that cell of the table diverges: sigma^2 / alpha^2 = 4.2e5 at the last time; others stay below 1 there."""
    x, eps = draw()
    t = torch.full((5,), 1023)
    loss = {}
    for head in HEADS:
        wrong = truth(head, x, eps, t) + 0.1
        loss[head] = head_loss(lambda *_, wrong=wrong: wrong, head, "truncated SNR", x, eps, t, None).max().item()
    assert loss["eps"] == pytest.approx(0.01 * (OURS.alpha[1023] ** -2 - 1).item(), rel=1e-6)
    assert max(value for head, value in loss.items() if head != "eps") < 0.011


@pytest.mark.parametrize("head", HEADS)
def test_the_exact_answers_of_every_head_sample_alike(head):
    gaussian = Gaussian(0.1, 0.2)

    def net(z_t, t, _):
        return truth(head, gaussian.x_hat(z_t, t), gaussian.eps_hat(z_t, t), t)

    z_T = torch.randn(500, 2, 2, dtype=torch.float64)
    ours = sample(denoise_by_head(net, head, None), z_T, 64)
    assert torch.allclose(ours, sample(gaussian, z_T, 64), atol=2e-3)


def test_what_a_head_says_of_x_is_clipped_to_the_range_of_pictures():
    z_t = torch.randn(5, 2, 2, dtype=torch.float64)
    v = denoise_by_head(lambda z, t, _: 50 * torch.ones_like(z), "x", None)(z_t, T)
    alpha, sigma = OURS(T, z_t)
    assert torch.allclose(alpha * z_t - sigma * v, torch.ones_like(z_t))

"""Samplers: diffusers' steps, the closed form on Gaussian data, and the numbers of papers.md 1.3."""

import math
from itertools import pairwise

import pytest
import torch
from closed_forms import Gaussian, fake_network
from diffusers import DDIMScheduler

from distill_lib.diffusion.samplers import (
    ancestral_step,
    ddim_step,
    nfe,
    noise_again,
    sample,
    sample_ancestral,
    sample_stochastic,
    stochastic_path,
    trajectory,
)
from distill_lib.diffusion.schedules import OURS, Schedule, add_noise, step_grid, x_from_v

MEAN, STD = 0.3, 0.5


def times(n, t):
    return torch.full((n,), t)


def diffusers_step(scheduler, denoise, z_t, t):
    """diffusers' own step from grid index t, deterministic."""
    return scheduler.step(denoise(z_t, times(len(z_t), t)), t - 1, z_t, eta=0.0).prev_sample


@pytest.mark.parametrize("n", [1, 2, 4, 8, 16, 32, 64])
def test_every_step_equals_the_one_of_diffusers(n):
    scheduler = OURS.to_scheduler()
    scheduler.set_timesteps(n)
    z = torch.randn(64, 4, 4)
    states = trajectory(fake_network, z, step_grid(n))
    worst = 0.0
    for t, z_t, z_s in zip(step_grid(n), states, states[1:], strict=False):
        worst = max(worst, (diffusers_step(scheduler, fake_network, z_t, t) - z_s).abs().max().item())
    # float32 on both sides; its alphas_cumprod is off by up to 6e-7, which 1 / sqrt(1 - alphas_cumprod) carries over
    assert worst < 1e-5


@pytest.mark.parametrize("n", [1, 4, 64])
def test_a_whole_path_equals_the_one_of_diffusers(n):
    scheduler = OURS.to_scheduler()
    scheduler.set_timesteps(n)
    z = z_T = torch.randn(64, 4, 4)
    for t in step_grid(n)[:-1]:
        z = diffusers_step(scheduler, fake_network, z, t)
    # n errors of 1e-6 on average add up, and the network is steep
    assert torch.allclose(sample(fake_network, z_T, n), z, rtol=0, atol=1e-4)


@pytest.mark.parametrize("n", [25, 50])
def test_a_foreign_grid_equals_diffusers_with_explicit_timesteps(n):
    kind = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear", "clip_sample": False}
    kind |= {"prediction_type": "v_prediction", "timestep_spacing": "trailing", "set_alpha_to_one": True}
    scheduler = DDIMScheduler(num_train_timesteps=1000, **kind)
    scheduler.set_timesteps(n)
    schedule = Schedule.from_scheduler(scheduler)
    grid = step_grid(n, schedule.T)
    assert scheduler.timesteps.tolist() == [t - 1 for t in grid[:-1]]
    states = trajectory(fake_network, torch.randn(64, 4, 4), grid, schedule)
    for t, z_t, z_s in zip(grid, states, states[1:], strict=False):
        assert torch.allclose(diffusers_step(scheduler, fake_network, z_t, t), z_s, rtol=0, atol=1e-5)


def test_a_step_that_rescales_by_the_present_alpha_would_be_noticed():
    # the fault of a published library: alpha_t where the next one is due
    def slip(denoise, z_t, t, s, schedule=OURS):
        return schedule(t, z_t)[0] / schedule(s, z_t)[0] * ddim_step(denoise, z_t, t, s, schedule)

    scheduler = OURS.to_scheduler()
    scheduler.set_timesteps(8)
    z = torch.randn(8, 4)
    t, s = times(8, 512), times(8, 384)
    assert (slip(fake_network, z, t, s) - diffusers_step(scheduler, fake_network, z, 512)).abs().max() > 0.05
    assert (ddim_step(fake_network, z, t, s) - diffusers_step(scheduler, fake_network, z, 512)).abs().max() < 1e-5


@pytest.mark.parametrize("t, s", [(1024, 512), (1024, 0), (512, 256), (300, 7), (1, 0), (0, 64), (200, 1024)])
def test_a_step_on_a_gaussian_is_the_closed_form(t, s):
    gaussian = Gaussian(MEAN, STD)
    z_t = torch.randn(50, 3, dtype=torch.float64)
    z_s = ddim_step(gaussian, z_t, times(50, t), times(50, s))
    expected = OURS.alpha[s] * MEAN + gaussian.shrink(t, s) * (z_t - OURS.alpha[t] * MEAN)
    assert torch.allclose(z_s, expected, rtol=0, atol=1e-13)


@pytest.mark.parametrize("n", [1, 2, 8, 64])
def test_the_fold_on_a_gaussian_is_the_product_of_its_steps(n):
    gaussian = Gaussian(MEAN, STD)
    z_T = torch.randn(50, 3, dtype=torch.float64)
    factor = math.prod(gaussian.shrink(t, s) for t, s in pairwise(step_grid(n)))
    assert torch.allclose(sample(gaussian, z_T, n), MEAN + factor * z_T, rtol=0, atol=1e-13)


def test_one_step_from_pure_noise_gives_the_mean():
    # at alpha = 0, z says nothing about x
    x = sample(Gaussian(MEAN, STD), torch.randn(50, 3, dtype=torch.float64), 1)
    assert torch.allclose(x, torch.full_like(x, MEAN), rtol=0, atol=1e-15)


def std_of_d(n):
    """Standard deviation of the deterministic sampler on N(0, STD^2): the image of z_T = 1."""
    return sample(Gaussian(0.0, STD), torch.ones(1, 1, dtype=torch.float64), n).item()


@pytest.mark.parametrize("n, expected", [(4, 0.334), (16, 0.453), (64, 0.488), (256, 0.498)])
def test_ddim_has_the_spread_noted_for_the_paper(n, expected):
    # papers.md 1.3, three digits. They were rounded from a curve of their own: ours are 0.3334, 0.4539, 0.4881, 0.4970
    assert std_of_d(n) == pytest.approx(expected, abs=1.1e-3)


@pytest.mark.parametrize("n", [64, 128, 256, 512])
def test_ddim_is_of_first_order(n):
    # the error halves with the step; the next term of the expansion is some 2 % at n = 64
    assert (STD - std_of_d(n)) / (STD - std_of_d(2 * n)) == pytest.approx(2, rel=0.03)


@pytest.mark.parametrize("n", [128, 256])
def test_encoding_by_reversed_ddim_comes_back_with_first_order(n):
    def error(n):
        gaussian = Gaussian(MEAN, STD)
        x = torch.tensor([[1.5], [-0.4]], dtype=torch.float64)
        noise = trajectory(gaussian, x, step_grid(n)[::-1])[-1]
        return (sample(gaussian, noise, n) - x).abs().max().item()

    assert error(n) < 0.05
    assert error(n) / error(2 * n) == pytest.approx(2, rel=0.05)


def test_a_sampler_asks_its_network_once_a_step_and_on_the_grid():
    calls = []

    def count(z_t, t):
        calls.append(t.tolist())
        return z_t

    sample(count, torch.randn(2, 3), 4)
    assert calls == [[1024] * 2, [768] * 2, [512] * 2, [256] * 2]


def test_sampling_keeps_no_graph_and_keeps_the_type():
    weight = torch.ones(1, requires_grad=True)
    for dtype in (torch.float32, torch.float64):
        x = sample(lambda z, t: z * weight.to(z), torch.randn(2, 3, dtype=dtype), 4)
        assert not x.requires_grad and x.dtype == dtype


def test_a_trajectory_holds_all_states_from_noise_to_picture():
    z = torch.randn(3, 5)
    states = trajectory(fake_network, z, step_grid(8))
    assert len(states) == 9
    assert states[0] is z
    assert torch.equal(states[-1], sample(fake_network, z, 8))


def test_samples_do_not_depend_on_their_neighbours():
    z = torch.randn(6, 4)
    whole = sample(fake_network, z, 8)
    assert torch.equal(sample(fake_network, z[[4, 1]], 8), whole[[4, 1]])


def test_steps_off_the_grid_are_refused_before_the_network_is_asked():
    with pytest.raises(ValueError, match="steps=3"):
        sample(None, torch.zeros(1, 1), 3)


def test_evaluations_are_counted():
    assert nfe(4, 1.0, guided_pair=True) == 8
    assert nfe(4, 0.0, guided_pair=True) == 4  # no guidance, one network
    assert nfe(4, 1.0, guided_pair=False) == 4
    assert nfe(1024, 4.0, guided_pair=True) / nfe(4, 4.0, guided_pair=False) == 512


def test_the_stochastic_path_goes_two_down_and_one_up():
    assert stochastic_path(1) == [1024, 0]
    assert stochastic_path(4) == [1024, 512, 768, 256, 512, 0, 256, 0]


@pytest.mark.parametrize("n", [2, 8, 64])
def test_the_stochastic_path_makes_as_many_denoising_moves_as_steps(n):
    moves = [a - b for a, b in pairwise(stochastic_path(n))]
    step = 1024 // n
    down = [m for m in moves if m > 0]
    assert len(down) == n and down[:-1] == [2 * step] * (n - 1) and down[-1] == step
    assert [m for m in moves if m < 0] == [-step] * (n - 1)
    assert set(stochastic_path(n)) <= set(step_grid(n))


@pytest.mark.parametrize("n, expected", [(4, 0.275), (16, 0.399), (64, 0.470), (256, 0.492)])
def test_the_stochastic_path_has_the_spread_noted_for_the_paper(n, expected):
    """Variance on N(0, STD^2): a step down scales it, re-noising k -> s adds sigma_{s|k}^2 (papers.md 1.3)."""
    gaussian, variance = Gaussian(0.0, STD), 1.0
    for t, s in pairwise(stochastic_path(n)):
        if s < t:
            variance *= gaussian.shrink(t, s) ** 2
        else:
            kept = (OURS.alpha[s] / OURS.alpha[t]).item() ** 2
            variance = kept * variance + (1 - OURS.alpha[s].item() ** 2) - kept * (1 - OURS.alpha[t].item() ** 2)
    assert math.sqrt(variance) == pytest.approx(expected, abs=1.1e-3)  # three digits, as above


def spread(sampler, n, draws):
    """Standard deviation of a linear sampler on N(0, STD^2): the root of the sum of squares of what each noise adds."""
    rows = torch.eye(1 + draws, dtype=torch.float64)
    return sampler(Gaussian(0.0, STD), rows[:, :1], n, lambda i: rows[:, 1 + i : 2 + i]).norm().item()


@pytest.mark.parametrize("n, expected", [(4, 0.275), (16, 0.399), (64, 0.470), (256, 0.492)])
def test_the_stochastic_sampler_has_the_spread_noted_for_the_paper(n, expected):
    assert spread(sample_stochastic, n, n - 1) == pytest.approx(expected, abs=1.1e-3)


def test_the_stochastic_sampler_of_one_step_is_the_deterministic_one():
    z = torch.randn(5, 3)
    assert torch.equal(sample_stochastic(fake_network, z, 1, None), sample(fake_network, z, 1))


def test_the_stochastic_sampler_asks_its_network_once_a_step_on_the_fine_grid():
    calls, drawn = [], []

    def count(z_t, t):
        calls.append(t[0].item())
        return z_t

    sample_stochastic(count, torch.randn(2, 3), 4, lambda i: drawn.append(i) or torch.zeros(2, 3))
    assert calls == [1024, 768, 512, 256]
    assert drawn == [0, 1, 2]


def test_noise_again_brings_clean_data_to_the_law_of_the_later_time():
    z = torch.zeros(3, 1, dtype=torch.float64), torch.ones(3, 1, dtype=torch.float64)
    s, t = torch.tensor([0, 128, 512]), torch.tensor([256, 640, 1024])
    variance = (1 - OURS.alpha[s] ** 2)[:, None]
    kept, added = noise_again(z[1], z[0], s, t), noise_again(z[0], z[1], s, t)
    assert torch.allclose(kept**2 * variance + added**2, (1 - OURS.alpha[t] ** 2)[:, None], rtol=0, atol=1e-12)
    assert torch.allclose(kept * OURS.alpha[s][:, None], OURS.alpha[t][:, None], rtol=0, atol=1e-12)
    ratio = OURS.alpha[t] ** 2 / (1 - OURS.alpha[t] ** 2) / (OURS.alpha[s] ** 2 / (1 - OURS.alpha[s] ** 2))
    expected = (1 - ratio) * (1 - OURS.alpha[t] ** 2)  # the form of papers.md 1.3
    assert torch.allclose(added[:, 0] ** 2, expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("n", [2, 8, 64])
def test_every_ancestral_step_equals_the_one_of_diffusers_with_eta_1(n):
    scheduler = OURS.to_scheduler()
    scheduler.set_timesteps(n)
    z, worst = torch.randn(64, 4, 4), 0.0
    for t, s in pairwise(step_grid(n)):
        eps = torch.randn_like(z)
        v = fake_network(z, times(64, t))
        ours = ancestral_step(fake_network, z, eps, times(64, t), times(64, s))
        if t == OURS.T:  # nothing of z is kept; diffusers takes the root of a rounded 0 there, nan on some processors
            reference = add_noise(x_from_v(z, v, times(64, t)), eps, times(64, s))
        else:
            reference = scheduler.step(v, t - 1, z, eta=1.0, variance_noise=eps).prev_sample
        worst, z = max(worst, (reference - ours).abs().max().item()), ours
    assert worst < 2e-5  # as for the deterministic step, and a root of a difference of alphas_cumprod


@pytest.mark.parametrize("n", [128, 256])
def test_the_ancestral_sampler_comes_to_the_spread_of_the_data_with_first_order(n):
    errors = [abs(spread(sample_ancestral, k, k) - STD) for k in (n, 2 * n)]
    assert errors[0] < 0.02
    assert errors[0] / errors[1] == pytest.approx(2, rel=0.1)

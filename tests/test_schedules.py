"""Schedules: the circle, the conversions, the grid, and diffusers' scheduler on the same grid."""

import math
from itertools import pairwise

import pytest
import torch
from diffusers import DDIMScheduler

from distill_lib.diffusion.schedules import (
    OURS,
    Schedule,
    add_noise,
    eps_from_v,
    log_snr,
    step_counts,
    step_grid,
    v_from,
    v_from_x,
    x_from_v,
)

POWERS = [2**k for k in range(11)]


def stable_diffusion():
    return DDIMScheduler(num_train_timesteps=1000, beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear")


def grids():
    return {"ours": OURS, "stable diffusion": Schedule.from_scheduler(stable_diffusion())}


@pytest.fixture(params=["ours", "stable diffusion"])
def schedule(request):
    return grids()[request.param]


@pytest.fixture
def batch(schedule):
    """x, eps and times of all kinds, both ends among them, in float64."""
    T = schedule.T
    t = torch.tensor([0, 1, 2, T // 3, T // 2, T - 1, T])
    x, eps = torch.randn(2, len(t), 3, 4, dtype=torch.float64)
    return x, eps, t


def test_alpha_and_sigma_lie_on_the_circle(schedule):
    t = torch.arange(schedule.T + 1)
    alpha, sigma = schedule(t, torch.zeros(len(t), 1, dtype=torch.float64))
    assert torch.allclose(alpha**2 + sigma**2, torch.ones_like(alpha), rtol=0, atol=1e-15)
    assert (alpha.diff(dim=0) < 0).all()  # noise only grows
    assert alpha[0] == 1 and sigma[0] == 0


def test_ours_is_the_cosine_and_ends_at_pure_noise():
    t = torch.arange(1025, dtype=torch.float64)
    assert torch.allclose(OURS.alpha, (math.pi * t / 2048).cos(), rtol=0, atol=1e-15)
    assert OURS.T == 1024
    assert OURS.alpha[-1] == 0.0  # exactly: cos(pi / 2) in floating point is not


def test_coefficients_take_the_shape_type_and_order_of_what_they_multiply():
    t = torch.tensor([1024, 0])
    alpha, sigma = OURS(t, torch.zeros(2, 3, 4, 5))
    assert alpha.shape == sigma.shape == (2, 1, 1, 1)
    assert alpha.dtype == torch.float32
    assert alpha.flatten().tolist() == [0, 1] and sigma.flatten().tolist() == [1, 0]


def test_x_and_eps_come_back_from_z_and_v(schedule, batch):
    x, eps, t = batch
    z_t, v = add_noise(x, eps, t, schedule), v_from(x, eps, t, schedule)
    assert torch.allclose(x_from_v(z_t, v, t, schedule), x, rtol=0, atol=1e-14)
    assert torch.allclose(eps_from_v(z_t, v, t, schedule), eps, rtol=0, atol=1e-14)


def test_v_comes_back_from_what_is_made_of_it(schedule, batch):
    z_t, v, t = batch
    x_hat, eps_hat = x_from_v(z_t, v, t, schedule), eps_from_v(z_t, v, t, schedule)
    assert torch.allclose(add_noise(x_hat, eps_hat, t, schedule), z_t, rtol=0, atol=1e-14)
    assert torch.allclose(v_from(x_hat, eps_hat, t, schedule), v, rtol=0, atol=1e-14)


def test_the_two_ends_are_data_and_noise():
    x, eps = torch.randn(2, 2, 5)
    ends = torch.tensor([0, 1024])
    z = add_noise(x, eps, ends)
    assert torch.equal(z[0], x[0]) and torch.equal(z[1], eps[1])
    v = v_from(x, eps, ends)
    assert torch.equal(v[0], eps[0]) and torch.equal(v[1], -x[1])


def test_noising_keeps_unit_variance_of_unit_data():
    x, eps = torch.randn(2, 5, 100_000)
    z = add_noise(x, eps, torch.tensor([1, 200, 512, 900, 1024]))
    assert torch.allclose(z.var(1), torch.ones(5), atol=4 * math.sqrt(2 / 100_000))  # 4 sd of a sample variance


def test_log_snr_is_the_log_of_the_ratio_and_infinite_at_the_ends():
    t = torch.tensor([0, 1, 512, 1023, 1024])
    result = log_snr(t)
    assert result.dtype == torch.float64
    assert result[0] == math.inf and result[-1] == -math.inf
    assert result[2] == pytest.approx(0, abs=1e-12)  # half-way on the cosine, alpha = sigma
    # -2 log tan(pi t / 2T), as in the code of Salimans and Ho
    expected = -2 * torch.tan(math.pi * t[1:4].double() / 2048).log()
    assert torch.allclose(result[1:4], expected, rtol=1e-9)  # 1 - alpha^2 loses 6 of 16 digits at t = 1


@pytest.mark.parametrize("n", POWERS)
def test_the_step_grid_runs_from_noise_to_data_in_equal_steps(n):
    grid = step_grid(n)
    assert len(grid) == n + 1 and grid[0] == 1024 and grid[-1] == 0
    assert {a - b for a, b in pairwise(grid)} == {1024 // n}


@pytest.mark.parametrize("n", [0, -4, 3, 25, 1000, 2048])
def test_steps_off_the_grid_end_in_one_sentence(n):
    with pytest.raises(ValueError, match=rf"steps={n}\b.*allowed.*1024.*: 1, 2, 4,") as error:
        step_grid(n)
    assert "\n" not in str(error.value)


def test_v_from_x_undoes_x_from_v():
    z, v, t = torch.randn(4, 3).double(), torch.randn(4, 3).double(), torch.tensor([1, 300, 700, 1024])
    assert torch.allclose(v_from_x(z, x_from_v(z, v, t), t), v, rtol=0, atol=1e-9)  # sigma is 0.0015 at t = 1


def test_the_exported_scheduler_has_our_noise_levels():
    result = OURS.to_scheduler().alphas_cumprod.double()
    # diffusers multiplies 1024 factors in float32: rounding walks sqrt(1024) * 2^-24 = 2e-6, twice that is allowed
    assert torch.allclose(result, OURS.alpha[1:] ** 2, rtol=2 * 32 * 2**-24, atol=0)
    assert result[-1] == 0  # zero terminal SNR, exactly


@pytest.mark.parametrize("n", POWERS)
def test_the_exported_scheduler_visits_our_timesteps(n):
    scheduler = OURS.to_scheduler()
    scheduler.set_timesteps(n)
    # the network sees t - 1
    assert scheduler.timesteps.tolist() == [t - 1 for t in step_grid(n)[:-1]]


def test_the_exported_scheduler_survives_its_folder(tmp_path):
    scheduler = OURS.to_scheduler()
    scheduler.save_pretrained(tmp_path)
    loaded = DDIMScheduler.from_pretrained(tmp_path)
    assert torch.equal(loaded.alphas_cumprod, scheduler.alphas_cumprod)
    public = {key: value for key, value in scheduler.config.items() if not key.startswith("_")}
    assert public.items() <= loaded.config.items()
    assert loaded.config.prediction_type == "v_prediction" and not loaded.config.clip_sample


def test_noising_and_velocity_equal_those_of_diffusers():
    scheduler = OURS.to_scheduler()
    t = torch.tensor([1, 16, 300, 512, 1000, 1024])
    x, eps = torch.randn(2, len(t), 4)
    # sigma of t = 1 is 1.5e-3, the root of 1 - alphas_cumprod, which float32 holds to 6e-8: 2e-5 in sigma
    tolerance = {"rtol": 0, "atol": 1e-4}
    assert torch.allclose(scheduler.add_noise(x, eps, t - 1), add_noise(x, eps, t), **tolerance)
    assert torch.allclose(scheduler.get_velocity(x, eps, t - 1), v_from(x, eps, t), **tolerance)


def test_a_foreign_scheduler_is_read_with_its_own_grid():
    scheduler = stable_diffusion()
    schedule = Schedule.from_scheduler(scheduler)
    assert schedule.T == 1000 and schedule.alpha.dtype == torch.float64
    assert schedule.alpha[0] == 1
    # index t is diffusers' timestep t - 1; nothing but a root and its square lies between
    assert torch.allclose(schedule.alpha[1:] ** 2, scheduler.alphas_cumprod.double(), rtol=1e-14)
    assert schedule.alpha[-1] == pytest.approx(0.0683, abs=1e-4)  # its well-known rest of signal: no zero SNR
    assert step_grid(25, schedule.T)[:2] == [1000, 960]
    with pytest.raises(ValueError, match=r"steps=1001.*T=1000"):
        step_grid(1001, schedule.T)


@pytest.mark.parametrize("n", [1, 3, 4, 7, 8, 16, 25, 30, 32, 50, 64])
def test_a_foreign_grid_is_rounded_as_diffusers_rounds_it_and_can_be_halved(n):
    scheduler = DDIMScheduler(num_train_timesteps=1000, timestep_spacing="trailing")
    scheduler.set_timesteps(n)
    grid = step_grid(n, 1000)
    assert [t - 1 for t in grid[:-1]] == scheduler.timesteps.tolist() and grid[-1] == 0
    assert step_grid(2 * n, 1000)[::2] == grid


def test_our_schedule_comes_back_from_its_own_export():
    back = Schedule.from_scheduler(OURS.to_scheduler())
    # float32 sums of alpha^2 (above), halved by the root; the last index is exact
    assert torch.allclose(back.alpha, OURS.alpha, rtol=32 * 2**-24, atol=0)


@pytest.mark.parametrize("start", [0, 3, 24, 257])
def test_a_chain_of_halvings_starts_from_a_power_of_two(start):
    assert step_counts(256) == [128, 64, 32, 16, 8, 4, 2, 1] and step_counts(16, 4) == [8, 4] and step_counts(1) == []
    with pytest.raises(ValueError, match=f"start={start} cannot be halved down to one step; take a power of two"):
        step_counts(start)

"""Consistency against the exact answer of a Gaussian: its own ways are known, and one step ends where many do."""

import math

import pytest
import torch
from closed_forms import Gaussian, fake_network
from test_unet_distillation import Data, networks

from distill_lib.diffusion.noise import normal
from distill_lib.diffusion.samplers import sample, sample_consistency, trajectory
from distill_lib.diffusion.schedules import OURS, add_noise, step_grid, v_from_x
from distill_lib.engine.loop import TrainSettings, finish
from distill_lib.engine.store import Run
from distill_lib.networks.adapter import denoise_student
from distill_lib.networks.pruning import Cut
from distill_lib.sdxs.consistency import consistency_loss, consistency_target, distill_consistency
from distill_lib.sdxs.easy_tuning import EasyTuning

TEACHER = Gaussian(0.5, 0.4)


def exact(z_t, t):
    """The end of the way through z_t: x = m + std (z_t - alpha m) / sqrt(alpha^2 std^2 + sigma^2), as v."""
    alpha, sigma = OURS(t, z_t)
    x = TEACHER.mean + TEACHER.std * (z_t - alpha * TEACHER.mean) / (alpha**2 * TEACHER.std**2 + sigma**2).sqrt()
    return v_from_x(z_t, x, t)


def noisy(t, n=64):
    x, eps = (normal(0, stream, 0, torch.arange(n), (3,)).double() for stream in ("x", "eps"))
    return add_noise(0.5 + 0.4 * x, eps, torch.full((n,), t))


@pytest.mark.parametrize("t, s", [(1024, 1008), (512, 496), (16, 0)])
def test_the_exact_student_has_nothing_to_learn_from_small_steps(t, s):
    z_t, t_batch, s_batch = noisy(t), torch.full((64,), t), torch.full((64,), s)
    target = consistency_target(exact, TEACHER, z_t, t_batch, s_batch)
    # a step of 1/64 misses the way by a thousandth at most; another student misses its own answer by much more
    right = consistency_loss(exact, target, z_t, t_batch)
    assert right.max() < 2e-3
    wrong = consistency_target(fake_network, TEACHER, z_t, t_batch, s_batch)
    assert consistency_loss(fake_network, wrong, z_t, t_batch).mean() > 10 * right.max()


def test_at_the_end_of_the_grid_the_target_is_where_the_teacher_arrives():
    z_t, t, s = noisy(16), torch.full((64,), 16), torch.zeros(64, dtype=torch.long)
    end = trajectory(TEACHER, z_t, [16, 0])[-1]
    assert torch.equal(consistency_target(fake_network, TEACHER, z_t, t, s), end)


def test_far_from_its_target_the_loss_is_the_distance_and_near_it_is_a_square():
    t, target = torch.full((2,), 1024), torch.zeros(2, 3, dtype=torch.float64)
    z = torch.zeros(2, 3, dtype=torch.float64)
    for size, expected in ((100.0, 100.0 - 0.00054), (1e-6, 1e-12 / 0.00108)):
        loss = consistency_loss(lambda z, t, size=size: torch.full_like(z, size), target, z, t)
        assert loss.tolist() == pytest.approx([expected] * 2, rel=1e-3)


def test_the_loss_is_that_of_the_norm_over_the_root_of_the_number_of_entries():
    """iCT: sqrt(|d|^2 + c^2) - c with c = 0.00054 sqrt(D)."""
    t, target = torch.full((4,), 1024), 1e-3 * torch.randn(4, 3, 8, 8, dtype=torch.float64)
    loss = consistency_loss(lambda z, t: torch.zeros_like(z), target, torch.zeros_like(target), t)
    d, c = target[0].numel(), 0.00054 * target[0].numel() ** 0.5
    of_norm = (target.flatten(1).square().sum(1) + c**2).sqrt() - c
    assert torch.allclose(loss, of_norm / d**0.5, rtol=1e-9)


@pytest.mark.parametrize("share, stage", [(0.0, 1), (0.24, 1), (0.25, 2), (0.5, 3), (0.99, 4), (1.0, 4)])
def test_the_gap_is_the_formula_and_is_halved_at_each_stage(share, stage):
    tuning, t = EasyTuning(stages=4), torch.arange(1, 1025)
    s = tuning.earlier(t, share)
    assert (s >= 0).all() and (s < t).all()
    for at in (1, 64, 300, 512, 900, 1023):
        n = 1 + 8 / (1 + math.exp(math.tan(math.pi / 2 * at / 1024)))
        expected = min(at - 1, max(0, math.floor(at * (1 - n / 2**stage))))
        assert s[at - 1].item() == expected
    assert s[-1] == 1024 - 1024 // 2**stage  # at pure noise n = 1


def test_the_gap_never_grows_while_a_model_learns():
    tuning, t = EasyTuning(stages=5, q=3.0), torch.arange(1, 1025)
    gaps = torch.stack([t - tuning.earlier(t, share / 20) for share in range(21)])
    assert (gaps.diff(dim=0) <= 0).all() and (gaps[0] > gaps[-1]).float().mean() > 0.9
    assert gaps.min() == 1  # and is never less than a place of the grid


def test_a_constant_error_per_time_weighs_the_same_whatever_the_gap():
    """weight (3) x distance, where answers drift by t / T: 1 at every pair of times but for c."""
    t, target = torch.tensor([1000, 1000, 500]), torch.zeros(3, 4, dtype=torch.float64)
    s = torch.tensor([500, 990, 400])
    drift = ((t - s).double() / 1024)[:, None].expand(3, 4)
    loss = 1024 / (t - s) * consistency_loss(lambda z, t: -drift, target, torch.zeros_like(target), t * 0 + 1024)
    assert torch.allclose(loss, torch.ones(3, dtype=torch.float64), atol=0.06)  # c T / (t - s), 0.055 at a gap of 10


def test_the_sampler_with_one_step_is_ddim_s_and_with_the_exact_student_every_count_draws_the_data():
    z_T = normal(0, "z", 0, torch.arange(20_000), (1,)).double()

    def fresh(i):
        return normal(0, "fresh", i, torch.arange(20_000), (1,)).double()

    assert torch.equal(sample_consistency(fake_network, z_T, 1, fresh), sample(fake_network, z_T, 1))
    for n_steps in (1, 2, 4):
        x = sample_consistency(exact, z_T, n_steps, fresh)
        assert x.mean().item() == pytest.approx(0.5, abs=0.01) and x.std().item() == pytest.approx(0.4, abs=0.01)


def test_it_asks_the_network_once_a_step():
    calls = []
    sample_consistency(lambda z, t: calls.append(t[0].item()) or z, torch.zeros(2, 1), 4, lambda i: torch.zeros(2, 1))
    assert calls == step_grid(4)[:-1]


def test_training_makes_one_step_end_nearer_to_where_many_of_the_teacher_s_do(runs):
    _, teacher = networks(Cut())
    data = Data()
    label, z_T = data.states, normal(0, "z", 0, torch.arange(16), (4, 8, 8))
    with torch.no_grad():
        end = sample(lambda z, t: teacher(z, t, label), z_T, 64)
    tuning = EasyTuning(stages=5)  # in the first one s is mostly 0: denoising, which the student starts with
    misses = []
    for steps in (1, 20):
        student = teacher.student()
        settings = TrainSettings(steps=steps, batch_size=8, lr=3e-3, warmup=1, ema=0.8, bf16=False)
        run = Run(f"lcm{steps}", {}, distill_consistency)
        training = distill_consistency(student, teacher, data, settings, run, (0.0, 0.0), tuning)
        finish(student, training, run, "consistency")
        x = sample(denoise_student(student, label, torch.zeros(16)), z_T, 1)
        misses.append((x - end).square().mean().item())
    assert misses[1] < 0.75 * misses[0]

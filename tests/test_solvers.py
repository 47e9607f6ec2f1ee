"""Other people's solvers on our grid: exact where DDIM is not, equal to diffusers' pipelines, never NaN."""

import pytest
import torch
from closed_forms import Gaussian

from distill_lib.diffusion.mixture import Mixture
from distill_lib.diffusion.samplers import sample, sample_ancestral, sample_consistency, sample_stochastic
from distill_lib.diffusion.schedules import OURS
from distill_lib.diffusion.solvers import SAMPLERS, SOLVERS, sample_by, solver


def gaussian(n=64):
    """A Gaussian whose exact answer is known, and its noise."""
    return Gaussian(1.0, 0.5), torch.randn(n, 2, generator=torch.Generator().manual_seed(3))


def no_noise(i):
    """What a deterministic sampler is given, and never asks."""
    raise AssertionError(f"asked for draw {i}")


@pytest.mark.parametrize("name", SOLVERS)
def test_a_solver_ends_nearer_to_the_exact_answer_than_ddim_with_as_many_steps(name):
    data, z_T = gaussian()
    exact = sample(data, z_T, 1024)
    reference, plain = (item - exact for item in (sample_by(name, data, z_T, 8, no_noise), sample(data, z_T, 8)))
    assert reference.isfinite().all()
    assert reference.square().mean() < 0.5 * plain.square().mean()


@pytest.mark.parametrize("name", SOLVERS)
def test_a_solver_asks_once_a_step_at_times_of_our_grid(name):
    calls = []

    def denoise(z_t, t):
        calls.append(int(t[0]))
        return torch.zeros_like(z_t)

    sample_by(name, denoise, torch.ones(1, 2), 4, no_noise)
    assert calls == [1024, 768, 512, 256]


OURS_BY_NAME = {"stochastic": sample_stochastic, "ancestral": sample_ancestral, "consistency": sample_consistency}


def test_each_of_our_samplers_is_found_by_its_name():
    data, z_T = gaussian()
    fresh = lambda i: torch.randn(z_T.shape, generator=torch.Generator().manual_seed(i))  # noqa: E731
    assert torch.equal(sample_by("ddim", data, z_T, 8, no_noise), sample(data, z_T, 8))
    for name, item in OURS_BY_NAME.items():
        assert torch.equal(sample_by(name, data, z_T, 8, fresh), item(data, z_T, 8, fresh))
    assert set(SAMPLERS) == {"ddim", *OURS_BY_NAME, *SOLVERS}


def test_an_unknown_sampler_is_refused():
    data, z_T = gaussian()
    with pytest.raises(ValueError, match="sampler='ours-D' is unknown; choose one of ddim, stochastic, anc"):
        sample_by("ours-D", data, z_T, 8, no_noise)


def test_an_unknown_solver_is_refused():
    with pytest.raises(ValueError, match="solver='heun' is unknown; choose one of dpm, dpm\\+\\+, unipc"):
        solver("heun", OURS)


# --- the truth: as many steps as stand for infinitely many


def exact_flow(z_T, centre, std):
    """Where the exact flow carries noise z_T (B, 2) on the mixture of N((+-centre, 0), std^2) in equal parts.

    Which of the two a point belongs to is a question of its first coordinate alone, so that both flow apart. The second
    is Gaussian: it shrinks by std. On a line points cannot overtake each other, so that the first keeps its rank: it
    moves to the quantile of the mixture that it was of the noise, found by bisection.
    """
    rank = torch.special.ndtr(z_T[:, 0])
    low, high = torch.full_like(rank, -9.0), torch.full_like(rank, 9.0)
    for _ in range(60):
        middle = (low + high) / 2
        below = sum(torch.special.ndtr((middle - m) / std) for m in (-centre, centre)) / 2
        low, high = torch.where(below < rank, middle, low), torch.where(below < rank, high, middle)
    return torch.stack([(low + high) / 2, std * z_T[:, 1]], 1)


def errors_of_the_truth(steps, name="ddim", n=400):
    """Root of the mean square distance from the exact flow, on a mixture whose halves overlap a little."""
    centre, std = 0.8, 0.35
    teacher = Mixture(torch.tensor([[-centre, 0.0], [centre, 0.0]], dtype=torch.float64), std)
    z_T = torch.randn(n, 2, generator=torch.Generator().manual_seed(5), dtype=torch.float64)
    label = torch.full((n,), teacher.null)
    x = sample_by(name, lambda z_t, t: teacher(z_t, t, label), z_T, steps, no_noise)
    return (x - exact_flow(z_T, centre, std)).square().sum(1).mean().sqrt().item()


def test_ddim_comes_to_the_exact_flow_with_first_order_and_256_steps_are_a_truth():
    errors = {steps: errors_of_the_truth(steps) for steps in (32, 64, 128, 256)}
    for steps in (32, 64, 128):
        assert errors[steps] / errors[2 * steps] == pytest.approx(2, rel=0.25)
    assert errors[256] < 0.006 < 0.02 < errors[32]  # of data whose standard deviations are .87 and .35


@pytest.mark.parametrize("name", ["dpm++", "unipc"])
def test_a_solver_of_second_order_agrees_with_the_truth_at_an_eighth_of_its_steps(name):
    assert errors_of_the_truth(32, name) < errors_of_the_truth(256)

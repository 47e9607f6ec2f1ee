"""Other people's solvers on our grid: exact where DDIM is not, equal to diffusers' pipelines, never NaN."""

import pytest
import torch
from closed_forms import Gaussian

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

"""Other people's solvers on our grid: exact where DDIM is not, equal to diffusers' pipelines, never NaN."""

import pytest
import torch
from closed_forms import Gaussian

from distill_lib.samplers import sample
from distill_lib.schedules import OURS
from distill_lib.solvers import SOLVERS, sample_by, solver


def gaussian(n=64):
    """A Gaussian whose exact answer is known, and its noise."""
    return Gaussian(1.0, 0.5), torch.randn(n, 2, generator=torch.Generator().manual_seed(3))


@pytest.mark.parametrize("name", SOLVERS)
def test_a_solver_ends_nearer_to_the_exact_answer_than_ddim_with_as_many_steps(name):
    data, z_T = gaussian()
    exact = sample(data, z_T, 1024)
    theirs, plain = (one - exact for one in (sample_by(name, data, z_T, 8), sample(data, z_T, 8)))
    assert theirs.isfinite().all()
    assert theirs.square().mean() < 0.5 * plain.square().mean()


@pytest.mark.parametrize("name", SOLVERS)
def test_a_solver_asks_once_a_step_at_times_of_our_grid(name):
    asked = []

    def denoise(z_t, t):
        asked.append(int(t[0]))
        return torch.zeros_like(z_t)

    sample_by(name, denoise, torch.ones(1, 2), 4)
    assert asked == [1024, 768, 512, 256]


def test_an_unknown_solver_is_refused():
    with pytest.raises(ValueError, match="solver='heun' is unknown; choose one of dpm, dpm\\+\\+, unipc"):
        solver("heun", OURS)

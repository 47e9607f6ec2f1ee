"""Whether lines cross: angles, maps and flows whose answer is known, and what regression finds where it is the mean."""

import math

import pytest
import torch

from distill_lib.diffusion.mixture import Mixture, MixtureData, ToyNetwork, ring
from distill_lib.diffusion.noise import normal
from distill_lib.diffusion.samplers import ddim_step
from distill_lib.diffusion.schedules import OURS, eps_from_v, step_grid, x_from_v
from distill_lib.engine.loop import TrainSettings, finish
from distill_lib.engine.store import Run
from distill_lib.measure.rows import select
from distill_lib.report.plane import crossing
from distill_lib.sdxs.crossing import (
    DATA,
    Couples,
    Crossing,
    crossing_share,
    crossings,
    flow_loss,
    flow_paths,
    jacobian,
    lines_cross_nearby,
    off_modes,
    straight_lines,
    teacher_paths,
    train_flow,
)
from distill_lib.sdxs.one_step import train_on_pairs


def noise(n, stream="z", seed=0):
    return normal(seed, stream, 0, torch.arange(n), (2,)).double()


def turned(z, degrees):
    a = math.radians(degrees)
    return z @ torch.tensor([[math.cos(a), math.sin(a)], [-math.sin(a), math.cos(a)]], dtype=z.dtype)


@pytest.mark.parametrize("degrees, share", [(0, 0.0), (90, 0.0), (168, 0.0), (169, 1.0), (180, 1.0), (-170, 1.0)])
def test_lines_of_equal_length_cross_if_they_are_turned_by_almost_half_a_circle(degrees, share):
    """Of lines d and d turned by a, the nearest is |d| cos(a / 2): below a tenth from 168.5 degrees on."""
    z = ring(3).double()  # all three differences are equally long
    assert crossing_share(Couples(z, turned(z, degrees)).lines()) == share


def test_the_same_place_at_different_times_is_no_crossing():
    z, x = torch.tensor([[0.0, 0.0], [0.5, -2.0]]), torch.tensor([[1.0, 0.0], [0.5, 0.2]])
    assert crossing_share(Couples(z, x).lines()) == 0  # in the picture the second line cuts the first
    (crossed,), (place,) = crossings(Couples(z, torch.tensor([[1.0, 0.0], [0.5, 2.0]])).lines())
    assert crossed and place.tolist() == pytest.approx([0.5, 0.0])


def test_bent_ways_are_followed_between_their_ends():
    lines = torch.tensor([[[0.0, 1.0], [0.0, -1.0]], [[1.0, 0.02], [1.0, -0.02]], [[2.0, 1.0], [2.0, -1.0]]])
    assert crossing_share(lines) == 1 and crossing_share(lines[[0, 2]]) == 0


def test_couples_drawn_apart_cross_as_often_as_directions_are_opposite():
    near, z, x = 0.1, noise(300), noise(300, "x")
    i, j = torch.triu_indices(300, 300, 1)
    lengths = torch.stack([(z[i] - z[j]).norm(dim=1), (x[i] - x[j]).norm(dim=1)])
    rho = lengths.min(0).values / lengths.max(0).values
    share = (((1 - near**2) * (1 - near**2 * rho**2)).sqrt() - near**2 * rho).acos().mean() / math.pi
    # 300 couples: a spread of 0.003 over seeds
    assert crossing_share(Couples(z, x).lines()) == pytest.approx(share.item(), abs=0.01)


@pytest.mark.parametrize(
    "matrix, meets",
    [
        ([[2.0, 0.0], [0.0, 0.1]], False),
        ([[-1.0, 0.0], [0.0, 1.0]], True),  # a mirror
        ([[0.0, -1.0], [1.0, 0.0]], False),  # a quarter turn
        ([[-1.0, 0.0], [0.0, -1.0]], True),  # half a turn
        ([[1.0, 5.0], [0.0, 1.0]], False),
    ],
)
def test_a_linear_map_has_its_own_jacobian_and_folds_where_an_eigenvalue_is_negative(matrix, meets):
    matrix = torch.tensor(matrix, dtype=torch.float64)
    result = jacobian(lambda z: z @ matrix.T, noise(5))
    assert torch.allclose(result, matrix.expand(5, 2, 2), atol=1e-8)
    assert lines_cross_nearby(result).tolist() == [meets] * 5
    # with d along the eigenvector the two lines meet exactly, and else nowhere
    values, vectors = torch.linalg.eig(matrix)
    for value, vector in zip(values, vectors.T, strict=True):
        if value.imag == 0:
            z = torch.stack([vector.real, -vector.real])
            assert crossing_share(Couples(z, z @ matrix.T).lines(), 1e-6) == float(value.real < 0)


@pytest.mark.parametrize("centres", [DATA.centres, ring(2), ring(5), noise(6, "centres", 2).float()])
def test_the_teacher_s_own_couples_do_not_cross_nor_do_its_ways(centres):
    mixture, z = Mixture(centres, 0.1), noise(128)
    paths = teacher_paths(z, mixture)
    assert crossing_share(torch.stack([paths[0], paths[-1]])) == 0
    assert crossing_share(straight_lines(paths)) == 0
    assert not lines_cross_nearby(jacobian(lambda z: teacher_paths(z, mixture)[-1], z)).any()
    apart = MixtureData(centres, 0.1, 128).x.double()
    assert crossing_share(Couples(z, apart).lines()) > 0.03


def test_a_step_of_the_teacher_is_euler_s_step_of_the_flow():
    z_t, t, s = noise(9), torch.full((9,), 768), torch.full((9,), 640)

    def denoise(z, t):
        return DATA(z, t, torch.full((len(z),), DATA.null))

    v_hat = denoise(z_t, t)
    u = x_from_v(z_t, v_hat, t) - eps_from_v(z_t, v_hat, t)
    (alpha_t, sigma_t), (alpha_s, sigma_s) = OURS(t, z_t), OURS(s, z_t)
    move = alpha_s / (alpha_s + sigma_s) - alpha_t / (alpha_t + sigma_t)
    euler = z_t / (alpha_t + sigma_t) + move * u
    assert torch.allclose(euler, ddim_step(denoise, z_t, t, s) / (alpha_s + sigma_s), atol=1e-12)


def test_the_exact_flow_of_couples_drawn_apart_leads_where_the_teacher_does():
    """u = (x_hat - x_s) / (1 - s) by Bayes' rule at (s, 1 - s), nothing of the teacher's code or times in it."""

    def exact(x_s, t, label):
        s = (1 - t / OURS.T).double()[:, None]
        variance = s**2 * DATA.std**2 + (1 - s) ** 2
        offset = x_s[:, None] - s[..., None] * DATA.centres.double()
        share = (-offset.square().sum(2) / (2 * variance)).softmax(1)
        x_each = DATA.centres + (s * DATA.std**2 / variance)[..., None] * offset
        return ((share[..., None] * x_each).sum(1) - x_s) / (1 - s)

    z = noise(64)
    gaps = [(flow_paths(exact, z, n)[-1] - teacher_paths(z, n_steps=n)[-1]).norm(dim=1).median() for n in (64, 512)]
    assert gaps[1] < 0.01 and gaps[1] < gaps[0] / 4  # both err by 1 / n, by different parts of it
    mean = DATA.centres.double().mean(0)
    assert torch.allclose(flow_paths(exact, z, 1)[-1], mean.expand_as(z))  # one Euler step is the answer of eq. 9


def test_states_at_the_scale_of_lines_are_lines_where_noise_and_data_are_known():
    z, x, grid = noise(4), noise(4, "x"), torch.tensor(step_grid(8))
    alpha_t, sigma_t = OURS(grid, torch.zeros(9, 1, 1, dtype=torch.float64))
    s = alpha_t / (alpha_t + sigma_t)
    assert torch.allclose(straight_lines(alpha_t * x + sigma_t * z), s * x + (1 - s) * z)


def test_the_exact_flow_to_one_point_costs_nothing_and_is_straight():
    c = torch.tensor([0.5, -1.0], dtype=torch.float64)

    def to_c(x_s, t, label):
        return (c - x_s) / (t / OURS.T)[:, None]  # 1 - s = t / T

    z, t = noise(7), torch.arange(1, 1025, 160)
    assert flow_loss(to_c, z, c.expand(7, 2), t, torch.zeros(7)).max() < 1e-10
    assert flow_loss(lambda *a: to_c(*a) + 0.5, z, c.expand(7, 2), t, torch.zeros(7)).tolist() == pytest.approx(
        [0.25] * 7
    )
    for n in (1, 4):
        assert torch.allclose(flow_paths(to_c, z, n)[-1], c.expand(7, 2), atol=1e-12)


def test_draws_of_the_data_are_off_the_modes_as_often_as_a_gaussian_is():
    x = MixtureData(DATA.centres, DATA.std, 40_000).x
    # neighbouring centres are 8.7 standard deviations apart, so that no other one is near
    assert off_modes(x).double().mean().item() == pytest.approx(math.exp(-4.5), abs=0.002)
    assert off_modes(DATA.centres.mean(0)[None]).all()


SHORT = TrainSettings(steps=60, batch_size=256, lr=1e-2, warmup=5, ema=0.9)


def test_one_step_from_couples_drawn_apart_finds_the_mean_of_all_data_and_so_does_a_flow(runs):
    z, data = noise(4096).float(), MixtureData(DATA.centres, DATA.std, 4096)
    for name, train in (("pairs", train_on_pairs), ("flow", train_flow)):
        net, run = ToyNetwork(0), Run(name, {}, train_flow)
        finish(net, train(net, Couples(z, data.x), SHORT, run), run, name)
        at_start = net(z[:500], torch.full((500,), OURS.T), torch.zeros(500, dtype=torch.long))
        x_hat = -at_start if name == "pairs" else z[:500] + at_start
        miss = (x_hat - DATA.centres.mean(0)).norm(dim=1).median()
        assert miss < (0.15 if name == "pairs" else 0.5)  # the data lie 0.9 from their mean


def test_what_is_measured_comes_back_the_same_with_every_row_told_apart_and_can_be_drawn(runs):
    settings = TrainSettings(steps=20, batch_size=64, lr=1e-2, warmup=2, ema=0.9)
    experiment = Crossing(settings, 1)
    rows = experiment.rows()
    keys = {(row["method"], row["metric"], row.get("decile")) for row in rows}
    assert len(keys) == len(rows) and {row["seed"] for row in rows} == {1}
    assert all(math.isfinite(row["value"]) for row in rows)
    shares = {row["method"]: row["value"] for row in select(rows, metric="crossing_share")}
    assert shares["own"] == shares["teacher"] == 0 and 0.03 < shares["independent"] < 0.08
    quarter, whole = (select(rows, method="own", metric=name)[0] for name in ("off_modes_steep", "off_modes"))
    assert quarter["n"] == whole["n"] / 4
    again = Crossing(settings, 1).answers  # from the finished runs
    assert all(torch.equal(again[kind], x) for kind, x in experiment.answers.items())
    assert len(crossing(experiment, rows, "title", 8).axes) == 8

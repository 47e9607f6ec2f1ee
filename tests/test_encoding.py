"""The encoder: DDIM upward, on Gaussians in closed form, and its halving, which is exact for a single pair of steps."""

from itertools import pairwise

import pytest
import torch
from closed_forms import Gaussian, fake_network, tiny_unet

from distill_lib.diffusion.guidance import guidance_embedding
from distill_lib.diffusion.mixture import Mixture, MixtureData, ToyNetwork
from distill_lib.diffusion.noise import normal
from distill_lib.diffusion.samplers import above_zero, ddim_step, encode, sample, trajectory
from distill_lib.diffusion.schedules import OURS, Schedule, add_noise, step_grid
from distill_lib.engine import store
from distill_lib.engine.loop import TrainSettings, finish
from distill_lib.guided.encoder import encoding_loss, encoding_target, halve_encoder, halve_encoder_once
from distill_lib.guided.halving import halving_loss, halving_target
from distill_lib.networks.adapter import Keyed, Network
from distill_lib.networks.unet import student_of
from distill_lib.worlds.pictures import Pictures


def at(*times, n=64):
    return [torch.full((n,), t) for t in times]


def double(n=64):
    return torch.randn(n, 3, dtype=torch.float64)


# ------------------------------------------------------------------------------------------------ the sampler upward


@pytest.mark.parametrize("n_steps", [4, 64])
def test_an_encoded_gaussian_is_what_the_steps_make_of_it_in_closed_form(n_steps):
    gaussian = Gaussian(0.3, 0.5)
    x, grid = double(), step_grid(n_steps)[::-1]
    factor = gaussian.shrink(1, grid[1])  # the first answer is that for t = 1, almost that for 0
    for t, s in pairwise(grid[1:]):
        factor *= gaussian.shrink(t, s)
    assert torch.allclose(encode(gaussian, x, n_steps), factor * (x - 0.3), atol=0.01 * factor)


def test_with_many_steps_the_encoder_finds_unit_noise_and_the_sampler_brings_it_back():
    gaussian = Gaussian(0.3, 0.5)
    x = 0.3 + 0.5 * double(20_000)
    noise = encode(gaussian, x, 512)
    assert noise.std() == pytest.approx(1, abs=0.02) and noise.mean().abs() < 0.03
    errors = [(sample(gaussian, encode(gaussian, x, n), n) - x).square().mean() for n in (16, 64, 256)]
    assert errors[0] > 10 * errors[1] > 100 * errors[2]


def test_no_network_is_asked_at_time_0():
    calls = []

    def watched(z_t, t):
        calls.append(t.min().item())
        return fake_network(z_t, t)

    encode(watched, double(4), 4)
    assert calls == [1, 256, 512, 768]
    t = torch.tensor([0, 5])
    z = double(2)
    assert torch.equal(above_zero(fake_network)(z, t), fake_network(z, t.clamp(min=1)))


# ------------------------------------------------------------------------------------------------ the target


@pytest.mark.parametrize("t, m, s", [(0, 128, 256), (256, 384, 512), (768, 896, 1024), (0, 512, 1024)])
def test_one_step_with_the_target_lands_where_two_steps_of_the_teacher_land(t, m, s):
    t, m, s = at(t, m, s)
    z_t = double()
    v = encoding_target(fake_network, z_t, [t, m, s])
    denoise = above_zero(fake_network)
    two = ddim_step(denoise, ddim_step(denoise, z_t, t, m), m, s)
    assert torch.allclose(ddim_step(lambda z, _: v, z_t, t, s), two, atol=1e-10)


def test_a_target_of_many_steps_lands_where_all_of_them_land():
    times = at(0, 32, 64, 96, 128)
    x = double()
    v = encoding_target(fake_network, x, times)
    many = trajectory(above_zero(fake_network), x, [0, 32, 64, 96, 128])[-1]
    assert torch.allclose(ddim_step(lambda z, _: v, x, times[0], times[-1]), many, atol=1e-10)


@pytest.mark.parametrize("t, s", [(1024, 512), (512, 256), (256, 0)])
def test_downward_the_target_and_the_loss_are_those_of_the_decoder(t, s):
    t, m, s = at(t, (t + s) // 2, s)
    z_t = double()
    v = encoding_target(fake_network, z_t, [t, m, s])
    alpha, sigma = OURS(t, z_t)
    x_target = halving_target(fake_network, z_t, t, m, s)
    assert torch.allclose(alpha * z_t - sigma * v, x_target, atol=1e-9)
    reference = halving_loss(fake_network, x_target, z_t, t)
    assert torch.allclose(encoding_loss(fake_network, v, z_t, t), reference, rtol=1e-5)


def test_the_loss_is_zero_for_the_student_that_meets_the_target_and_its_gradient_is_that_of_the_formula():
    t, m, s = (torch.tensor(times) for times in ([0, 256, 512], [128, 384, 640], [256, 512, 768]))
    z_t = double(3)
    v = encoding_target(fake_network, z_t, [t, m, s])
    assert torch.equal(encoding_loss(lambda z, _: v, v, z_t, t), torch.zeros(3, dtype=torch.float64))
    answer = double(3).requires_grad_()
    encoding_loss(lambda z, _: answer, v, z_t, t).sum().backward()
    alpha, sigma = OURS(t, z_t)
    weight = torch.maximum(alpha**2, sigma**2)
    assert torch.allclose(answer.grad, 2 * weight * (answer.detach() - v) / 3)
    assert not v.requires_grad


def test_an_encoder_that_answers_with_the_target_encodes_as_its_teacher_with_twice_the_steps():
    def student(z_t, t):
        return encoding_target(fake_network, z_t, [t, t + 128, t + 256])

    x = double()
    folded_pair = trajectory(student, x, step_grid(4)[::-1])[-1]  # told t = 0 too, which the target handles
    assert torch.allclose(folded_pair, encode(fake_network, x, 8), atol=1e-9)


# ------------------------------------------------------------------------------------------------ the training


def settings(**changes):
    return TrainSettings(**{"steps": 500, "batch_size": 256, "lr": 3e-3, "warmup": 20, "ema": 0.98} | changes)


def run_named(name):
    return store.Run("test", {"name": name}, normal)


def test_a_distilled_encoder_lands_where_its_teacher_does_with_twice_the_steps(runs):
    centre = torch.tensor([[0.4, -0.2]])
    teacher, data = Mixture(centre, 0.5), MixtureData(centre, 0.5)
    torch.manual_seed(0)
    net, run = ToyNetwork(1, width=96), run_named("encoder")
    finish(net, halve_encoder(net, teacher, (4, 2), data, settings(), run), run, "encoder")
    x, label, w = data.x[:1000], torch.zeros(1000, dtype=torch.long), torch.zeros(1000)
    ours, exact = (lambda z, t, first=network: first(z, t, label, w) for network in (net, teacher))
    four, two = encode(exact, x, 4), encode(exact, x, 2)
    with torch.no_grad():
        assert (encode(ours, x, 2) - four).square().mean() < 0.1 * (two - four).square().mean()


@pytest.fixture
def pictures():
    image = torch.randint(0, 256, (16, 3, 8, 8), dtype=torch.uint8)
    return Pictures(image, torch.arange(16) % 3, ("a", "b", "c"))


SHORT = TrainSettings(steps=4, batch_size=8, lr=1e-3, warmup=1, bf16=False)


def test_encoders_train_on_the_times_that_they_will_visit_and_without_guidance(runs, pictures):
    pair = Network(tiny_unet().requires_grad_(False), bf16=False)
    student = Network(student_of(pair.module), bf16=False)
    calls = {"pair": set(), "student": set()}
    pair.module.register_forward_pre_hook(lambda _, inputs: calls["pair"].update((inputs[1] + 1).tolist()))
    student.module.register_forward_pre_hook(lambda _, inputs: calls["student"].update((inputs[1] + 1).tolist()))
    seen = {"classes": set(), "features": []}
    pair.module.register_forward_pre_hook(
        lambda _, __, kwargs: seen["classes"].update(kwargs["class_labels"].tolist()), with_kwargs=True
    )
    student.module.register_forward_pre_hook(
        lambda _, __, kwargs: seen["features"].append(kwargs["timestep_cond"]), with_kwargs=True
    )
    list(halve_encoder(student, pair, (8, 4), pictures, SHORT, run_named("times")))
    assert calls["student"] == {1, 256, 512, 768}
    assert calls["pair"] == {1, 128, 256, 384, 512, 640, 768, 896}
    assert seen["classes"] <= {0, 1, 2}  # never the null class: no second answer to guide with
    assert all(torch.equal(features, guidance_embedding(torch.zeros(8), 64)) for features in seen["features"])


def test_an_encoder_is_made_of_the_one_before_and_is_found_again(runs, pictures):
    pair = Keyed(Network(tiny_unet().requires_grad_(False), bf16=False), "parent")
    first = halve_encoder_once(pair, (64, 8), pictures, SHORT)
    second = halve_encoder_once(first, (8, 4), pictures, SHORT)
    assert [item.run.config["counts"] for item in (first, second)] == [(64, 8), (8, 4)]
    assert [item.run.config["parent"] for item in (first, second)] == ["parent", first.key]
    grid = Keyed(pair.net.like(pair.net.module, schedule=Schedule(0.9 * OURS.alpha + 0.1)), "parent")
    assert halve_encoder_once(grid, (64, 8), pictures, SHORT).key != first.key  # the same weights, another teacher
    again = halve_encoder_once(first, (8, 4), pictures, SHORT)
    assert again.key == second.key
    z = add_noise(torch.zeros(2, 12, 4, 4), torch.ones(2, 12, 4, 4), torch.tensor([512, 512]))
    values = torch.tensor([512, 512]), torch.tensor([0, 1]), torch.zeros(2)
    assert torch.equal(second.net(z, *values), again.net(z, *values))


def test_steps_that_fall_between_grid_points_are_refused(runs, pictures):
    pair = Network(tiny_unet().requires_grad_(False), bf16=False)
    with pytest.raises(ValueError, match="divisors of T=1024"):
        next(halve_encoder(Network(student_of(pair.module)), pair, (6, 3), pictures, SHORT, run_named("off")))

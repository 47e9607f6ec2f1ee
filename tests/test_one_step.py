"""One step from noise is the sampler's own, and regression on pairs finds the mean of what the noise leads to."""

import pytest
import torch
from closed_forms import Gaussian, fake_network

from distill_lib.diffusion.samplers import sample
from distill_lib.diffusion.schedules import OURS
from distill_lib.engine.loop import TrainSettings
from distill_lib.engine.store import Run
from distill_lib.networks.adapter import Network, denoiser
from distill_lib.networks.pipeline import open_pipeline
from distill_lib.sdxs.one_step import accumulation_error, gradient, one_step, square_loss, train_on_pairs
from distill_lib.teachers.latents import teacher_pairs
from distill_lib.worlds.captions import drawn_attributes, say


def noise(n=3, seed=0):
    return torch.randn(n, 4, 4, 4, generator=torch.Generator().manual_seed(seed))


def test_one_step_is_the_sampler_with_one_step():
    z_T = noise()

    def net(z_t, t, label):
        return fake_network(z_t, t)

    assert torch.allclose(one_step(net, z_T, torch.zeros(3)), sample(fake_network, z_T, 1), atol=1e-5)


def test_the_loss_is_smallest_at_the_mean_of_crossing_ways():
    """Two ways from one noise to x and -x: the best answer is 0, which is neither."""
    z_T, x = noise(1), noise(1, 1)

    def both(answer):
        drawn = one_step(lambda z, t, label: -answer, z_T, torch.zeros(1))
        return sum(square_loss(drawn, end).item() for end in (x, -x))

    losses = {scale: both(scale * x) for scale in (-1.0, -0.5, 0.0, 0.5, 1.0)}
    assert min(losses, key=losses.get) == 0.0


def test_the_gradient_is_that_of_the_formula():
    """At T all is noise, so that x_hat = -v_hat and d loss / d v_hat = 2 (x + v_hat) / D."""
    v_hat, x = noise().requires_grad_(), noise(seed=1)
    square_loss(one_step(lambda z, t, label: v_hat, noise(seed=2), torch.zeros(3)), x).sum().backward()
    assert torch.allclose(v_hat.grad, 2 * (x + v_hat.detach()) / x[0].numel(), atol=1e-6)


def test_a_gaussian_needs_one_step_only_to_its_mean():
    data = Gaussian(1.5, 0.5)
    x_hat = one_step(lambda z, t, label: data(z, t), noise(), torch.zeros(3))
    assert torch.allclose(x_hat, torch.full_like(x_hat, 1.5), atol=1e-5)


def test_pairs_are_the_teachers_own_ways_and_regression_learns_them(small_pipeline, runs):
    model = open_pipeline(small_pipeline[0], bf16=False)
    net, prompts = model.network, say(drawn_attributes(6, 0))
    pairs = teacher_pairs(model, prompts, 2, 1.0, 5, "teacher")
    z_T, x, states = pairs.batch(torch.tensor([4, 1]))
    assert torch.allclose(states, model.states([prompts[4], prompts[1]]))
    assert torch.allclose(sample(denoiser(net, states, 1.0), z_T, 2), x, atol=1e-4)
    student = Network(net.module.requires_grad_(True), bf16=False, null=net.null)
    run = Run("pairs", {}, train_on_pairs)
    settings = TrainSettings(steps=30, batch_size=6, lr=1e-3, warmup=1, bf16=False)
    losses = [progress.loss for progress in train_on_pairs(student, pairs, settings, run)]
    assert losses[-1] < 0.7 * losses[0]


class Scale(torch.nn.Module):
    """A network of one weight a that answers v_hat = -a, so that at T all pictures are x_hat = a."""

    def __init__(self, a):
        super().__init__()
        self.a = torch.nn.Parameter(torch.tensor(a))


class Numbers(list):
    """Pairs of no noise and these numbers."""

    def batch(self, index, device):
        return torch.zeros(len(index), 1), torch.tensor(self)[index][:, None], torch.zeros(len(index))


def answering(a):
    module = Scale(a)

    def net(z, t, label):
        return -module.a.expand(len(z), 1)

    net.module, net.device, net.schedule = module, "cpu", OURS
    return net


def test_the_gradient_of_pairs_is_that_of_their_mean():
    net, pairs = answering(2.0), Numbers([1.0, 3.0, 5.0, 11.0])
    assert gradient(net, pairs, torch.arange(4), square_loss).tolist() == [pytest.approx(2 * (2 - 5))]
    assert net.module.a.grad is None


def test_accumulated_gradients_are_those_of_one_batch_where_the_loss_is_a_mean_over_samples():
    net, pairs = answering(2.0), Numbers([1.0, 3.0, 5.0, 11.0])
    assert accumulation_error(net, pairs, square_loss, 2, 2) < 1e-6
    assert accumulation_error(net, pairs, square_loss, 4, 2) < 1e-6  # the pairs twice

    def by_whole_batch(x_hat, x):
        return (x_hat * x.max()).flatten()

    # g = 11 at once; the slices (1, 3) and (5, 11) give 3 and 11
    assert accumulation_error(net, pairs, by_whole_batch, 2, 2) == pytest.approx((11 - 7) / 11)

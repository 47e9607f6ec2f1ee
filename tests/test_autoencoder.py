"""The losses of an autoencoder against their formulas, and who is trained by which of them."""

from types import SimpleNamespace

import pytest
import torch

from distill_lib.engine import store
from distill_lib.engine.loop import TrainSettings
from distill_lib.networks.autoencoders import Critic, build_autoencoder
from distill_lib.teachers.autoencoder import (
    Players,
    critic_loss,
    fooling_loss,
    kl_loss,
    l1_loss,
    perceptual_loss,
    train_autoencoder,
)

FORM = {"channels": (8, 16), "norm_groups": 4}


def players():
    torch.manual_seed(0)
    return Players(build_autoencoder(**FORM), Critic(width=4))


def test_losses_are_one_value_a_picture_and_follow_their_formulas():
    x, y = torch.zeros(2, 3, 4, 4), torch.ones(2, 3, 4, 4)
    y[1] = -0.5
    assert l1_loss(x, y).tolist() == [1, 0.5]
    real, fake = torch.tensor([[[[2.0, 0.0]]]]), torch.tensor([[[[-2.0, 1.0]]]])
    assert critic_loss(real, fake).tolist() == [0.5 + 1.0]  # max(0, 1 - 2), max(0, 1 - 0); max(0, 1 - 2), max(0, 1 + 1)
    assert fooling_loss(fake).tolist() == [0.5]
    mean, variance = torch.tensor([[1.0, 0.0]]), torch.tensor([[1.0, 4.0]])
    assert kl_loss(mean, variance.log()).item() == pytest.approx(
        (1 / 2 + (4 - torch.tensor(4.0).log().item() - 1) / 2) / 2
    )


def test_the_perceptual_loss_compares_directions_of_features_and_not_their_size():
    a = [torch.tensor([[[[3.0]], [[4.0]]]]), torch.tensor([[[[1.0]], [[0.0]]]])]
    assert perceptual_loss(a, [5 * part for part in a]).item() == pytest.approx(0, abs=1e-6)
    crossed = [a[0], torch.tensor([[[[0.0]], [[1.0]]]])]
    assert perceptual_loss(a, crossed).item() == pytest.approx(1)  # |(1, 0) - (0, 1)|^2


def test_latents_have_a_quarter_of_the_side_for_two_halvings():
    net = build_autoencoder((8, 16, 16), norm_groups=4)
    z = net.encode(torch.zeros(2, 3, 16, 16)).latent_dist.mean
    assert z.shape == (2, 4, 4, 4) and net.decode(z).sample.shape == (2, 3, 16, 16)


def gradients(net, loss):
    result = torch.autograd.grad(loss.mean(), list(net.parameters()), allow_unused=True, retain_graph=True)
    names = [name for name, _ in net.named_parameters()]
    return {name.split(".")[0] for name, grad in zip(names, result, strict=True) if grad is not None and grad.any()}


def test_the_critic_learns_from_its_own_loss_and_the_autoencoder_from_the_others():
    net, x = players(), torch.rand(2, 3, 8, 8) * 2 - 1
    x_hat, mean, log_variance, real, fake, fooled = net(x, torch.randn(2, 4, 4, 4))
    assert gradients(net, critic_loss(real, fake)) == {"critic"}
    for loss in (fooling_loss(fooled), l1_loss(x, x_hat), kl_loss(mean, log_variance)):
        assert gradients(net, loss) == {"autoencoder"}
    assert torch.equal(fake, fooled)


def test_a_few_pictures_are_learned_by_heart_and_a_killed_run_ends_the_same(tmp_path, monkeypatch):
    monkeypatch.setattr(store, "RUNS", tmp_path)
    image = torch.randint(0, 256, (4, 3, 8, 8), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    settings = TrainSettings(steps=40, batch_size=4, lr=3e-3, warmup=2, ema=0.5, bf16=False, checkpoint_seconds=0.0)

    def features(x):
        return [x]

    def train(name, stop=None):
        net = players()
        run = store.Run(name, {}, train_autoencoder)
        training = train_autoencoder(
            SimpleNamespace(module=net, forward=net), features, image, settings, run, critic_start=20
        )
        for progress in training:
            if progress.step == stop:
                break
        return run

    def error(run):
        net = players()
        before = l1_loss(image / 127.5 - 1, net(image / 127.5 - 1, torch.zeros(4, 4, 4, 4))[0]).mean()
        net.load_state_dict(run.weights())
        return (l1_loss(image / 127.5 - 1, net(image / 127.5 - 1, torch.zeros(4, 4, 4, 4))[0]).mean() / before).item()

    whole = train("whole")
    assert error(whole) < 0.8
    train("killed", stop=25)
    again = train("killed")
    assert all(torch.equal(value, whole.weights()[name]) for name, value in again.weights().items())

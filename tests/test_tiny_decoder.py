"""The tiny decoder has the paper's size, learns from a large one, and its critic learns too."""

from types import SimpleNamespace

import pytest
import torch
from diffusers import AutoencoderTiny
from torch import nn

from distill_lib.engine.loop import TrainSettings, finish
from distill_lib.engine.store import Run
from distill_lib.networks.autoencoders import Critic, build_tiny
from distill_lib.sdxs.critics import PatchCritic
from distill_lib.sdxs.tiny_decoder import TinyPlayers, train_tiny_decoder
from distill_lib.teachers.autoencoder import coarse_loss, l1_loss


def count(module):
    return sum(p.numel() for p in module.parameters())


def test_its_decoder_has_the_size_of_the_paper_and_neither_attention_nor_normalisation():
    tiny = build_tiny(4)
    assert count(tiny.decoder) == 1_222_531 and count(AutoencoderTiny().decoder) == 1_222_531
    kinds = {type(m) for m in tiny.decoder.modules() if not list(m.children())}
    assert kinds <= {nn.Conv2d, nn.ReLU, nn.Upsample, nn.Identity}


@pytest.mark.parametrize("levels", [2, 3])
def test_it_decodes_latents_of_any_factor(levels):
    tiny = build_tiny(levels, width=8, blocks=1)
    out = tiny.decode(torch.randn(2, 4, 8, 8)).sample
    assert out.shape == (2, 3, 8 << (levels - 1), 8 << (levels - 1))
    z = torch.randn(1, 4, 8, 8)
    assert torch.equal(tiny.decode(z).sample, tiny.decoder(z))  # what is trained is what a pipeline calls


def test_coarse_differences_are_those_of_means_of_squares():
    x, y = torch.rand(2, 3, 16, 16), torch.rand(2, 3, 16, 16)
    by_hand = (x - y).reshape(2, 3, 2, 8, 2, 8).mean((3, 5)).abs().mean((1, 2, 3))
    assert torch.allclose(coarse_loss(x, y), by_hand)
    assert torch.equal(coarse_loss(x, y, 1), l1_loss(x, y))
    shuffled = x.reshape(2, 3, 2, 8, 16).flip(3).reshape(2, 3, 16, 16)
    assert coarse_loss(x, shuffled).abs().max() < 1e-6 < l1_loss(x, shuffled).min()


def test_training_brings_it_nearer_and_trains_the_critic(runs):
    torch.manual_seed(0)
    large = nn.Sequential(nn.Conv2d(4, 3, 3, padding=1), nn.Upsample(scale_factor=4)).requires_grad_(False)
    z = torch.randn(64, 4, 4, 4)
    image = ((large(z).clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8)
    players = TinyPlayers(build_tiny(3, width=16, blocks=1), Critic(8))
    critic = players.critic.body[0].weight.detach().clone()
    net = SimpleNamespace(module=players, forward=players)
    settings = TrainSettings(steps=80, batch_size=16, lr=3e-3, warmup=5, ema=0.9, bf16=False)
    x = image.float() / 127.5 - 1
    before = coarse_loss(x, players.decoder(z)).mean().item()
    run = Run("tiny", {}, train_tiny_decoder)
    finish(net, train_tiny_decoder(net, z, image, settings, run, fooling=0.01), run, "tiny")
    assert coarse_loss(x, players.decoder(z)).mean().item() < 0.5 * before
    assert not torch.equal(critic, players.critic.body[0].weight)


def test_without_a_say_the_critic_stays_as_it_is(runs):
    torch.manual_seed(0)
    players = TinyPlayers(build_tiny(3, width=8, blocks=1), Critic(8))
    critic = players.critic.body[0].weight.detach().clone()
    net = SimpleNamespace(module=players, forward=players)
    settings = TrainSettings(steps=2, batch_size=4, lr=1e-3, warmup=1, ema=0.0, bf16=False)
    image = torch.randint(0, 256, (8, 3, 16, 16), dtype=torch.uint8)
    run = Run("tiny", {"fooling": 0}, train_tiny_decoder)
    finish(net, train_tiny_decoder(net, torch.randn(8, 4, 4, 4), image, settings, run, fooling=0.0), run, "tiny")
    assert torch.equal(critic, players.critic.body[0].weight)


def players_of(factor=0):
    torch.manual_seed(0)
    return TinyPlayers(build_tiny(3, width=8, blocks=1), Critic(8, 3 if factor else 0), factor)


def test_a_conditioned_critic_reads_the_teachers_picture_pooled_beside_either_picture():
    players, x, x_hat = players_of(4), torch.rand(2, 3, 16, 16), torch.rand(2, 3, 16, 16)
    (pooled,) = players.condition(x)
    blocks = x.reshape(2, 3, 4, 4, 4, 4).mean((3, 5), keepdim=True).expand(-1, -1, -1, 4, -1, 4).reshape(2, 3, 16, 16)
    assert torch.allclose(pooled, blocks, atol=1e-6)
    real, fake, _ = players.critic.of_both(x, x_hat, pooled)
    assert torch.equal(real, players.critic.body(torch.cat([x, pooled], 1)))
    assert torch.equal(fake, players.critic.body(torch.cat([x_hat, pooled], 1)))
    assert not torch.equal(fake, players.critic(x_hat, *players.condition(x.flip(0))))
    assert players_of().condition(x) == ()


def test_the_penalty_is_the_square_of_the_slope_by_the_picture_and_trains_the_critic_alone():
    players, x = players_of(4).double(), torch.rand(2, 3, 16, 16, dtype=torch.float64)
    penalty, h = players.penalty(x), 1e-5
    (condition,) = players.condition(x)
    step = torch.randn_like(x)
    with torch.no_grad():
        ends = [players.critic(x + sign * h * step, condition).flatten(1).mean(1) for sign in (1, -1)]
    along = (ends[0] - ends[1]) / (2 * h)  # by Cauchy and Schwarz no direction is steeper than the slope
    assert (along.square() <= penalty * step.square().flatten(1).sum(1) * (1 + 1e-6)).all() and penalty.min() > 0
    penalty.sum().backward()
    assert players.critic.body[0].weight.grad.any() and all(p.grad is None for p in players.decoder.parameters())


def test_the_penalty_comes_every_so_many_updates_and_flattens_the_critic(runs):
    slopes = {}
    for r1 in (0.0, 10.0):
        players, calls = players_of(), []
        own = players.penalty
        players.penalty = lambda x, own=own, calls=calls: calls.append(1) or own(x)
        net = SimpleNamespace(module=players, forward=players)
        settings = TrainSettings(steps=12, batch_size=8, lr=3e-3, warmup=1, ema=0.0, bf16=False)
        image = torch.randint(0, 256, (8, 3, 16, 16), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
        z = torch.randn(8, 4, 4, 4, generator=torch.Generator().manual_seed(1))
        run = Run("tiny", {"r1": r1}, train_tiny_decoder)
        critic = PatchCritic(r1=r1, every=4)
        finish(net, train_tiny_decoder(net, z, image, settings, run, fooling=0.1, critic=critic), run, "tiny")
        assert len(calls) == (3 if r1 else 0)
        slopes[r1] = own(image / 127.5 - 1).mean().item()
    assert slopes[10.0] < slopes[0.0]

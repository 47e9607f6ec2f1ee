"""One bound on gradients a player: who is loud does not slow the others, and one network is clipped as ever."""

import pytest
import torch
from torch import nn

from distill_lib.diffusion.noise import Draws, normal
from distill_lib.engine import store
from distill_lib.engine.loop import Loop, TrainSettings
from distill_lib.engine.trainable import Bare, Team, Together, clip_each, players

SETTINGS = TrainSettings(steps=6, batch_size=4, lr=1e-2, warmup=3, ema=0.0, clip=0.5, bf16=False)


def linear(seed):
    torch.manual_seed(seed)
    return nn.Linear(3, 3)


def loss_of(net, x):
    return (net(x) + 7 * x).square().mean(1)


def trained(net, loss, name):
    """The loop's own way; `loss` of the inputs of a step."""
    loop = Loop(net, SETTINGS, store.Run("test", {"name": name}, normal))
    for _, draws in loop:
        loop.update(loss(draws.normal("x", (3,))))
    return {key: value.detach().clone() for key, value in net.module.named_parameters()}


def test_one_network_is_trained_bit_for_bit_as_by_torch_alone(runs):
    result = trained(net := Bare(linear(0)), lambda x: loss_of(net.module, x), "one")
    other, norms = linear(0), []
    optimizer = torch.optim.AdamW(other.parameters(), lr=SETTINGS.lr, weight_decay=1e-4, fused=True)
    for step in range(SETTINGS.steps):
        loss_of(other, Draws(0, step, torch.arange(4)).normal("x", (3,))).mean().backward()
        optimizer.param_groups[0]["lr"] = SETTINGS.lr * min(1, (step + 1) / 3) * (1 - step / SETTINGS.steps)
        norms.append(nn.utils.clip_grad_norm_(other.parameters(), SETTINGS.clip).item())
        optimizer.step()
        optimizer.zero_grad()
    assert min(norms) > SETTINGS.clip  # or nothing would be clipped
    assert all(torch.equal(result[key], value) for key, value in other.named_parameters())


def both(volume):
    team = Team(student=Bare(linear(0)), critic=Bare(linear(1)))
    student, critic = (member.module for member in team.members.values())
    result = trained(team, lambda x: loss_of(student, x) + volume * loss_of(critic, x), f"volume {volume}")
    return {key: value for key, value in result.items() if key.startswith("student.")}


def test_a_loud_critic_leaves_the_student_as_it_is_bit_for_bit(runs):
    quiet, loud = both(1.0), both(1000.0)
    assert all(torch.equal(loud[key], value) for key, value in quiet.items())


def test_each_player_has_a_norm_of_the_bound_at_most_and_keeps_its_direction():
    team = Together(a=linear(0), b=linear(1), idle=linear(2))
    x = torch.randn(4, 3, generator=torch.Generator().manual_seed(0))
    (loss_of(team.a, x) + 1e-3 * loss_of(team.b, x)).mean().backward()
    loud, quiet = ([p.grad.clone() for p in part.parameters()] for part in (team.a, team.b))
    norm = torch.cat([g.flatten() for g in loud]).norm()
    assert clip_each(players(team), 0.5).item() == pytest.approx(norm.item())
    after = torch.cat([p.grad.flatten() for p in team.a.parameters()])
    assert torch.allclose(after, 0.5 / norm * torch.cat([g.flatten() for g in loud]), rtol=1e-4)
    assert all(torch.equal(p.grad, g) for p, g in zip(team.b.parameters(), quiet, strict=True))


def test_what_is_no_team_is_one_player():
    net = nn.Sequential(linear(0), linear(1))
    assert len(players(net)) == 1 and players(net)[0] == list(net.parameters())

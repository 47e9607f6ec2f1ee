"""The critic on the online model's bottleneck: its loss in closed form, who learns of what, and when it has a say."""

import copy
import math

import pytest
import torch
from test_adversarial_tuning import Pairs
from test_unet_distillation import networks
from torch import nn

from distill_lib.diffusion.errors import mean_square
from distill_lib.diffusion.noise import Draws
from distill_lib.diffusion.schedules import add_noise
from distill_lib.engine.loop import TrainSettings
from distill_lib.engine.store import Run
from distill_lib.engine.trainable import Team
from distill_lib.networks.pruning import Cut, bottleneck, stages, tapped
from distill_lib.sdxs.critics import (
    ProjectedCritic,
    logistic_critic_loss,
    logistic_fooling_loss,
    slope_penalty,
    with_slope,
)
from distill_lib.sdxs.latent_critic import LatentCritic, critic_head
from distill_lib.sdxs.score_distillation import distill_scores
from distill_lib.sdxs.scoring import Adversary, Scoring

ADVERSARY = Adversary(weight=0.5, start=0, body=0.1, rate=1.0, width=8, r1=0.2)


def test_the_logistic_loss_in_closed_form():
    real, fake = torch.tensor([[0.0, 2.0]]), torch.tensor([[0.0, -1.0]])
    by_hand = (math.log(2) + math.log(1 + math.exp(-2))) / 2 + (math.log(2) + math.log(1 + math.exp(-1))) / 2
    assert logistic_critic_loss(real, fake).item() == pytest.approx(by_hand, rel=1e-6)
    answer = torch.tensor([[3.0]], requires_grad=True)
    logistic_fooling_loss(answer).sum().backward()
    assert answer.grad.item() == pytest.approx(-1 / (1 + math.exp(3)), rel=1e-5)  # never 0 where it is fooled least


def test_the_penalty_of_a_linear_critic_is_the_square_of_its_weights():
    critic, x = nn.Linear(3, 1, bias=False), torch.randn(5, 3)
    penalty = slope_penalty(critic, x)
    assert torch.allclose(penalty, critic.weight.square().sum().expand(5))
    penalty.mean().backward()
    assert torch.allclose(critic.weight.grad, 2 * critic.weight)


def test_the_penalty_of_a_critic_of_patches_is_that_of_finite_differences():
    torch.manual_seed(0)
    head, x, h = ProjectedCritic([2], 4).double(), torch.randn(2, 2, 3, 3, dtype=torch.float64), 1e-5
    moves = torch.eye(18, dtype=torch.float64).reshape(18, 1, 2, 3, 3) * h
    with torch.no_grad():
        slopes = torch.stack([(head([x + m]).mean(1) - head([x - m]).mean(1)) / (2 * h) for m in moves])
    assert torch.allclose(slope_penalty(lambda f: head([f]), x), slopes.square().sum(0), rtol=1e-6)


def test_a_loss_with_a_slope_has_that_value_and_that_gradient():
    x, slope = torch.randn(3, 2, requires_grad=True), torch.randn(3, 2)
    loss = with_slope(torch.tensor([1.0, 2.0, 3.0]), slope, x)
    assert loss.tolist() == [1.0, 2.0, 3.0]
    loss.sum().backward()
    assert torch.equal(x.grad, slope)


@pytest.mark.parametrize("cut", [Cut(), Cut(middle="removed")])
def test_the_bottleneck_is_where_features_are_fewest(cut):
    unet = networks(cut)[0].module
    with tapped(stages(unet)) as outputs, tapped([bottleneck(unet)]) as seen, torch.no_grad():
        unet(torch.randn(1, 4, 8, 8), torch.ones(1), torch.randn(1, 5, 16))
    assert seen[0].shape[-1] == min(out.shape[-1] for out in outputs)


@pytest.fixture
def critic():
    online = networks(Cut())[1]
    online.module.requires_grad_(True)
    return LatentCritic(critic_head(online, ADVERSARY, 0), online, ADVERSARY)


def test_the_student_learns_what_autograd_says_and_nobody_else_does(critic):
    x_hat, t = torch.randn(3, 4, 8, 8, requires_grad=True), torch.tensor([50, 400, 800])
    eps, label = torch.randn(3, 4, 8, 8), torch.randn(3, 5, 16)
    loss = critic.fool(x_hat, add_noise(x_hat.detach(), eps, t), t, label)
    loss.sum().backward()
    own, x_hat.grad = x_hat.grad, None
    assert all(p.grad is None for net in (critic.online, critic.head) for p in net.module.parameters())
    with tapped([critic.layer]) as features:
        critic.online(add_noise(x_hat, eps, t), t, label)
    value = 0.5 * logistic_fooling_loss(critic.head.module(features))
    value.sum().backward()
    assert torch.allclose(loss, value, atol=1e-6) and torch.allclose(own, x_hat.grad, atol=1e-7) and own.any()


def test_head_and_the_body_up_to_the_bottleneck_learn_what_the_formula_says(critic):
    draws, pairs = Draws(0, 0, torch.arange(4)), Pairs()
    _, x, label = pairs.batch(draws.integer("real", 16))
    t = 1 + draws.integer("t", 1024)
    with tapped([critic.layer]) as features:
        critic.online(add_noise(x, draws.normal("eps-real", x.shape[1:]), t), t, label)
    real, fake = features[0], torch.randn_like(features[0])
    loss = critic.learn(fake, pairs, draws)
    answer = lambda f: critic.head.module([f])  # noqa: E731
    by_hand = logistic_critic_loss(answer(real), answer(fake)) + 0.1 * slope_penalty(answer, real)
    assert torch.allclose(loss, 0.1 * by_hand, rtol=1e-5)
    loss.mean().backward()
    grads = {name: p.grad for name, p in critic.online.module.named_parameters()}
    assert grads["conv_in.weight"].any() and all(p.grad.any() for p in critic.head.module.parameters())
    assert all(grad is None for name, grad in grads.items() if name.startswith(("up_blocks", "conv_out")))


def trained(name, steps, **changed):
    """Weights of student and head before, and after each update of the online model."""
    student, teacher = networks(Cut())
    teacher.decode = student.decode = lambda z: z
    online = teacher.like(copy.deepcopy(teacher.module).requires_grad_(True))
    adversary = Adversary(**{"weight": 1.0, "start": 0, "body": 0.1, "rate": 1.0, "width": 8} | changed)
    team = Team(student=student, online=online, critic=critic_head(online, adversary, 0))
    settings = TrainSettings(steps=steps, batch_size=4, lr=1e-3, warmup=1, ema=0.0, bf16=False)
    scoring = Scoring(settings, 0.0, online_updates=2, adversary=adversary)
    run = Run(name, {}, distill_scores)
    history = []
    for _ in distill_scores(team, teacher, Pairs(), lambda a, b: mean_square(a - b), scoring, run):
        parts = (team.members[part].module.parameters() for part in ("student", "critic"))
        history.append([torch.cat([p.detach().flatten() for p in part]) for part in parts])
    return history


def test_the_critic_has_a_say_from_its_start_on_and_learns_from_the_first(runs):
    late, soon, never = trained("late", 3, start=2), trained("soon", 3), trained("never", 3, start=9)
    assert [torch.equal(a[0], b[0]) for a, b in zip(late, never, strict=True)] == [True] * 5 + [False]
    assert [torch.equal(a[0], b[0]) for a, b in zip(soon, never, strict=True)] == [True] + [False] * 5
    assert all(not torch.equal(never[k][1], never[k + 1][1]) for k in range(5))

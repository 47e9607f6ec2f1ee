"""Adapter and critic learn, the student's own weights do not, and a plain network is left."""

import torch
from test_unet_distillation import Data, networks

from distill_lib.diffusion.noise import normal
from distill_lib.engine.loop import TrainSettings, finish
from distill_lib.engine.store import Run
from distill_lib.engine.trainable import Bare, Team, fixed
from distill_lib.networks.lora import add_low_rank, merge_low_rank
from distill_lib.networks.pruning import Cut
from distill_lib.sdxs.critics import ProjectedCritic
from distill_lib.sdxs.texture import tune_adversarially
from distill_lib.teachers.autoencoder import critic_loss


class Pairs:
    """Noise with a picture of another spread, which no such student draws."""

    def __len__(self):
        return 16

    def batch(self, index, device="cpu"):
        z = normal(0, "z", 0, index, (4, 8, 8))
        return z, 0.2 * z.roll(1, 3), Data().states[index]

    def fresh(self, draws, device="cpu"):
        return draws.normal("z_T", (4, 8, 8)), Data().states[draws.integer("prompt", 16)]


def features(image):
    return [image, torch.nn.functional.avg_pool2d(image, 2)]


def answers(net):
    z, _, label = Pairs().batch(torch.arange(8))
    with torch.no_grad():
        return net(z, torch.full((8,), 700), label)


def tuned(runs, steps):
    student, _ = networks(Cut())
    student.decode = lambda z: z
    torch.manual_seed(1)
    run = Run(f"gan{steps}", {}, tune_adversarially)
    before = answers(student)
    add_low_rank(student, 2)
    assert torch.equal(answers(student), before)  # an adapter starts at nothing
    both = Team(student=student, critic=Bare(ProjectedCritic([4, 4], 8)))
    own = {name: p.detach().clone() for name, p in student.module.named_parameters() if "lora" not in name}
    critic = {name: p.detach().clone() for name, p in both.members["critic"].module.named_parameters()}
    settings = TrainSettings(steps=steps, batch_size=8, lr=2e-3, warmup=2, ema=0.0, bf16=False)
    finish(both, tune_adversarially(both, features, Pairs(), settings, run), run, "gan")
    return student, both, own, critic, before


def test_only_adapter_and_critic_are_trained(runs):
    student, both, own, critic, before = tuned(runs, 5)
    now = dict(student.module.named_parameters())
    assert all(torch.equal(now[name], value) for name, value in own.items())
    assert any(not torch.equal(p, critic[name]) for name, p in both.members["critic"].module.named_parameters())
    assert not torch.equal(answers(student), before)


def test_a_merged_adapter_leaves_a_plain_network_with_the_same_answers(runs):
    student, *_ = tuned(runs, 5)
    with_adapter = answers(student)
    student.forward = student.module
    merge_low_rank(student)
    assert not any("lora" in name or "base_layer" in name for name, _ in student.module.named_parameters())
    assert torch.allclose(answers(student), with_adapter, atol=1e-5)


def test_the_critic_learns_to_tell(runs):
    student, both, *_ = tuned(runs, 60)
    z, x, label = Pairs().batch(torch.arange(16))
    with torch.no_grad():
        drawn = -student(z, torch.full((16,), 1024), label)  # at T the prediction is -x
        critic = both.members["critic"].module
        loss = critic_loss(critic(features(x)), critic(features(drawn))).mean().item()
    assert loss < 1.9  # 2 is a guess


def test_a_fixed_network_hands_the_gradient_on_and_keeps_none():
    net, x = torch.nn.Linear(3, 1), torch.randn(2, 3, requires_grad=True)
    result = fixed(net, x)
    assert torch.equal(result, net(x))
    result.sum().backward()
    assert torch.equal(x.grad, net.weight.expand(2, -1)) and net.weight.grad is None and net.bias.grad is None


def test_a_call_of_a_member_goes_through_whatever_the_team_is_wrapped_in():
    first, other = Bare(torch.nn.Linear(3, 1)), Bare(torch.nn.Linear(3, 1))
    team, calls = Team(one=first, other=other), []
    inner, x = team.forward, torch.randn(2, 3)
    team.forward = lambda network_name, *given: calls.append(network_name) or inner(network_name, *given)
    assert torch.equal(first.forward(x), first.module(x)) and torch.equal(other.forward(x), other.module(x))
    assert calls == ["one", "other"] and set(team.module.state_dict()) >= {"one.weight", "other.weight"}

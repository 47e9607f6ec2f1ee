"""What a training does to need less memory leaves its gradients as they were."""

import sys
from dataclasses import dataclass
from types import SimpleNamespace

import pytest
import torch
from closed_forms import tiny_unet
from torch import nn

from distill_lib.diffusion.noise import normal
from distill_lib.engine import store
from distill_lib.engine.loop import FrugalSettings, Loop, TrainSettings, finish
from distill_lib.engine.replay import replay
from distill_lib.engine.savings import Savings, in_bf16, rounded
from distill_lib.engine.specs import spec_of
from distill_lib.engine.trainable import Bare
from distill_lib.guided.halving import Halving, halve_steps
from distill_lib.guided.stage_one import distill_guidance
from distill_lib.networks.adapter import Network
from distill_lib.networks.unet import student_of
from distill_lib.worlds.pictures import Pictures

STEPS, BATCH = 3, 8


def settings(**savings):
    of = {"steps": STEPS, "batch_size": BATCH, "lr": 1e-3, "warmup": 1, "clip": 1e9, "bf16": False}
    return FrugalSettings(**of, savings=Savings(**savings)) if savings else TrainSettings(**of)


def named(**savings):
    return store.Run("test", {"savings": savings}, normal)


class Watched(Loop):
    """Keeps how many samples each slice has."""

    def update(self, loss):
        self.sizes = [*getattr(self, "sizes", []), len(loss)]
        return super().update(loss)


@pytest.fixture
def pictures():
    image = torch.randint(0, 256, (8, 3, 8, 8), dtype=torch.uint8)
    return Pictures(image, torch.arange(8) % 3, ("a", "b", "c"))


def trained(method, pictures, **savings):
    """(gradients of the first step, weights at the end, moments, the loop) of a method on a tiny network."""
    torch.manual_seed(0)
    teacher, run, loops, first = tiny_unet(), named(method=method, **savings), [], {}
    student = Network(student_of(teacher), bf16=False)
    for p in student.module.parameters():
        p.register_post_accumulate_grad_hook(lambda p: first.update({p: p.grad.clone()}) if not loops[0].step else None)

    def keep(*given):
        loops.append(Watched(*given))
        return loops[0]

    with pytest.MonkeyPatch.context() as patch:
        for name in ("stage_one", "halving"):
            patch.setattr(f"distill_lib.guided.{name}.Loop", keep)
        if method == "stage one":
            of = Network(teacher.requires_grad_(False), bf16=False)
            training = distill_guidance(student, of, pictures, settings(**savings), run)
        else:
            of = Network(student_of(teacher).requires_grad_(False), bf16=False)
            training = halve_steps(student, of, pictures, Halving(4, settings(**savings), reuse=method), run)
        steps = [progress.step for progress in training]
    return SimpleNamespace(
        first=[first[p] for p in student.module.parameters() if p in first], steps=steps, loop=loops[0],
        student=student, weights=run.weights(), moments=[s["exp_avg"] for s in loops[0].optimizer.state.values()],
    )  # fmt: skip


def close(ours, reference, atol=2e-6):
    return len(ours) == len(reference) and all(
        torch.allclose(a, b, rtol=1e-4, atol=atol) for a, b in zip(ours, reference, strict=True)
    )


@pytest.mark.parametrize("method", ["stage one", 1, 2])  # a halving whose batches serve so many updates
def test_slices_and_checkpointing_leave_gradients_as_they_are(method, pictures, runs):
    plain = trained(method, pictures)
    assert plain.loop.sizes == [BATCH] * STEPS and plain.steps == [1, 2, 3]
    assert max(part.abs().max() for part in plain.first) > 1e-3
    for savings in ({"slices": 4}, {"checkpointing": True}, {"slices": 2, "checkpointing": True, "offload": True}):
        ours = trained(method, pictures, **savings)
        assert close(ours.first, plain.first), savings
        assert close(ours.moments, plain.moments, atol=1e-4), savings
        slices = savings.get("slices", 1)
        assert ours.loop.sizes == [BATCH // slices] * STEPS * slices
        assert ours.steps == [(i + 1) // slices for i in range(STEPS * slices)]
        assert ours.loop.accelerator.device == ours.loop.average[0].device
    assert all(part.gradient_checkpointing for part in ours.student.module.down_blocks)


def test_wrong_slices_would_be_seen(pictures, runs, monkeypatch):
    plain = trained("stage one", pictures)
    monkeypatch.setattr(Watched, "update", lambda self, loss: Loop.update(self, 2 * loss))
    assert not close(trained("stage one", pictures, slices=2).first, plain.first)


def small(run, train_settings, until=None, net=None):
    torch.manual_seed(0)
    net = net or Bare(nn.Linear(3, 3))
    loop = Loop(net, train_settings, run)
    for _, draws in loop:
        loop.update((net.forward(draws.normal("x", (3,))) - draws.uniform("y")[:, None]).square().mean(1))
        if loop.step == until:
            break
    return loop


def test_a_run_of_slices_that_was_killed_goes_on_to_the_same_bits(runs):
    of = settings(slices=4)
    straight = small(named(kind="straight"), of)
    run = named(kind="killed")
    small(run, FrugalSettings(**vars(of) | {"checkpoint_seconds": 0}), until=1)
    assert run.state()["step"] == 1
    small(run, of)
    assert torch.equal(run.weights()["weight"], straight.weights()["weight"])


def test_a_step_that_was_cut_off_between_its_slices_leaves_nothing_in_the_next_training(runs):
    of, run = settings(slices=4), named(kind="cut off")
    straight = small(named(kind="straight"), of)
    torch.manual_seed(0)
    net = Bare(nn.Linear(3, 3))
    training = Loop(net, of, run)
    for part, (_, draws) in enumerate(training, 1):
        training.update(1e3 * net.forward(draws.normal("x", (3,))).square().mean(1))
        if part == 3:
            break
    assert net.module.weight.grad.abs().max() > 100 and training.step == 0
    small(run, of, net=net)  # the same cell of a notebook again
    assert torch.equal(run.weights()["weight"], straight.weights()["weight"])


def test_a_training_whose_loss_was_not_finite_may_begin_again_with_the_same_network(runs):
    torch.manual_seed(0)
    net = Bare(nn.Linear(3, 3))
    training = Loop(net, settings(), named(kind="nan"))
    with pytest.raises(ValueError, match="stops at step 1 of 3: the loss is nan"):
        for _, draws in training:
            training.update(net.forward(draws.normal("x", (3,))).square().mean(1) * torch.nan)
    straight = small(named(kind="straight"), settings())
    again = small(named(kind="again"), settings(), net=net)
    assert torch.equal(again.weights()["weight"], straight.weights()["weight"])


def test_draws_of_slices_are_those_of_the_batch(runs):
    def draws(of, run):
        net = Bare(nn.Linear(3, 3))
        loop = Loop(net, of, run)
        for step, part in loop:
            yield step, part.index.tolist()
            loop.update(net.forward(part.normal("x", (3,))).square().mean(1))

    parts = [*draws(settings(slices=4), named(slices=4))]
    whole = [*draws(settings(), named())]
    assert [step for step, _ in parts] == [step for step, _ in whole for _ in range(4)]
    for step, index in whole:
        assert [i for other, part in parts if other == step for i in part] == index


@dataclass(frozen=True)
class Part:
    """Draws of a slice of a step."""

    step: int
    part: int


def test_a_batch_that_serves_several_updates_keeps_its_slices_apart():
    steps = [(step, Part(step, part)) for step in range(80) for part in range(2)]
    seen = [batch for _, batch in replay(steps, lambda draws: (draws.step, draws.part), 2)]
    assert seen[:4] == [(0, 0), (0, 1), (1, 0), (1, 1)]
    assert seen[40:44] == seen[:4] and seen[80:84] == [(40, 0), (40, 1), (41, 0), (41, 1)]


def test_a_batch_that_does_not_divide_is_refused(runs):
    with pytest.raises(ValueError, match="batch_size=8 cannot be shared by 1 processes with 3 slices each; take a mul"):
        Loop(Bare(nn.Linear(3, 3)), settings(slices=3), named())
    with pytest.raises(ValueError, match="checkpointing: Linear holds no network of diffusers that can; leave it out"):
        Loop(Bare(nn.Linear(3, 3)), settings(checkpointing=True), named())


# ------------------------------------------------------------------------------------------------ frozen weights


def test_a_frozen_network_is_lent_rounded_and_comes_back_whole(runs, pictures):
    teacher = Network(tiny_unet().requires_grad_(False), bf16=None)
    before = {name: value.clone() for name, value in teacher.module.state_dict().items()}
    student = Network(student_of(teacher.module))
    of = FrugalSettings(**vars(settings()) | {"bf16": True, "savings": Savings(frozen_bf16=True)})
    run, kinds = named(kind="lent"), set()
    teacher.module.conv_in.register_forward_hook(lambda layer, *_: kinds.add(layer.weight.dtype))
    finish(student, distill_guidance(student, teacher, pictures, of, run), run, "stage one")
    assert kinds == {torch.bfloat16}
    assert all(torch.equal(value, before[name]) for name, value in teacher.module.state_dict().items())
    plain = named(kind="plain")
    student = Network(student_of(teacher.module))
    of = TrainSettings(**vars(settings()) | {"bf16": True})
    finish(student, distill_guidance(student, teacher, pictures, of, plain), plain, "stage one")
    assert all(torch.equal(a, b) for a, b in zip(run.weights().values(), plain.weights().values(), strict=True))


def test_in_float32_a_network_is_lent_as_it_is(runs, pictures):
    teacher, run = Network(tiny_unet().requires_grad_(False), bf16=False), named(kind="fp32")
    student = Network(student_of(teacher.module), bf16=False)
    training = distill_guidance(student, teacher, pictures, settings(frozen_bf16=True), run)
    next(training)
    assert teacher.module.conv_in.weight.dtype == torch.float32


def test_the_rounded_weights_are_the_nearest_of_bfloat16():
    net = tiny_unet()
    exact = net.conv_in.weight.detach().clone()
    with rounded(net):
        assert torch.equal(net.conv_in.weight, exact.bfloat16()) and net.conv_norm_out.weight.dtype == torch.float32
    assert torch.equal(net.conv_in.weight, exact)
    in_bf16(net)
    assert net.time_embedding.linear_1.bias.dtype == torch.bfloat16


# ------------------------------------------------------------------------------------------------ 8-bit, and keys


def test_without_bitsandbytes_it_is_asked_for_in_one_sentence(runs, monkeypatch):
    monkeypatch.setitem(sys.modules, "bitsandbytes", None)
    with pytest.raises(ValueError, match=r"^optimizer=adamw8bit needs bitsandbytes, .*, or take optimizer=adamw$"):
        Loop(Bare(nn.Linear(3, 3)), settings(optimizer="adamw8bit"), named())


class EightBit(torch.optim.Optimizer):
    """What bitsandbytes keeps: a number of steps, and tables that parameters share."""

    table = torch.linspace(-1, 1, 256)

    def __init__(self, groups, lr, weight_decay):
        super().__init__(groups, {"lr": lr})

    @torch.no_grad()
    def step(self):
        for group in self.param_groups:
            for p in group["params"]:
                state = self.state[p] or {"step": 0, "state1": torch.zeros_like(p), "qmap1": self.table}
                state["step"] += 1
                state["state1"] = 0.9 * state["state1"] + p.grad
                p.sub_(group["lr"] * state["state1"] / state["step"])
                self.state[p] = state


def test_a_run_with_another_optimizer_goes_on_to_the_same_bits(runs, monkeypatch):
    optim = SimpleNamespace(AdamW8bit=EightBit)
    monkeypatch.setitem(sys.modules, "bitsandbytes", SimpleNamespace(optim=optim))
    of = settings(optimizer="adamw8bit")
    straight = small(named(kind="straight 8"), of)
    run = named(kind="killed 8")
    small(run, FrugalSettings(**vars(of) | {"checkpoint_seconds": 0}), until=2)
    small(run, of)
    assert torch.equal(run.weights()["weight"], straight.weights()["weight"])


def test_keys_of_plain_trainings_hold_no_savings():
    plain = spec_of(settings())
    assert plain["of"] == "distill_lib.engine.loop.TrainSettings" and "savings" not in plain
    assert spec_of(settings(slices=2))["savings"]["slices"] == 2

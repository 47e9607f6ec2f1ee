"""Adapters that hold guidance: exact at the start and at w = 0, alone in what is trained, each sample with its w."""

import copy
import math

import pytest
import torch
from closed_forms import tiny_unet

from distill_lib.diffusion.guidance import guidance_embedding
from distill_lib.diffusion.noise import normal
from distill_lib.diffusion.schedules import Schedule
from distill_lib.engine import store
from distill_lib.engine.loop import TrainSettings
from distill_lib.engine.specs import spec_of
from distill_lib.experiments.successors import fold_guidance
from distill_lib.guided.stage_one import distill_guidance
from distill_lib.networks.adapter import Network
from distill_lib.networks.guidance_adapters import Adapter, trained_share, with_guidance_adapters
from distill_lib.networks.unet import student_of
from distill_lib.worlds.pictures import Pictures

W = torch.tensor([0.0, 0.3, 1.0, 4.0])
SETTINGS = TrainSettings(steps=3, batch_size=8, lr=1e-2, warmup=1, ema=0.9, bf16=False, checkpoint_seconds=0)


@pytest.fixture
def inputs():
    return torch.randn(4, 12, 4, 4), torch.tensor([1, 300, 700, 1024]), torch.tensor([0, 1, 2, 3])


@pytest.fixture
def pictures():
    image = torch.randint(0, 256, (16, 3, 8, 8), dtype=torch.uint8)
    return Pictures(image, torch.arange(16) % 3, ("a", "b", "c"))


def teacher_of(bf16=False, **options):
    return Network(tiny_unet().requires_grad_(False), bf16=bf16, **options)


def with_trained_adapters(teacher):
    net = with_guidance_adapters(teacher, 4)
    with torch.no_grad():
        for adapter in net.module.adapters:
            adapter.up.weight.normal_(std=0.3)
    return net


def test_an_adapter_is_its_formula():
    adapter, h, features = Adapter(6, 2), torch.randn(4, 6, 3, 3), guidance_embedding(W, 64)
    torch.nn.init.normal_(adapter.up.weight)
    a, b = adapter.down.weight[:, :, 0, 0], adapter.up.weight[:, :, 0, 0]
    inner = torch.einsum("rc,bchw->brhw", a, h) + adapter.down.bias[:, None, None]
    inner = inner + (features @ adapter.strength.weight.T)[:, :, None, None]
    gate = torch.tensor([10 * math.sin(w / 10) for w in W.tolist()])[:, None, None, None]
    expected = h + gate * torch.einsum("cr,brhw->bchw", b, inner * inner.sigmoid())
    assert torch.allclose(adapter(h, features), expected, rtol=0, atol=1e-5)
    assert torch.allclose(gate.flatten(), W, rtol=0.03)


@pytest.mark.parametrize("bf16", [False, True])
def test_it_starts_as_the_teacher_at_every_w_and_stays_the_teacher_at_w_0(bf16, inputs):
    teacher = teacher_of(bf16)
    fresh, trained = with_guidance_adapters(teacher, 4), with_trained_adapters(teacher)
    with torch.no_grad():
        expected = teacher(*inputs)
        assert torch.equal(fresh(*inputs, W), expected)
        answer = trained(*inputs, W)
    assert torch.equal(answer[0], expected[0]) and (answer[1:] - expected[1:]).abs().flatten(1).amax(1).min() > 1e-2


def test_a_teacher_that_predicts_eps_keeps_its_head(inputs):
    grid = Schedule(0.9 * Schedule.cosine().alpha + 0.1)
    teacher = teacher_of(predicts="epsilon", schedule=grid)
    with torch.no_grad():
        assert torch.equal(with_guidance_adapters(teacher, 4)(*inputs, W), teacher(*inputs))


def test_each_sample_of_a_batch_has_its_own_strength(inputs):
    net = with_trained_adapters(teacher_of())
    with torch.no_grad():
        mixed = net(*inputs, W)
        for i, w in enumerate(W):
            assert torch.equal(mixed[i], net(*inputs, torch.full((4,), w))[i])


def test_only_adapters_get_a_gradient_and_all_of_them_do(inputs):
    net = with_trained_adapters(teacher_of())
    net(*inputs, W).square().mean().backward()
    has_gradient = {name: p.grad is not None and bool(p.grad.any()) for name, p in net.module.named_parameters()}
    assert has_gradient == {name: name.startswith("adapters.") for name in has_gradient}


def test_stage_one_trains_the_adapters_and_leaves_the_base_and_the_teacher(runs, pictures):
    teacher = teacher_of()
    net = with_guidance_adapters(teacher, 4)
    before = {name: value.clone() for name, value in net.module.state_dict().items()}
    of_teacher = {name: value.clone() for name, value in teacher.module.state_dict().items()}
    list(distill_guidance(net, teacher, pictures, SETTINGS, store.Run("test", {}, normal)))
    moved = {name for name, value in net.module.state_dict().items() if not torch.equal(value, before[name])}
    assert moved == {name for name in before if name.startswith("adapters.")}
    assert all(torch.equal(value, of_teacher[name]) for name, value in teacher.module.state_dict().items())


def test_a_finished_training_is_found_again_and_tells_its_student(runs, pictures, inputs):
    teacher = teacher_of()
    students = [with_guidance_adapters(teacher, rank) for rank in (2, 2, 3)] + [Network(student_of(teacher.module))]
    done = [fold_guidance(student, teacher, pictures, SETTINGS, 4.0, "test") for student in students]
    assert done[0].key == done[1].key and len({trained.key for trained in done}) == 3
    with torch.no_grad():
        a, b = (trained.net(*inputs, W) for trained in done[:2])
        assert torch.equal(a, b) and not torch.equal(a[1:], teacher(*inputs)[1:])
        assert torch.equal(a[0], teacher(*inputs)[0])


def test_the_share_that_is_trained_is_that_of_the_adapters():
    net = with_guidance_adapters(teacher_of(), 4)
    total, trained = 0, 0
    for p in net.module.parameters():
        total, trained = total + p.numel(), trained + p.numel() * p.requires_grad
    assert trained_share(net) == trained / total
    # blocks of the tiny network: one down and two up for each of two stages, one in the middle
    channels = [16, 32, 32, 32, 16, 16, 32]
    assert trained == sum(4 * c + 4 + 4 * 64 + c * 4 for c in channels)


def test_a_copy_has_adapters_of_its_own_and_a_key_tells_their_weights(inputs):
    net = with_trained_adapters(teacher_of())
    other = net.like(copy.deepcopy(net.module))
    with torch.no_grad():
        expected = net(*inputs, W)
        assert torch.equal(other(*inputs, W), expected) and str(spec_of(other)) == str(spec_of(net))
        for adapter in other.module.adapters:
            adapter.up.weight.zero_()
        assert torch.equal(net(*inputs, W), expected) and not torch.equal(other(*inputs, W), expected)
    assert str(spec_of(other)) != str(spec_of(net))


def test_two_of_one_seed_are_the_same_and_the_teacher_is_not_touched(inputs):
    teacher = teacher_of()
    a, b = (with_guidance_adapters(teacher, 4, seed=3).module.state_dict() for _ in range(2))
    assert all(torch.equal(value, b[name]) for name, value in a.items())
    with torch.no_grad():
        before = teacher(*inputs)
        with_trained_adapters(teacher)(*inputs, W)
        assert torch.equal(teacher(*inputs), before)


def test_a_network_that_takes_w_is_refused():
    with pytest.raises(ValueError, match="takes w, so it is guided already"):
        with_guidance_adapters(Network(student_of(tiny_unet())), 4)

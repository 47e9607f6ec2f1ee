"""A small U-Net approaches a large one by what both answer and by what both see on the way."""

import pytest
import torch
from test_pruning import small

from distill_lib.diffusion.errors import mean_square
from distill_lib.engine.loop import TrainSettings, finish
from distill_lib.engine.store import Run
from distill_lib.networks.adapter import Network
from distill_lib.networks.pruning import Cut, counterparts, prune, tapped
from distill_lib.sdxs.tiny_unet import distill_unet

SHORT = TrainSettings(steps=60, batch_size=8, lr=2e-3, warmup=5, ema=0.9, bf16=False)
CUT = Cut(middle="removed", innermost=True, finest=True, layers=1)


class Data:
    """Sixteen pictures with states of their own."""

    def __init__(self):
        generator = torch.Generator().manual_seed(0)
        self.x = torch.randn(16, 4, 8, 8, generator=generator)
        self.states = torch.randn(16, 5, 16, generator=generator)

    def __len__(self):
        return len(self.x)

    def batch(self, index, device="cpu"):
        return self.x[index].to(device), self.states[index].to(device)


def networks(cut, inherit=True):
    null = torch.zeros(5, 16)
    teacher = small().requires_grad_(False)
    student = prune(teacher, cut, inherit).requires_grad_(True)
    return Network(student, bf16=False, null=null), Network(teacher, bf16=False, null=null)


def trained(runs, name, steps=30, **options):
    student, teacher = networks(CUT)
    run = Run(name, options, distill_unet)
    settings = TrainSettings(steps=steps, batch_size=8, lr=2e-3, warmup=5, ema=0.9, bf16=False)
    return (
        student,
        teacher,
        finish(student, distill_unet(student, teacher, Data(), settings, run, **options), run, name),
    )


def miss(student, teacher):
    """Squared differences of answers and of features, at inputs that no training has seen."""
    generator = torch.Generator().manual_seed(9)
    z, states = torch.randn(32, 4, 8, 8, generator=generator), torch.randn(32, 5, 16, generator=generator)
    t = torch.arange(32) * 32 + 1
    student_blocks, teacher_blocks = counterparts(student.module, teacher.module)
    with torch.no_grad(), tapped(student_blocks) as ours, tapped(teacher_blocks) as wanted:
        answer = mean_square(student(z, t, states) - teacher(z, t, states)).mean().item()
    return answer, sum(mean_square(a - b).mean().item() for a, b in zip(ours, wanted, strict=True))


def test_nothing_removed_has_nothing_to_learn(runs):
    student, teacher = networks(Cut())
    run = Run("same", {}, distill_unet)
    first = next(distill_unet(student, teacher, Data(), SHORT, run))
    assert first.loss == pytest.approx(0, abs=1e-9)


def test_training_brings_answers_and_features_nearer_and_features_only_where_they_are_asked_for(runs):
    before = miss(*networks(CUT))
    after, without = (miss(*trained(runs, f"f{weight}", lambda_f=weight)[:2]) for weight in (1.0, 0.0))
    assert after[0] < 0.5 * before[0] and after[1] < 0.9 * before[1]
    assert after[1] < without[1]


def test_the_denoising_loss_is_added_where_it_is_asked_for(runs):
    student, teacher = networks(Cut())  # already as the teacher, so that nothing else is left
    run = Run("denoising", {}, distill_unet)
    first = next(distill_unet(student, teacher, Data(), SHORT, run, denoising=0.5))
    assert first.loss > 0.1

"""Algorithm 1 of SDXS: a generator finds a known teacher, the networks take their turns, and no picture is rendered."""

from types import SimpleNamespace

import pytest
import torch
from closed_forms import Gaussian
from torch import nn

from distill_lib.diffusion.errors import mean_square
from distill_lib.diffusion.noise import normal
from distill_lib.diffusion.schedules import OURS
from distill_lib.engine.loop import TrainSettings, finish
from distill_lib.engine.store import Run
from distill_lib.engine.trainable import Team
from distill_lib.sdxs.score_distillation import Scoring, Segment, distill_scores


class Generator(nn.Module):
    """x = mean + std z_T in one step: at T the prediction v is -x."""

    def __init__(self, mean, std):
        super().__init__()
        self.mean, self.std = nn.Parameter(torch.tensor(mean)), nn.Parameter(torch.tensor(std))

    def forward(self, z_t, t, label):
        return -(self.mean + self.std * z_t)


class Follower(nn.Module):
    """The denoiser of a Gaussian whose mean and spread are learned."""

    def __init__(self, mean, std):
        super().__init__()
        self.mean, self.std = nn.Parameter(torch.tensor(mean)), nn.Parameter(torch.tensor(std))

    def forward(self, z_t, t, label):
        return Gaussian(self.mean, self.std)(z_t, t)


class Called:
    """What `adapter.Network` is, as far as the loop goes."""

    def __init__(self, module):
        self.module = self.forward = module

    def __call__(self, z_t, t, label):
        return self.forward(z_t, t, label)


class Noise:
    """Pairs of a teacher that draws 1 + z / 2."""

    def __len__(self):
        return 4096

    def batch(self, index, device="cpu"):
        z = normal(0, "z", 0, index, (2,))
        return z, 1 + 0.5 * z, torch.zeros(len(z), dtype=torch.long)


def offline():
    """The teacher N(1, 1/4), asked without guidance."""

    class Exact(SimpleNamespace):
        def __call__(self, z_t, t, label):
            return Gaussian(1.0, 0.5)(z_t, t)

    return Exact(schedule=OURS, null=0)


def team():
    return Team(student=Called(Generator(-1.0, 1.5)), online=Called(Follower(1.0, 0.5)))


def train(both, name, steps=400, lambda_fm=0.0, **options):
    settings = TrainSettings(steps=steps, batch_size=128, lr=0.03, warmup=1, ema=0.9, bf16=False)
    matching = options.pop("matching", lambda x_hat, x: mean_square(x_hat - x))
    run = Run(name, options, distill_scores)
    scoring = Scoring(settings, 0.0, Segment(alpha=(0.9, 0.6), lambda_fm=(lambda_fm, lambda_fm)), **options)
    return distill_scores(both, offline(), Noise(), matching, scoring, run), run


def test_a_generator_finds_the_teacher_by_scores_alone(runs):
    both = team()
    training, run = train(both, "scores", 800, online_updates=2, online_rate=2.0)
    finish(both, training, run, "scores")
    result = both.members["student"].module
    assert result.mean.item() == pytest.approx(1.0, abs=0.1)  # lr falls to 0; what is left is the batches' noise
    assert abs(result.std.item()) == pytest.approx(0.5, abs=0.1)


def test_feature_matching_says_which_noise_makes_which_picture(runs):
    """Scores know the density alone: mean - std z is as good as mean + std z. Matching decides."""
    both = team()
    training, run = train(both, "matched", lambda_fm=2.0)
    finish(both, training, run, "matched")
    assert both.members["student"].module.std.item() == pytest.approx(0.5, abs=0.1)


def test_the_student_waits_for_its_turn(runs):
    both = team()
    training, _ = train(both, "turns", 6, online_updates=3)
    seen = []
    for _ in training:
        seen.append((both.members["student"].module.mean.item(), both.members["online"].module.mean.item()))
    students, onlines = zip(*seen, strict=True)
    assert students[0] == students[1] == -1.0 != students[2]
    assert students[2] == students[3] == students[4] != students[5]
    assert len(set(onlines)) == 6


def test_the_rate_of_the_online_model_is_its_own(runs):
    moved = {}
    for rate in (1.0, 3.0):
        both = team()
        training, _ = train(both, f"rate{rate}", 1, online_updates=2, online_rate=rate)
        next(training)
        moved[rate] = abs(both.members["online"].module.mean.item() - 1.0)
    assert moved[3.0] == pytest.approx(3 * moved[1.0], rel=1e-3)  # Adam's first step has the size of its rate


def test_alpha_and_lambda_fall_evenly():
    segment = Segment(alpha=(1.0, 0.5), lambda_fm=(2.0, 0.0))
    assert segment.at(0.0) == (1.0, 2.0) and segment.at(0.5) == (0.75, 1.0) and segment.at(1.0) == (0.5, 0.0)

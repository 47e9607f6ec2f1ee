"""Algorithm 1 of SDXS: a generator finds a known teacher, the networks take their turns, and no picture is rendered."""

from types import SimpleNamespace

import pytest
import torch
from closed_forms import Gaussian
from torch import nn

from distill_lib.diffusion.errors import mean_square
from distill_lib.diffusion.noise import Draws, normal
from distill_lib.diffusion.schedules import OURS, add_noise, x_from_v
from distill_lib.engine.loop import TrainSettings, finish
from distill_lib.engine.store import Run
from distill_lib.engine.trainable import Team
from distill_lib.sdxs import score_distillation
from distill_lib.sdxs.score_distillation import distill_scores, follow_student
from distill_lib.sdxs.scoring import Scoring, Segment


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
    """Pairs of a teacher that draws 1 + z / 2, a list of the noises that were drawn of them, and one of fresh ones."""

    def __init__(self):
        self.paired, self.drawn = [], []

    def __len__(self):
        return 4096

    def batch(self, index, device="cpu"):
        z = normal(0, "z", 0, index, (2,))
        self.paired.append(z)
        return z, 1 + 0.5 * z, torch.zeros(len(z), dtype=torch.long)

    def fresh(self, draws, device="cpu"):
        self.drawn.append(draws.normal("z_T", (2,)))
        return self.drawn[-1], torch.zeros(len(draws.index), dtype=torch.long)


def offline():
    """The teacher N(1, 1/4), asked without guidance."""

    class Exact(SimpleNamespace):
        def __call__(self, z_t, t, label):
            return Gaussian(1.0, 0.5)(z_t, t)

    return Exact(schedule=OURS, null=0)


def team():
    return Team(student=Called(Generator(-1.0, 1.5)), online=Called(Follower(1.0, 0.5)))


def train(both, name, steps=200, lambda_fm=0.0, **options):
    pairs = options.pop("pairs", None) or Noise()
    settings = TrainSettings(steps=steps, batch_size=128, lr=0.03, warmup=1, ema=0.9, bf16=False)
    matching = options.pop("matching", lambda x_hat, x: mean_square(x_hat - x))
    run = Run(name, options, distill_scores)
    options = {"online_updates": 2} | options
    scoring = Scoring(settings, 0.0, Segment(alpha=(0.9, 0.6), lambda_fm=(lambda_fm, lambda_fm)), **options)
    return distill_scores(both, offline(), pairs, matching, scoring, run), run


def test_a_generator_finds_the_teacher_by_scores_alone(runs):
    both = team()
    training, run = train(both, "scores", 400, online_rate=2.0)
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
    training, _ = train(both, "turns", 2, online_updates=3)
    seen = []
    for _ in training:
        seen.append((both.members["student"].module.mean.item(), both.members["online"].module.mean.item()))
    students, onlines = zip(*seen, strict=True)
    assert students[0] == students[1] == -1.0 != students[2]
    assert students[2] == students[3] == students[4] != students[5]
    assert len(set(onlines)) == 6


@pytest.mark.parametrize("k", [1, 3])
def test_steps_are_updates_of_the_student_whatever_the_ratio(k, runs):
    both, means = team(), []
    training, _ = train(both, f"ratio {k}", 4, online_updates=k)
    for _ in training:
        means.append(both.members["student"].module.mean.item())
    assert len(means) == 4 * k and len(set(means)) - (k > 1) == 4


def test_averages_and_warm_ups_count_updates_of_the_student():
    settings = TrainSettings(steps=10, batch_size=4, lr=0.1, warmup=2, ema=0.9)
    paced = Scoring(settings, online_updates=5).paced
    assert (paced.steps, paced.warmup) == (50, 10) and paced.ema**5 == pytest.approx(0.9)
    assert Scoring(settings, online_updates=1).paced == settings


def test_scores_meet_no_noise_of_the_pairs_and_matching_no_other(runs):
    both, pairs, matched = team(), Noise(), []

    def matching(x_hat, x):
        matched.append((x_hat.detach(), x))
        return mean_square(x_hat - x)

    training, _ = train(both, "fresh", 2, online_updates=2, pairs=pairs, matching=matching, matched=0.25)
    before = [(both.members["student"].module.mean.item(), both.members["student"].module.std.item())]
    for _ in training:
        before.append((both.members["student"].module.mean.item(), both.members["student"].module.std.item()))
    fresh, paired = (torch.cat(kept) for kept in (pairs.drawn, pairs.paired))
    assert len(fresh) == 4 * 128 == len(fresh.unique(dim=0)) and len(paired) == 2 * 32
    assert torch.cdist(fresh, paired).min() > 0
    for (x_hat, x), z, (mean, std) in zip(matched, pairs.paired, (before[1], before[3]), strict=True):
        assert torch.allclose(x_hat, mean + std * z, atol=1e-6) and torch.equal(x, 1 + 0.5 * z)


def test_the_students_gradient_is_that_of_the_formula(runs):
    """Of one update: the mean over samples and entries of (x_online - x_offline) dx / d mean."""
    both, pairs, gradients = Team(student=Called(Generator(-1.0, 1.5)), online=Called(Follower(-1.0, 0.7))), Noise(), []
    both.members["student"].module.mean.register_hook(gradients.append)
    next(train(both, "difference", 1, online_updates=1, pairs=pairs, normalised=False)[0])
    draws = Draws(0, 0, torch.arange(128))
    t = score_distillation.drawn_times(draws.uniform("segment"), 0.9)
    z_t = add_noise(-1.0 + 1.5 * pairs.drawn[0], draws.normal("eps-segment", (2,)), t)
    x_online, x_offline = (x_from_v(z_t, Gaussian(*of)(z_t, t), t) for of in ((-1.0, 0.7), (1.0, 0.5)))
    assert gradients[0].item() == pytest.approx((x_online - x_offline).mean().item(), rel=1e-4) and gradients[0] < -0.1


def test_the_online_model_alone_learns_what_a_student_draws_that_stands_still(runs):
    student, online = Called(Generator(-1.0, 1.5)), Called(Follower(1.0, 0.5))
    student.schedule = OURS
    settings = TrainSettings(steps=300, batch_size=128, lr=0.03, warmup=1, ema=0.9, bf16=False)
    run = Run("alone", {}, follow_student)
    finish(online, follow_student(online, student, Noise(), settings, run), run, "alone")
    assert online.module.mean.item() == pytest.approx(-1.0, abs=0.1)
    assert abs(online.module.std.item()) == pytest.approx(1.5, abs=0.1)
    assert student.module.mean.item() == -1.0 and student.module.mean.grad is None


def test_the_rate_of_the_online_model_is_its_own(runs):
    moved = {}
    for rate in (1.0, 3.0):
        both = team()
        training, _ = train(both, f"rate{rate}", 1, online_rate=rate)
        next(training)
        moved[rate] = abs(both.members["online"].module.mean.item() - 1.0)
    assert moved[3.0] == pytest.approx(3 * moved[1.0], rel=1e-3)  # Adam's first step has the size of its rate


def test_alpha_and_lambda_fall_evenly():
    segment = Segment(alpha=(1.0, 0.5), lambda_fm=(2.0, 0.0))
    assert segment.at(0.0) == (1.0, 2.0) and segment.at(0.5) == (0.75, 1.0) and segment.at(1.0) == (0.5, 0.0)

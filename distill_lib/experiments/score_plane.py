"""What notebook 18 trains: SDXS's one-step training on points of the plane, by the very loops that train on pictures.

The data are four modes near each other and a fifth far away, of unequal mass; the teacher is their formula, exact at
every noise level, and so is the score of whatever a student has drawn (`sdxs.cloud`). Networks are small perceptrons.
As in the paper, student and online model start as the diffusion model: here a perceptron that has learned to denoise
the data.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from distill_lib.diffusion.mixture import Mixture, MixtureData, ToyNetwork, ring
from distill_lib.diffusion.noise import normal
from distill_lib.diffusion.samplers import sample
from distill_lib.diffusion.schedules import OURS, add_noise
from distill_lib.engine.loop import TrainSettings, finish
from distill_lib.engine.store import Run
from distill_lib.engine.trainable import Team
from distill_lib.measure.rows import Row, tidy
from distill_lib.sdxs.cloud import Cloud, denoised, direction_sizes, divergence
from distill_lib.sdxs.crossing import Couples, off_modes
from distill_lib.sdxs.one_step import one_step, square_loss, train_on_pairs
from distill_lib.sdxs.score_distillation import distill_scores
from distill_lib.sdxs.scoring import Scoring, Segment
from distill_lib.teachers.denoising import train_teacher

PLACES, MASSES, STD = torch.cat([ring(7)[:4], torch.tensor([[0.3, -2.0]])]), (5, 4, 3, 2, 2), 0.1
"""Centres of the modes, their masses in sixteenths, and the width of each."""
TEACHER = Cloud(PLACES.repeat_interleave(torch.tensor(MASSES), 0), STD)
WRONG = replace(TEACHER, shift=(0.0, 0.8), beyond=768)
"""The teacher, but from t = 3/4 on it takes the data to lie higher: a score that is inaccurate where it is noisy."""
FAULTS = {
    "two modes missing": Cloud(PLACES.repeat_interleave(torch.tensor((5, 0, 3, 0, 2)), 0), STD),
    "all masses equal": Cloud(PLACES, STD),
    "modes twice as wide": replace(TEACHER, std=2 * STD),
    "all moved by a tenth": replace(TEACHER, x=TEACHER.x + torch.tensor([0.1, 0.0])),
}
"""Students with one fault each."""
ALPHAS = (0.1, 0.2, 0.5, 0.75, 1.0)
LAGS: dict[str, dict[str, Any]] = {
    "3 updates for 1": {},
    "1 update for 1": {"online_updates": 1},
    "3 for 1, slow": {"online_rate": 0.1},
    "stands still": {"online_rate": 0.0},
}
"""Updates of the online model for one of the student, and its learning rate over the student's, where they differ."""
DIFF_INSTRUCT = Segment((1.0, 1.0), (0.0, 0.0))
"""Scores at all noise levels, and nothing else."""
SEGMENT = Segment((0.7, 0.7), (1.0, 0.3))
"""Scores below the levels where WRONG is wrong, and squares on pairs, whose weight falls."""
LEVELS = (16, 32, 64, 128, 192, 256, 384, 512, 640, 768, 896, 1008)
KL_LEVELS = (64, 128, 256, 512)
_COUNT, _TEST, _STAGES, _WARM = 8192, 2048, 8, 0.75


def quality(x: Tensor) -> dict[str, float]:
    """What became of the modes, by a student's answers (N, 2).

    modes: those that have a quarter of their mass, or more, within three standard deviations of their centre.
    mass_error: half of the sum of |share - mass| over modes, where each answer counts for the nearest.
    off_modes: share of answers farther than three standard deviations from every centre.
    """
    distance, nearest = torch.cdist(x, PLACES).min(1)
    mass = torch.tensor(MASSES).double() / sum(MASSES)
    share, hit = (kept.bincount(minlength=len(mass)) / len(x) for kept in (nearest, nearest[distance <= 3 * STD]))
    off = off_modes(x, Mixture(PLACES, STD)).double().mean().item()
    return {
        "modes": float((hit >= mass / 4).sum()),
        "mass_error": ((share - mass).abs().sum() / 2).item(),
        "off_modes": off,
    }


def quality_rows(x: Tensor, **columns: Any) -> list[Row]:
    """`quality` as rows, and the divergence from the teacher, eq. 3, at each of KL_LEVELS, smoothed over half of x."""
    half, columns = len(x) // 2, columns | {"n": len(x)}
    rows = tidy(quality(x), **columns)
    for t in KL_LEVELS:
        rows += tidy({"kl": divergence(Cloud(x[:half]), TEACHER, x[half:], t)}, t=t / OURS.T, **columns)
    return rows


def fault_rows(seed: int, count: int = 4096) -> list[Row]:
    """How large the direction of each of FAULTS is at each noise level, and which share of it moves all points alike.

    direction_share: its size at the noisiest level over that at the level where it is largest.
    fine_share: of the direction at the noisiest level, the share that does not move all points alike.
    kl, kl_forward: the divergence of the student from the teacher at low noise, t = 1/16, and of the teacher from it.
    """
    rows: list[Row] = []
    truth = TEACHER.draw(count, seed)
    for name, student in FAULTS.items():
        x, sizes = student.draw(count, seed), []
        columns = {"method": name, "seed": seed, "n": count}
        for t in LEVELS:
            size, common = direction_sizes(denoised(student), denoised(TEACHER), x, t, seed)
            sizes.append(size)
            rows += tidy({"direction_size": size, "common": common}, t=t / OURS.T, **columns)
        values = {"direction_share": sizes[-1] / max(sizes), "fine_share": 1 - common}
        values["kl"] = divergence(student, TEACHER, x, 64)
        values["kl_forward"] = divergence(TEACHER, student, truth, 64)
        rows += tidy(values, **columns)
    return rows


@dataclass(frozen=True)
class Distilled:
    """A finished run of Algorithm 1: student and online model, and the run that keeps their weights on the way."""

    team: Team
    run: Run
    scoring: Scoring

    @property
    def student(self) -> ToyNetwork:
        """The one-step student."""
        return self.team.members["student"]

    @property
    def online(self) -> ToyNetwork:
        """The model of what the student draws."""
        return self.team.members["online"]

    def stages(self) -> Iterator[int]:
        """Updates of the student, the last one the end; while one is yielded, both networks are as they were then."""
        kept = self.run.snapshots() | {self.scoring.paced.steps: self.run.weights()}
        for step, weights in kept.items():
            self.team.module.load_state_dict(weights)
            yield step // self.scoring.online_updates


@dataclass(frozen=True)
class ScorePlane:
    """Students of the plane under one seed; `settings` are of each run of Algorithm 1, in updates of the student.

    The denoiser that all start from has six times as many updates, regression three times, a warm-up three quarters.
    """

    settings: TrainSettings
    seed: int

    def _long(self, share: float) -> TrainSettings:
        return replace(self.settings, steps=max(2, round(share * self.settings.steps)), ema=0.95, seed=self.seed)

    @cached_property
    def z(self) -> Tensor:
        """Noise that nothing is trained on, (N, 2)."""
        return normal(self.seed, "score plane test", 0, torch.arange(_TEST), (2,))

    @cached_property
    def couples(self) -> dict[str, Couples]:
        """Noise with the end of the teacher's own path from it, and with data drawn independently."""
        z = normal(self.seed, "score plane", 0, torch.arange(_COUNT), (2,))
        return {"own": Couples(z, sample(TEACHER, z, 64)), "independent": Couples(z, TEACHER.draw(_COUNT, self.seed))}

    @cached_property
    def start(self) -> ToyNetwork:
        """A denoiser of the data: what the paper's offline model is, and student and online model start as."""
        torch.manual_seed(self.seed)
        net, settings = ToyNetwork(0), self._long(6.0)
        data = MixtureData(TEACHER.x, STD, _COUNT, self.seed)
        run = Run("plane-denoiser", {"settings": settings, "data": data.x}, train_teacher, ToyNetwork)
        finish(net, train_teacher(net, data, settings, run, drop=1.0), run, "denoiser")
        return net

    def by_pairs(self, kind: str, share: float = 3.0) -> ToyNetwork:
        """A student by regression on one kind of couples, by squares (eq. 9)."""
        net, couples, settings = _copy(self.start), self.couples[kind], self._long(share)
        config = {"settings": settings, "couples": couples, "start": self.start.module}
        run = Run("plane-pairs", config, train_on_pairs, ToyNetwork)
        finish(net, train_on_pairs(net, couples, settings, run), run, f"squares, {kind}")
        return net

    @cached_property
    def warm(self) -> ToyNetwork:
        """A student after a warm-up: a short regression on the teacher's own couples."""
        return self.by_pairs("own", _WARM)

    def by_scores(
        self,
        start: ToyNetwork | None = None,
        offline: Cloud = TEACHER,
        segment: Segment = DIFF_INSTRUCT,
        online_updates: int = 3,
        online_rate: float = 2.0,
    ) -> Distilled:
        """A student by Algorithm 1, from `start` or the denoiser; squares on pairs stand for feature matching."""
        first = start or self.start
        settings = replace(self.settings, seed=self.seed, snapshots=_STAGES)
        scoring = Scoring(settings, 0.0, segment, online_updates, online_rate)
        team = Team(student=_copy(first), online=_copy(self.start))
        config = {"scoring": scoring, "couples": self.couples["own"], "offline": offline}
        config |= {"start": first.module, "online": self.start.module}
        run = Run("plane-scores", config, distill_scores, ToyNetwork, Cloud)
        training = distill_scores(team, offline, self.couples["own"], square_loss, scoring, run)
        finish(team, training, run, "scores")
        return Distilled(team, run, scoring)

    @torch.no_grad()
    def answers(self, net: ToyNetwork) -> Tensor:
        """What a student makes of the test noise in one step, (N, 2)."""
        return one_step(net, self.z, torch.zeros(len(self.z), dtype=torch.long))

    def journey_rows(self, distilled: Distilled) -> list[Row]:
        """`quality_rows` of a student as it learns."""
        columns = {"method": "scores", "seed": self.seed}
        return [
            row
            for update in distilled.stages()
            for row in quality_rows(self.answers(distilled.student), update=update, **columns)
        ]

    @torch.no_grad()
    def lag_rows(self, name: str, distilled: Distilled) -> list[Row]:
        """How far the online model is from the exact score of what the student draws, as both learn.

        lag: root mean square of x_online - x_exact over noise levels from t = 1/8 on.
        gap: the same of x_exact - x_teacher, which is what the student should follow.
        """
        rows: list[Row] = []
        at = torch.tensor(LEVELS[3:]).repeat(_TEST)[: _TEST // 2]
        for update in distilled.stages():
            points, x = self.answers(distilled.student).chunk(2)
            z_t = add_noise(x, normal(self.seed, "lag", 0, torch.arange(len(x)), (2,)), at)
            online, exact, teacher = (denoised(net)(z_t, at) for net in (distilled.online, Cloud(points), TEACHER))
            values = {"lag": _rms(online - exact), "gap": _rms(exact - teacher)}
            rows += tidy(values, method=name, update=update, seed=self.seed, n=len(x))
        return rows


def _rms(difference: Tensor) -> float:
    return difference.square().sum(1).mean().sqrt().item()


def _copy(net: ToyNetwork) -> ToyNetwork:
    other = ToyNetwork(0)
    other.module.load_state_dict(net.module.state_dict())
    return other

"""One step by segmented score distillation (eqs. 4, 11 and 12, Algorithm 1).

With z_t = alpha_t x + sigma_t eps, and x_hat the prediction of a model at z_t, a score is
(alpha_t x_hat - z_t) / sigma_t^2, so that the difference of two is

    s_online - s_offline = alpha_t (x_online - x_offline) / sigma_t^2                                          (1)
    direction            = weight(t) (x_online - x_offline)                                                    (2)
    loss                 = <stop(direction), x>,   whose gradient with respect to x is (2)                     (3)

SDXS (Song et al. 2024, arXiv 2403.16627), eqs. 4 and 12; Diff-Instruct (Luo et al. 2023, arXiv 2305.18455). The online
model knows what the generator draws, the frozen offline one what it should draw. In (11) of SDXS t runs over
(0, alpha T] only (`drawn_times`), and feature matching stands for the noise levels above.

Algorithm 1, with eq. 11 for the student:

    repeat: x = one step of the student from z_T
            online model: denoise x at t in (0, T]                                  one update
            student: score difference of online and offline at t in (0, alpha T], plus lambda_FM times feature matching
                     with the teacher's picture from the same z_T                   every `online_updates`-th time
            lower alpha and lambda_FM

The online model starts from the offline one, which is frozen. Data-free: pairs hold prompts, noise and what the teacher
made of them.

Differs from the paper: where it updates both in turn, the student may wait for several updates of the online model, and
the score difference may be normalised, both as in DMD2 (Yin et al. 2024, arXiv 2405.14867), to which its authors point.
"""

import copy
from collections.abc import Iterator
from dataclasses import dataclass, field

import torch
from torch import Tensor

from distill_lib.diffusion.errors import v_loss
from distill_lib.diffusion.schedules import OURS, Schedule, add_noise, x_from_v
from distill_lib.engine.loop import Loop, Progress, TrainSettings, finish
from distill_lib.engine.store import Run
from distill_lib.engine.trainable import Team
from distill_lib.networks.adapter import Network, Trained, denoise_pair
from distill_lib.sdxs.one_step import Matching, one_step
from distill_lib.teachers.latents import Pairs

_LEAST = 0.02  # of T: below, the two predictions are one and their difference is rounding; DMD2's bound


def drawn_times(u: Tensor, alpha: float, schedule: Schedule = OURS) -> Tensor:
    """Grid indices of the segment, evenly from 0.02 T to alpha T, of u (B,) in (0, 1).

    Raises:
        ValueError: alpha leaves nothing of the segment, or more than all of it.
    """
    if not _LEAST < alpha <= 1:
        raise ValueError(f"alpha={alpha} should lie in ({_LEAST}, 1]: score distillation takes t up to alpha T")
    low, high = round(_LEAST * schedule.T), round(alpha * schedule.T)
    return low + (u.double() * (high - low + 1)).long().clamp(max=high - low)


@torch.no_grad()
def score_direction(x: Tensor, x_online: Tensor, x_offline: Tensor, normalised: bool = True) -> Tensor:
    """(2), (B, *D), for pictures x and the two predictions at the same z_t.

    Args:
        x: what the generator drew.
        x_online, x_offline: E[x | z_t] by either model.
        normalised: weight by one over the mean |x - x_offline| of each sample, as DMD (Yin et al. 2023,
            arXiv 2311.18828) does, so that every noise level has an equal say; else by 1.
    """
    direction = x_online - x_offline
    if not normalised:
        return direction
    size = (x - x_offline).abs().flatten(1).mean(1).clamp(min=1e-6)
    return direction / size.reshape(-1, *[1] * (x.ndim - 1))


def score_loss(x: Tensor, direction: Tensor) -> Tensor:
    """(3), one value per sample, (B,): a mean over entries, so that its gradient is (2) over their number."""
    return (direction.detach() * x).flatten(1).mean(1)


@dataclass(frozen=True)
class Segment:
    """How (11) is set, at the start and at the end of a training; in between both fall evenly.

    alpha: share of the noise levels at which scores are compared; 1 is Diff-Instruct with feature matching added.
    lambda_fm: weight of feature matching.

    The paper says that both start high and fall once the densities overlap, and gives no number; these are ours, of the
    shipped student and of every training of 11 to 13 that varies neither.
    """

    alpha: tuple[float, float] = (0.95, 0.7)
    lambda_fm: tuple[float, float] = (1.0, 0.3)

    def at(self, share: float) -> tuple[float, float]:
        """(alpha, lambda_FM) after a share of the training."""
        return tuple(first + (last - first) * share for first, last in (self.alpha, self.lambda_fm))


@dataclass(frozen=True)
class Scoring:
    """Settings of Algorithm 1.

    settings: of the training; its steps are updates of the online model.
    w: strength of guidance of the offline model's score.
    segment: alpha and lambda_FM.
    online_updates: of the online model, for one of the student.
    online_rate: learning rate of the online model over that of the student.
    normalised: as in `score_direction`.
    """

    settings: TrainSettings
    w: float = 1.0
    segment: Segment = field(default_factory=Segment)
    online_updates: int = 2
    online_rate: float = 2.0
    normalised: bool = True


def distill_scores(
    team: Team, offline: Network, pairs: Pairs, matching: Matching, scoring: Scoring, run: Run
) -> Iterator[Progress]:
    """Train both networks of a team.

    Args:
        team: `student`, which makes one step and starts from a warm-up by feature matching alone
            (`one_step.train_on_pairs`), and `online`, which starts as a copy of `offline`; so they are kept.
        offline: the frozen diffusion model.
        matching: feature matching of two latents.
    """
    loop = Loop(team, scoring.settings, run, {"online.": scoring.online_rate})
    loop.place(offline)
    student, online = team.members["student"], team.members["online"]
    schedule, online_updates = offline.schedule, scoring.online_updates
    for step, draws in loop:
        alpha, lambda_fm = scoring.segment.at(step / scoring.settings.steps)
        z_T, x, label = pairs.batch(draws.integer("pair", len(pairs)).cpu(), loop.device)
        students_turn = step % online_updates == online_updates - 1
        with torch.set_grad_enabled(students_turn):
            x_hat = one_step(student, z_T, label, schedule)
        drawn, shape = x_hat.detach(), x_hat.shape[1:]
        t = 1 + draws.integer("t", schedule.T)
        loss = v_loss(online, drawn, draws.normal("eps", shape), t, label, schedule)
        if students_turn:
            t = drawn_times(draws.uniform("segment"), alpha, schedule)
            z_t = add_noise(drawn, draws.normal("eps-segment", shape), t, schedule)
            with torch.no_grad():
                x_online = x_from_v(z_t, online(z_t, t, label), t, schedule)
                x_offline = x_from_v(z_t, denoise_pair(offline, label, scoring.w)(z_t, t), t, schedule)
            direction = score_direction(drawn, x_online, x_offline, scoring.normalised)
            loss = loss + score_loss(x_hat, direction) + lambda_fm * matching(x_hat, x)
        yield loop.update(loss)


def fit_by_scores(
    student: Network,
    pairs: Pairs,
    cost: Matching,
    scoring: Scoring,
    networks: tuple[Network, Network] | None = None,
) -> Trained:
    """A student after Algorithm 1.

    Args:
        student: of one step; the same object is trained, the adapter alone where it has one that is not frozen.
        cost: feature matching, whose weight is lambda_FM.
        networks: the offline network, and what the online one starts as a copy of; the teacher unless given.
    """
    offline, first = networks or (pairs.model.network, pairs.model.network)
    if not any(weight.requires_grad for weight in student.module.parameters()):
        student.module.requires_grad_(True)
    team = Team(student=student, online=first.like(copy.deepcopy(first.module).requires_grad_(True)))
    config = {"scoring": scoring, "pairs": pairs, "student": student, "cost": cost, "networks": networks}
    run = Run("scored", config, fit_by_scores)
    training = distill_scores(team, offline, pairs, cost, scoring, run)
    return Trained(student, finish(team, training, run, "score distillation"), run)

"""One step by segmented score distillation: a student, and a diffusion model that follows what it draws.

SDXS (Song et al. 2024, arXiv 2403.16627), Algorithm 1, with eq. 11 for the student:

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

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from distill_lib.losses.denoising import v_loss
from distill_lib.losses.one_step import one_step
from distill_lib.losses.score import drawn_times, score_direction, score_loss
from distill_lib.methods.pair_regression import Pairs
from distill_lib.models import Network, denoise_pair
from distill_lib.schedules import add_noise, x_from_v
from distill_lib.store import Run
from distill_lib.training import Loop, Progress, Together, TrainSettings, place

__all__ = ["Segment", "Team", "distill_scores"]


@dataclass(frozen=True)
class Segment:
    """How (11) is set, at the start and at the end of a training; in between both fall evenly.

    alpha: share of the noise levels at which scores are compared; 1 is Diff-Instruct with feature matching added.
    lambda_fm: weight of feature matching. The paper gives neither.
    """

    alpha: tuple[float, float] = (0.95, 0.7)
    lambda_fm: tuple[float, float] = (1.0, 0.2)

    def at(self, share: float) -> tuple[float, float]:
        """(alpha, lambda_FM) after a share of the training."""
        return tuple(first + (last - first) * share for first, last in (self.alpha, self.lambda_fm))


class Team:
    """Student and online model behind one module, which one loop trains and keeps."""

    def __init__(self, student: Network, online: Network) -> None:
        self.student, self.online = student, online
        self.module = self.forward = Together(student=student.module, online=online.module)


def distill_scores(
    team: Team,
    offline: Network,
    pairs: Pairs,
    settings: TrainSettings,
    run: Run,
    *,
    matching: Callable[[Tensor, Tensor], Tensor],
    segment: Segment,
    w: float = 1.0,
    online_updates: int = 2,
    online_rate: float = 2.0,
    normalised: bool = True,
) -> Iterator[Progress]:
    """Train both networks of a team.

    Args:
        team: the student, which makes one step and starts from a warm-up by feature matching alone
            (`pair_regression.train_on_pairs`); the online model, which starts as a copy of `offline`.
        offline: the frozen diffusion model; `w` is the strength of guidance of its score.
        pairs: prompts, noise, and the teacher's answers.
        settings: of the training; its steps are updates of the online model.
        run: where both are kept, under the names `student` and `online`.
        matching: matching(x_hat, x) -> (B,): feature matching of two latents.
        segment: alpha and lambda_FM.
        online_updates: of the online model, for one of the student.
        online_rate: learning rate of the online model over that of the student.
        normalised: as in `losses.score.score_direction`.
    """
    loop = Loop(team, settings, run, {"online.": online_rate})
    place(offline, loop.device)
    student, online = team.student, team.online
    student.forward, online.forward = partial(team.forward, "student"), partial(team.forward, "online")
    schedule = offline.schedule
    for step, draws in loop:
        alpha, lambda_fm = segment.at(step / settings.steps)
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
                x_offline = x_from_v(z_t, denoise_pair(offline, label, w)(z_t, t), t, schedule)
            direction = score_direction(drawn, x_online, x_offline, normalised)
            loss = loss + score_loss(x_hat, direction) + lambda_fm * matching(x_hat, x)
        yield loop.update(loss)

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

    before the student moves:
        fresh noise z_T and prompt; x = one step of the student from z_T
        online model: denoise x at t in (0, T]                                      `before.steps` times
    repeat `settings.steps` times:
        fresh noise z_T and prompt; x = one step of the student from z_T
        online model: denoise x at t in (0, T]                                      `online_updates` times, each anew
        student: score difference of online and offline on the last x, at t in (0, alpha T], plus lambda_FM times
                 feature matching with the teacher's picture, from the noise of pairs
        lower alpha and lambda_FM
    with an adversary: its critic learns with the online model, and the student to fool it (`latent_critic`)

The online model starts from the offline one, which is frozen. Data-free: pairs hold prompts, noise and what the teacher
made of them, and matching alone reads them. What scores compare has no answer of the teacher, so it is drawn afresh:
a few thousand noises that come back would be learned by heart.

Differs from the paper: both are updated in turn there. Here the online model first learns alone what the student draws
(the teacher that it starts as knows data, so the first differences would be those of guidance), the student waits for
several of its updates, the score difference may be normalised, and a critic may join; the last three as in DMD2 (Yin
et al. 2024, arXiv 2405.14867), to which its authors point.
"""

import copy
import gc
import math
from collections.abc import Iterator

import torch
from torch import Tensor

from distill_lib.diffusion.errors import v_loss
from distill_lib.diffusion.noise import Draws
from distill_lib.diffusion.schedules import OURS, Schedule, add_noise, x_from_v
from distill_lib.engine.loop import Loop, Progress, TrainSettings, finish
from distill_lib.engine.store import Run
from distill_lib.engine.trainable import Team, Trainable
from distill_lib.networks.adapter import Network, Trained, denoise_pair
from distill_lib.networks.lora import with_adapter
from distill_lib.networks.pruning import tapped
from distill_lib.sdxs.latent_critic import LatentCritic, critic_head
from distill_lib.sdxs.one_step import Matching, one_step
from distill_lib.sdxs.scoring import Answered, Scoring

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


def follow_student(
    online: Network, student: Network, pairs: Answered, settings: TrainSettings, run: Run
) -> Iterator[Progress]:
    """Train `online` alone to denoise what a student draws, who stands still."""
    loop = Loop(online, settings, run)
    loop.place(student)
    for _, draws in loop:
        z_T, label = pairs.fresh(draws, loop.device)
        with torch.no_grad():
            x = one_step(student, z_T, label, student.schedule)
        yield loop.update(_online_loss(online, x, draws, label, student.schedule))


def _online_loss(online: Network, x: Tensor, draws: Draws, label: Tensor, schedule: Schedule) -> Tensor:
    t = 1 + draws.integer("t", schedule.T)
    return v_loss(online, x, draws.normal("eps", x.shape[1:]), t, label, schedule)


def distill_scores(
    team: Team, offline: Network, pairs: Answered, matching: Matching, scoring: Scoring, run: Run
) -> Iterator[Progress]:
    """Train both networks of a team in turn; one step of the loop is an update of the online model.

    Args:
        team: `student`, which makes one step and starts from a warm-up by feature matching alone
            (`one_step.train_on_pairs`), and `online`, which starts as a copy of `offline` after `follow_student`; so
            they are kept. With an adversary also `critic`, a `critics.ProjectedCritic` of one layer.
        offline: the frozen diffusion model.
        matching: feature matching of two latents.
    """
    settings, adversary = scoring.paced, scoring.adversary
    loop = Loop(team, settings, run, scoring.rates)
    loop.place(offline)
    student, online, schedule = team.members["student"], team.members["online"], offline.schedule
    critic = LatentCritic(team.members["critic"], online, adversary) if adversary else None
    for step, draws in loop:
        alpha, lambda_fm = scoring.segment.at(step / settings.steps)
        z_T, label = pairs.fresh(draws, loop.device)
        n, students_turn = len(z_T), scoring.students_turn(step)
        if students_turn:
            index = draws.integer("pair", len(pairs))[: math.ceil(scoring.matched * n)].cpu()
            pair_z_T, wanted, pair_label = pairs.batch(index, loop.device)
            x_hat = one_step(student, torch.cat([z_T, pair_z_T]), torch.cat([label, pair_label]), schedule)
        else:
            with torch.no_grad():
                x_hat = one_step(student, z_T, label, schedule)
        x = x_hat[:n].detach()
        with tapped([critic.layer] if critic else []) as fake:
            loss = _online_loss(online, x, draws, label, schedule)
        if critic:
            loss = loss + critic.learn(*fake, pairs, draws)
        if students_turn:
            t = drawn_times(draws.uniform("segment"), alpha, schedule)
            z_t = add_noise(x, draws.normal("eps-segment", x.shape[1:]), t, schedule)
            with torch.no_grad():
                x_online = x_from_v(z_t, online(z_t, t, label), t, schedule)
                x_offline = x_from_v(z_t, denoise_pair(offline, label, scoring.w)(z_t, t), t, schedule)
            loss = loss + score_loss(x_hat[:n], score_direction(x, x_online, x_offline, scoring.normalised))
            if critic and step >= adversary.start * scoring.online_updates:
                loss = loss + critic.fool(x_hat[:n], z_t, t, label)
            loss = loss + lambda_fm * matching(x_hat[n:], wanted).mean()
        yield loop.update(loss)


def fit_by_scores(
    student: Network,
    pairs: Answered,
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
    if scoring.online_rank:
        online = with_adapter(first, scoring.online_rank, scoring.settings.seed)
    else:
        online = first.like(copy.deepcopy(first.module).requires_grad_(True))
    config = {"pairs": pairs, "student": student, "networks": networks}
    if scoring.before is not None:
        learning = [weight for weight in online.module.parameters() if weight.requires_grad]
        start = {"pairs": pairs, "student": student, "online": online, "settings": scoring.before}
        first_run = Run("online", start, follow_student)
        training = follow_student(online, student, pairs, scoring.before, first_run)
        finish(online, training, first_run, "online model alone")
        for weight in learning:
            weight.requires_grad_(True)
        gc.collect()  # a loop that is over holds averages and moments in a ring
    if not any(weight.requires_grad for weight in student.module.parameters()):
        student.module.requires_grad_(True)
    members: dict[str, Trainable] = {"student": student, "online": online}
    if scoring.adversary is not None:
        members["critic"] = critic_head(online, scoring.adversary, scoring.settings.seed)
    team = Team(**members)
    run = Run("scored", config | {"scoring": scoring, "cost": cost}, fit_by_scores)
    training = distill_scores(team, offline, pairs, cost, scoring, run)
    return Trained(student, finish(team, training, run, "score distillation"), run)

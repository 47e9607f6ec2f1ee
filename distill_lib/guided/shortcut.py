"""One network for all numbers of steps: all halvings at once, of which the network itself is the teacher.

A network that is conditioned on the length of its step (`networks.shortcut`) has one answer for each n, the number of
equal steps in a path. With N a power of two, the steps of the finest grid, its step from t to t - 1/n learns

    x_target = x_hat_teacher(z_t)                                              n = N                           (1)
    x_target = `halving_target` of the average of the network itself for 2n    n = N/2, N/4, .., 1             (2)
    loss     = max(alpha_t^2 / sigma_t^2, 1) | x_target - x_hat(z_t, n) |^2                                    (3)

(2) and (3) are (1) and (2) of `guided.halving`: one step of 1/n has to land where two of half its length land. So what
is right on the finest grid travels up, from length to length, while all of them are trained.

Frans et al. 2024 (arXiv 2410.12557), shortcut models: "self-consistency" is (2), three samples of four are trained by
flow matching on the finest grid, and the average of the weights makes the targets.

    x ~ data, eps ~ N(0, 1), w ~ U[w_min, w_max]
    three samples of four: n = N;  the fourth: n ~ {N/2, N/4, .., 1};  then i ~ {1..n}, t = i/n
    z_t = alpha_t x + sigma_t eps, x_target by (1) or (2)
    the network takes a gradient step on (3) at (z_t, t, c, w, n), and its average follows

Differs from the paper: a distillation. (1) is the answer of the guided teacher, or of the student of stage one that
holds it, where the paper has the direction from data to noise; and the network starts from that student, where theirs
starts from random weights. It predicts v and steps by DDIM, where theirs steps along straight lines.
Mean flow (Geng et al. 2025, arXiv 2505.13447) replaces the two steps of (2) by a derivative along the path.
"""

import copy
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from distill_lib.diffusion.samplers import Denoise
from distill_lib.diffusion.schedules import OURS, Schedule, add_noise, step_grid, x_from_v
from distill_lib.engine.loop import Loop, Progress, TrainSettings, finish
from distill_lib.engine.store import Run
from distill_lib.guided.halving import halving_loss, halving_target
from distill_lib.networks.adapter import Network, Parent, Trained, denoise_pair, denoise_student
from distill_lib.networks.shortcut import Shortcut, ShortcutNetwork, denoise_shortcut, shortcut_of
from distill_lib.worlds.pictures import Pictures, identity

Times = tuple[Tensor, Tensor, Tensor]
"""Grid indices t > m > s of the start, middle and end of a step, (B,) each."""


@torch.no_grad()
def finest_target(teacher: Denoise, z_t: Tensor, t: Tensor, schedule: Schedule = OURS) -> Tensor:
    """x_target of (1), (B, *D): the teacher's own prediction; one call of it, with condition and w bound."""
    return x_from_v(z_t, teacher(z_t, t), t, schedule)


def consistent_target(average: Shortcut, z_t: Tensor, times: Times, n: Tensor, schedule: Schedule = OURS) -> Tensor:
    """x_target of (2), (B, *D): where two steps of half the length land; two calls of `average`.

    Args:
        average: the network with the average of its weights, with condition and w bound.
        z_t: noisy data at the first of the times, (B, *D).
        times: of the step whose length is 1/n.
        n: steps in a path, (B,), below N.
    """
    return halving_target(lambda z, t: average(z, t, 2 * n), z_t, *times, schedule)


def shortcut_loss(
    student: Shortcut, x_target: Tensor, z_t: Tensor, t: Tensor, n: Tensor, schedule: Schedule = OURS
) -> Tensor:
    """Loss (3), one value per sample, (B,); arguments as in `consistent_target`, with either target."""
    return halving_loss(lambda z, time: student(z, time, n), x_target, z_t, t, schedule)


def is_consistent(index: Tensor, share: float) -> Tensor:
    """Which samples of a batch have the target (2), (B,): as large a share of them as asked for, evenly spread."""
    return ((index + 1) * share).floor() > (index * share).floor()


def draw_steps(consistent: Tensor, u_n: Tensor, u_i: Tensor, grid: Tensor) -> tuple[Tensor, Times]:
    """n and the times of each sample's step, from uniform numbers in (0, 1), (B,) each.

    Args:
        consistent: which samples have the target (2); n is N for the others.
        u_n, u_i: choose n among N/2, N/4, .., 1, and i among 1, .., n.
        grid: indices of the times 0, 1/N, .., 1, (N + 1,), N a power of two.
    """
    finest = len(grid) - 1
    levels = finest.bit_length() - 1
    n = torch.where(consistent, 1 << (u_n.double() * levels).long(), finest)
    i = 1 + (u_i.double() * n).long()
    length = finest // n
    return n, (grid[i * length], grid[i * length - length // 2], grid[(i - 1) * length])


@dataclass(frozen=True)
class Shortcuts:
    """What a training depends on besides its networks and its data.

    n_steps is N; w is drawn evenly from w_range; share is how many of the samples of a batch have the target (2).
    """

    n_steps: int
    settings: TrainSettings
    w_range: tuple[float, float] = (0.0, 4.0)
    share: float = 0.25

    def __post_init__(self) -> None:
        if self.n_steps < 2 or self.n_steps & (self.n_steps - 1):
            raise ValueError(f"n_steps={self.n_steps} should be a power of two, at least 2: lengths are halved")
        if not 0 < self.share < 1:
            raise ValueError(f"share={self.share} should lie between 0 and 1: both targets are needed")


def _average_of(student: ShortcutNetwork, loop: Loop) -> ShortcutNetwork:
    """A network whose weights are those that the loop averages: it follows every update of the student."""
    average = student.like(copy.deepcopy(student.module).eval().requires_grad_(False))
    for parameter, mean in zip(average.module.parameters(), loop.average, strict=True):
        parameter.data = mean
    return average


def distill_shortcut(
    student: ShortcutNetwork, teacher: Network, pictures: Pictures, plan: Shortcuts, run: Run
) -> Iterator[Progress]:
    """Train student.module for all step counts N, N/2, .., 1 at once.

    Args:
        student: starts as the teacher (`shortcut_of`).
        teacher: a network that takes w; or one that takes none, evaluated as a guided pair.
        plan: N and the settings; N is a divisor of the grid.

    Raises:
        ValueError: steps fall between grid points, or a process's samples of a step leave one of the targets without
            any.
    """
    schedule, (low, high) = teacher.schedule, plan.w_range
    grid = torch.tensor(step_grid(plan.n_steps, schedule.T)[::-1])
    loop = Loop(student, plan.settings, run)
    if not 1 <= loop.share * plan.share <= loop.share - 1:
        raise ValueError(
            f"a batch of {loop.share} a process has no sample for one of the targets at share={plan.share}; take more"
        )
    loop.place(teacher)
    grid, average = grid.to(loop.device), _average_of(student, loop)
    for _, draws in loop:
        x, label = pictures.batch(draws.integer("picture", len(pictures)).cpu(), loop.device)
        w = low + (high - low) * draws.uniform("w")
        own = is_consistent(draws.index, plan.share)
        n, times = draw_steps(own, draws.uniform("n"), draws.uniform("t"), grid)
        z_t = add_noise(x, draws.normal("eps", x.shape[1:]), times[0], schedule)
        x_target = torch.empty_like(z_t)
        follows = denoise_shortcut(average, label[own], w[own])
        x_target[own] = consistent_target(follows, z_t[own], tuple(t[own] for t in times), n[own], schedule)
        denoise = denoise_student if teacher.takes_w else denoise_pair
        known = denoise(teacher, label[~own], w[~own])
        x_target[~own] = finest_target(known, z_t[~own], times[0][~own], schedule)
        answer = denoise_shortcut(student, label, w)
        yield loop.update(shortcut_loss(answer, x_target, z_t, times[0], n, schedule))


def distill_shortcut_once(teacher: Parent, pictures: Pictures, plan: Shortcuts) -> Trained:
    """The finished network of all step counts up to plan.n_steps; loaded if its run is done.

    Args:
        teacher: the network that it starts from and learns the finest step of, and the key or checksum of its weights.
        pictures, plan: as in `distill_shortcut`.
    """
    student = shortcut_of(teacher.net)
    config = {"plan": plan, "pictures": identity(pictures), "parent": teacher.key}
    config |= {"teacher": teacher.net}  # the key names its weights, and not its grid, prediction or precision
    run = Run(f"shortcut-{plan.n_steps}", config, distill_shortcut, shortcut_of)
    training = distill_shortcut(student, teacher.net, pictures, plan, run)
    return Trained(student, finish(student, training, run, f"shortcut: {plan.n_steps} steps and fewer"), run)

"""Stage two (Algorithms 2 and 3): the student makes in one step what its teacher makes in two, again and again.

With grid indices t > m > s, m half-way, the teacher walks z_t -> z_m -> z_s by DDIM. The student's own step from z_t
lands on z_s exactly when its x prediction is

    x_target = (z_s - (sigma_s / sigma_t) z_t) / (alpha_s - (sigma_s / sigma_t) alpha_t)                       (1)
    loss     = max(alpha_t^2 / sigma_t^2, 1) | x_target - x_hat_student(z_t) |^2                               (2)

Salimans and Ho 2022 (arXiv 2202.00512), Algorithm 2; Meng et al. 2023 (arXiv 2210.03142), Algorithm 2. At s = 0, (1)
is the teacher's last x prediction itself. Nothing is clipped inside the target, which would break (1).

The boxes stand at the two loops, `halve_steps` for Algorithm 2 and `halve_stochastic` for Algorithm 3.
Differs from the paper: a batch and its target may serve several updates (`engine.replay`): the teacher is evaluated
less.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from distill_lib.diffusion.errors import mean_square, truncated_snr
from distill_lib.diffusion.noise import Draws
from distill_lib.diffusion.samplers import Denoise, ddim_step
from distill_lib.diffusion.schedules import OURS, Schedule, add_noise, step_grid, x_from_v
from distill_lib.engine.loop import Loop, Progress, TrainSettings, finish
from distill_lib.engine.replay import replay
from distill_lib.engine.store import Run
from distill_lib.networks.adapter import Network, Parent, Trained, denoise_pair, denoise_student
from distill_lib.worlds.pictures import Pictures, identity


@torch.no_grad()
def halving_target(teacher: Denoise, z_t: Tensor, t: Tensor, m: Tensor, s: Tensor, schedule: Schedule = OURS) -> Tensor:
    """x_target of (1), (B, *D); two calls of the teacher.

    Args:
        teacher: denoiser with condition and w bound.
        z_t: noisy data, (B, *D).
        t, m, s: start, middle and end of the student's step as grid indices, (B,), t > m >= s. Where m = s = 0 the
            teacher arrives in one step (the last step of the stochastic sampler).
    """
    z_m = ddim_step(teacher, z_t, t, m, schedule)
    second = ddim_step(teacher, z_m, m.clamp(min=1), s, schedule)  # no network knows t = 0
    z_s = torch.where((m > s).reshape(-1, *[1] * (z_t.ndim - 1)), second, z_m)
    alpha_t, sigma_t = schedule(t, z_t)
    alpha_s, sigma_s = schedule(s, z_t)
    ratio = sigma_s / sigma_t
    return (z_s - ratio * z_t) / (alpha_s - ratio * alpha_t)


def halving_loss(
    student: Denoise, x_target: Tensor, z_t: Tensor, t: Tensor, schedule: Schedule = OURS, clamp: float = 100.0
) -> Tensor:
    """Loss (2), one value per sample, (B,); arguments as in `halving_target`, clamp as in `truncated_snr`."""
    x_hat = x_from_v(z_t, student(z_t, t), t, schedule)
    return truncated_snr(t, schedule, clamp) * mean_square(x_target - x_hat)


@dataclass(frozen=True)
class Halving:
    """What one training of stage two depends on besides its networks and its data.

    n_steps is N, the student's steps; w is drawn evenly from w_range, and a range of one point makes a student for a
    single w; clamp bounds the weight of (2); reuse is how many updates a batch and its target serve (`engine.replay`).
    """

    n_steps: int
    settings: TrainSettings
    w_range: tuple[float, float] = (0.0, 4.0)
    clamp: float = 100.0
    reuse: int = 1


def _begin(student: Network, teacher: Network, n_points: int, halving: Halving, run: Run) -> tuple[Loop, Tensor]:
    """The loop of a training, and the grid {0, 1/n_points, .., 1} as indices, (n_points + 1,)."""
    grid = torch.tensor(step_grid(n_points, teacher.schedule.T)[::-1])
    w_range = halving.w_range
    if not teacher.takes_w and w_range[0] != w_range[1]:
        raise ValueError(f"a guided pair is halved for a single w, not for w_range={w_range}; stage one covers a range")
    loop = Loop(student, halving.settings, run)
    loop.place(teacher)
    return loop, grid.to(loop.device)


def _batch(
    teacher: Network, pictures: Pictures, w_range: tuple[float, float], draws: Draws, times: tuple[Tensor, ...]
) -> tuple[Tensor, ...]:
    """z_t (B, *D), t (B,), label, w (B,) and x_target (B, *D) at times t, m, s, (B,) each."""
    t, m, s = times
    x, label = pictures.batch(draws.integer("picture", len(pictures)).cpu(), t.device)
    w = w_range[0] + (w_range[1] - w_range[0]) * draws.uniform("w")
    z_t = add_noise(x, draws.normal("eps", x.shape[1:]), t, teacher.schedule)
    known = denoise_student(teacher, label, w) if teacher.takes_w else denoise_pair(teacher, label, w_range[0])
    return z_t, t, label, w, halving_target(known, z_t, t, m, s, teacher.schedule)


def halve_steps(
    student: Network, teacher: Network, pictures: Pictures, halving: Halving, run: Run
) -> Iterator[Progress]:
    """Algorithm 2 of Meng et al. 2023 for one N: the student's N steps learn to land where 2N of its teacher land.

        x ~ data, i ~ {1..N}, w ~ U[w_min, w_max], eps ~ N(0, 1)
        t = i/N, m = t - 1/(2N), s = t - 1/N
        x_target by (1), z_t = alpha_t x + sigma_t eps: the teacher walks z_t -> z_m -> z_s
        the student takes a gradient step on (2)

    Args:
        student: a network that takes w; starts as a copy of the teacher; its module is trained.
        teacher: a network that takes w; or, for a single w, one that takes none, evaluated as a guided pair.
        halving: N and the settings; 2N is a divisor of the grid.

    Raises:
        ValueError: the steps of student or teacher fall between grid points, or a guided pair is given a range of w.
    """
    n_steps, schedule = halving.n_steps, teacher.schedule
    loop, grid = _begin(student, teacher, 2 * n_steps, halving, run)

    def batch_of(draws: Draws) -> tuple[Tensor, ...]:
        i = 1 + draws.integer("t", n_steps)
        return _batch(teacher, pictures, halving.w_range, draws, (grid[2 * i], grid[2 * i - 1], grid[2 * i - 2]))

    for _, batch in replay(loop, batch_of, halving.reuse):
        z_t, t, label, w, x_target = batch
        yield loop.update(halving_loss(denoise_student(student, label, w), x_target, z_t, t, schedule, halving.clamp))


def halve_stochastic(
    student: Network, teacher: Network, pictures: Pictures, halving: Halving, run: Run
) -> Iterator[Progress]:
    """Algorithm 3 of Meng et al. 2023 for one N: the student of the stochastic sampler jumps over two of N steps.

        x ~ data, i ~ {1..N}, w ~ U[w_min, w_max], eps ~ N(0, 1)
        t = i/N, m = t - 1/N, s = t - 2/N; from i = 1, where there is no room for two steps, m = s = 0
        x_target by (1), z_t = alpha_t x + sigma_t eps: the teacher walks z_t -> z_m -> z_s, or to z_m where m = s
        the student takes a gradient step on (2)

    The target of the edge case i = 1 is our reading: the sources at hand name the case alone. Arguments and `Raises`
    are those of `halve_steps`, but that `teacher` is the deterministic student of N steps.
    """
    n_steps, schedule = halving.n_steps, teacher.schedule
    loop, grid = _begin(student, teacher, n_steps, halving, run)

    def batch_of(draws: Draws) -> tuple[Tensor, ...]:
        i = 1 + draws.integer("t", n_steps)
        return _batch(teacher, pictures, halving.w_range, draws, (grid[i], grid[i - 1], grid[(i - 2).clamp(min=0)]))

    for _, batch in replay(loop, batch_of, halving.reuse):
        z_t, t, label, w, x_target = batch
        yield loop.update(halving_loss(denoise_student(student, label, w), x_target, z_t, t, schedule, halving.clamp))


def copy_of(teacher: Network, halving: Halving) -> Network:
    """How a student starts in the paper: from its teacher's weights."""
    return teacher.student()


Start = Callable[[Network, Halving], Network]
"""Makes the network that a training starts with, of its teacher."""


def halve_once(
    teacher: Parent,
    pictures: Pictures,
    halving: Halving,
    name: str = "halving",
    train: Callable[..., Iterator[Progress]] = halve_steps,
    start: Start = copy_of,
) -> Trained:
    """The finished student of halving.n_steps; loaded if its run is done.

    Args:
        teacher: the network that is halved, and the key or checksum of its weights.
        pictures, halving: as in `halve_steps`.
        name: of the run folder, followed by the steps.
        train: `halve_steps` or `halve_stochastic`.
        start: makes the network that the training starts with.
    """
    student = start(teacher.net, halving)
    config = vars(halving) | {"pictures": identity(pictures), "parent": teacher.key, "train": train, "start": start}
    config |= {"teacher": teacher.net}  # the key names its weights, and not its grid, prediction or precision
    run = Run(f"{name}-{halving.n_steps}", config, train, start)
    training = train(student, teacher.net, pictures, halving, run)
    return Trained(student, finish(student, training, run, f"{name}: {halving.n_steps} steps"), run)


def halve_down(
    first: Parent, pictures: Pictures, halvings: Sequence[Halving], name: str = "halving", start: Start = copy_of
) -> dict[int, Trained]:
    """All of Algorithm 2: each student is the teacher of the next; by their steps.

    Args:
        first: the network that is halved first; one that takes no w is evaluated as a guided pair, for a single w.
        pictures, name, start: as in `halve_once`.
        halvings: for N = N0/2, N0/4, .., 1 (`schedules.step_counts`).
    """
    chain: dict[int, Trained] = {}
    for halving in halvings:
        first = chain[halving.n_steps] = halve_once(first, pictures, halving, name, start=start)
    return chain

"""Stage two (Algorithms 2 and 3): the student makes in one step what its teacher makes in two, again and again.

With grid indices t > m > s, m half-way, the teacher walks z_t -> z_m -> z_s by DDIM. The student's own step from z_t
lands on z_s exactly when its x prediction is

    x_target = (z_s - (sigma_s / sigma_t) z_t) / (alpha_s - (sigma_s / sigma_t) alpha_t)                       (1)
    loss     = max(alpha_t^2 / sigma_t^2, 1) | x_target - x_hat_student(z_t) |^2                               (2)

Salimans and Ho 2022 (arXiv 2202.00512), Algorithm 2; Meng et al. 2023 (arXiv 2210.03142), Algorithm 2. At s = 0, (1)
is the teacher's last x prediction itself. Nothing is clipped inside the target, which would break (1).

Algorithm 2:

    for N in N0/2, N0/4, ..., 1:       the student of N steps starts as a copy of its teacher of 2N steps
        x ~ data, i ~ {1..N}, w ~ U[0, w_max], t = i/N, z_t = alpha_t x + sigma_t eps
        the student's step t -> t - 1/N learns to land where two steps of its teacher land

and for the stochastic sampler (Algorithm 3) a student of N steps learns from the deterministic one of N steps:

        i ~ {1..N}, t = i/N: the step t -> t - 2/N learns to land where two steps of its teacher land; from t = 1/N,
        where there is no room for two, the step t -> 0 learns to land where one lands (our reading: the sources at hand
        name the edge case and not its target)

Differs from the paper: a batch and its target may serve several updates (`reuse`), so that the teacher is asked less.
"""

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from distill_lib.diffusion.errors import mean_square, truncated_snr
from distill_lib.diffusion.noise import Draws
from distill_lib.diffusion.samplers import Denoise, ddim_step
from distill_lib.diffusion.schedules import OURS, Schedule, add_noise, step_grid, x_from_v
from distill_lib.engine.loop import Loop, Progress, TrainSettings, finish, place
from distill_lib.engine.store import Run
from distill_lib.networks.adapter import Network, Trained, denoise_pair, denoise_student
from distill_lib.worlds.pictures import Pictures, identity

__all__ = ["halve_down", "halve_once", "halve_steps", "halving_loss", "halving_target", "stochastic_students"]


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
    """Loss (2), one value a sample, (B,); arguments as in `halving_target`, clamp as in `truncated_snr`."""
    x_hat = x_from_v(z_t, student(z_t, t), t, schedule)
    return truncated_snr(t, schedule, clamp) * mean_square(x_target - x_hat)


BANK = 20
"""Batches that are gone through before any of them is used again."""
SettingsOf = Callable[[int], TrainSettings]
"""Settings of the training of the student of so many steps."""


def halve_steps(
    student: Network,
    teacher: Network,
    n_steps: int,
    pictures: Pictures,
    settings: TrainSettings,
    run: Run,
    w_range: tuple[float, float] = (0.0, 4.0),
    stochastic: bool = False,
    clamp: float = 100.0,
    reuse: int = 1,
) -> Iterator[Progress]:
    """Train student.module to make `n_steps` steps of the 2 n_steps of `teacher`. One halving.

    Args:
        student: a network that takes w; starts as a copy of the teacher.
        teacher: a network that takes w; or, for a single w, one that takes none, asked as a guided pair.
        n_steps: N, a divisor of the grid.
        pictures: data.
        settings: of the training.
        run: where it is kept.
        w_range: strengths are drawn evenly from it; a range of one point makes a student for a single w.
        stochastic: train for the stochastic sampler of N steps instead, from the deterministic student of N steps.
        clamp: upper bound of the weight on the loss.
        reuse: updates that a batch and its target serve; of more than one, `BANK` batches are gone through in turn.

    Raises:
        ValueError: the steps of student or teacher fall between grid points, or a guided pair is given a range of w.
    """
    schedule = teacher.schedule
    grid = torch.tensor(step_grid(n_steps if stochastic else 2 * n_steps, schedule.T)[::-1])
    if not teacher.takes_w and w_range[0] != w_range[1]:
        raise ValueError(f"a guided pair is halved for a single w, not for w_range={w_range}; stage one covers a range")
    loop = Loop(student, settings, run)
    place(teacher, loop.device)
    grid = grid.to(loop.device)

    def lesson(draws: Draws) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
        x, label = pictures.batch(draws.integer("picture", len(pictures)).cpu(), loop.device)
        i = (1 if stochastic else 2) * (1 + draws.integer("t", n_steps))  # z_t stands at the i-th point of the grid
        t, m, s = grid[i], grid[i - 1], grid[(i - 2).clamp(min=0)]
        w = w_range[0] + (w_range[1] - w_range[0]) * draws.uniform("w")
        z_t = add_noise(x, draws.normal("eps", x.shape[1:]), t, schedule)
        known = denoise_student(teacher, label, w) if teacher.takes_w else denoise_pair(teacher, label, w_range[0])
        return z_t, t, label, w, halving_target(known, z_t, t, m, s, schedule)

    bank = BANK if reuse > 1 else 1
    kept: dict[int, tuple[Tensor, Tensor, Tensor, Tensor, Tensor]] = {}
    for step, draws in loop:
        start = step - step % (bank * reuse)
        first = start + step % bank  # the step that this batch was drawn for
        if first not in kept:
            kept = {drawn: batch for drawn, batch in kept.items() if drawn >= start}
            kept[first] = lesson(replace(draws, step=first))
        z_t, t, label, w, x_target = kept[first]
        yield loop.update(halving_loss(denoise_student(student, label, w), x_target, z_t, t, schedule, clamp))


def halve_once(
    teacher: Network,
    parent: str,
    n_steps: int,
    pictures: Pictures,
    settings: TrainSettings,
    name: str = "halving",
    train: Callable[..., Iterator[Progress]] = halve_steps,
    **how: Any,
) -> Trained:
    """The finished student of n_steps, started from its teacher's weights; loaded if its run is done.

    Args:
        teacher, n_steps, pictures, settings: as in `halve_steps`.
        parent: key or checksum of the teacher's weights.
        name: of the run folder, followed by the steps.
        train: the training, called as `halve_steps` is.
        how: what it takes besides: w_range, stochastic, clamp or reuse for `halve_steps`.
    """
    student = teacher.student()
    config = {"steps": n_steps, "settings": settings, "pictures": identity(pictures), "parent": parent} | how
    run = Run(f"{name}-{n_steps}", config, train)
    training = train(student, teacher, n_steps, pictures, settings, run, **how)
    curve = finish(student, training, run, f"{name}: {n_steps} steps")
    return Trained(student, curve, run)


def halve_down(
    first: Network,
    parent: str,
    start: int,
    pictures: Pictures,
    settings_of: SettingsOf,
    name: str = "halving",
    **how: Any,
) -> dict[int, Trained]:
    """All of Algorithm 2: the students of start/2, .., 2, 1 steps, each trained from the one before; by their steps.

    Args:
        first: the network that is halved first; one that takes no w is asked as a guided pair, for a single w.
        parent: key or checksum of its weights.
        start: its steps, a power of two.
        pictures, name, how: as in `halve_once`.
        settings_of: settings of each training.
    """
    chain: dict[int, Trained] = {}
    last, key, n_steps = first, parent, start // 2
    while n_steps >= 1:
        chain[n_steps] = halve_once(last, key, n_steps, pictures, settings_of(n_steps), name, **how)
        last, key, n_steps = chain[n_steps].net, chain[n_steps].key, n_steps // 2
    return chain


def stochastic_students(
    chain: dict[int, Trained], pictures: Pictures, settings_of: SettingsOf, **how: Any
) -> dict[int, Trained]:
    """All of Algorithm 3: for each deterministic student the stochastic one of as many steps, trained from it.

    With one step the two samplers are the same, and so are their students.
    """
    how |= {"name": "stochastic", "stochastic": True}
    return {
        n: halve_once(parent.net, parent.key, n, pictures, settings_of(n), **how) if n > 1 else parent
        for n, parent in chain.items()
    }

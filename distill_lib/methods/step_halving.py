"""Stage two: halve the number of sampling steps, again and again.

Meng et al. 2023 (arXiv 2210.03142), Algorithm 2, after Salimans and Ho 2022 (arXiv 2202.00512), Algorithm 2:

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
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from distill_lib.losses.halving import halving_loss, halving_target
from distill_lib.models import Network, denoise_pair, denoise_student
from distill_lib.schedules import add_noise, step_grid
from distill_lib.store import Run
from distill_lib.training import Draws, Loop, Progress, TrainSettings, finish, place
from distill_lib.worlds.datasets import Pictures, identity

__all__ = ["Halved", "halve_down", "halve_once", "halve_steps", "stochastic_students"]

BANK = 20
"""Batches that are gone through before any of them is used again."""

SettingsOf = Callable[[int], TrainSettings]
"""Settings of the training of the student of so many steps."""


@dataclass(frozen=True)
class Halved:
    """A finished student: its network, its training curve as (step, loss), its run."""

    net: Network
    curve: list[tuple[float, float]]
    run: Run

    @property
    def key(self) -> str:
        """Of the run: what results name as their parent."""
        return self.run.key


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
) -> Halved:
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
    return Halved(student, curve, run)


def halve_down(
    first: Network,
    parent: str,
    start: int,
    pictures: Pictures,
    settings_of: SettingsOf,
    name: str = "halving",
    **how: Any,
) -> dict[int, Halved]:
    """All of Algorithm 2: the students of start/2, .., 2, 1 steps, each trained from the one before; by their steps.

    Args:
        first: the network that is halved first; one that takes no w is asked as a guided pair, for a single w.
        parent: key or checksum of its weights.
        start: its steps, a power of two.
        pictures, name, how: as in `halve_once`.
        settings_of: settings of each training.
    """
    chain: dict[int, Halved] = {}
    last, key, n_steps = first, parent, start // 2
    while n_steps >= 1:
        chain[n_steps] = halve_once(last, key, n_steps, pictures, settings_of(n_steps), name, **how)
        last, key, n_steps = chain[n_steps].net, chain[n_steps].key, n_steps // 2
    return chain


def stochastic_students(
    chain: dict[int, Halved], pictures: Pictures, settings_of: SettingsOf, **how: Any
) -> dict[int, Halved]:
    """All of Algorithm 3: for each deterministic student the stochastic one of as many steps, trained from it.

    With one step the two samplers are the same, and so are their students.
    """
    how |= {"name": "stochastic", "stochastic": True}
    return {
        n: halve_once(parent.net, parent.key, n, pictures, settings_of(n), **how) if n > 1 else parent
        for n, parent in chain.items()
    }

"""Stage two: halve the number of sampling steps, again and again.

Meng et al. 2023 (arXiv 2210.03142), Algorithm 2, after Salimans and Ho 2022 (arXiv 2202.00512), Algorithm 2:

    for N in N0/2, N0/4, ..., 1:       the student of N steps starts as a copy of its teacher of 2N steps
        x ~ data, i ~ {1..N}, w ~ U[0, w_max], t = i/N, z_t = alpha_t x + sigma_t eps
        the student's step t -> t - 1/N learns to land where two steps of its teacher land

and for the stochastic sampler (Algorithm 3) a student of N steps learns from the deterministic one of N steps:

        i ~ {1..N}, t = i/N: the step t -> t - 2/N learns to land where two steps of its teacher land; from t = 1/N,
        where there is no room for two, the step t -> 0 learns to land where one lands (our reading: the sources at hand
        name the edge case and not its target)
"""

from collections.abc import Iterator

from distill_lib.losses.halving import halving_loss, halving_target
from distill_lib.models import Network, denoise_student
from distill_lib.schedules import OURS, add_noise, step_grid
from distill_lib.store import Run
from distill_lib.training import Loop, Progress, TrainSettings, place
from distill_lib.worlds.datasets import Pictures

__all__ = ["halve_steps"]


def halve_steps(
    student: Network,
    teacher: Network,
    n_steps: int,
    pictures: Pictures,
    settings: TrainSettings,
    run: Run,
    w_range: tuple[float, float] = (0.0, 4.0),
    stochastic: bool = False,
) -> Iterator[Progress]:
    """Train student.module to make `n_steps` steps of the 2 n_steps of `teacher`; both take w. One halving.

    Args:
        student, teacher: networks that take w; the student starts as a copy of the teacher.
        n_steps: N, a divisor of the grid.
        pictures: data.
        settings: of the training.
        run: where it is kept.
        w_range: strengths are drawn evenly from it; a range of one point makes a student for a single w.
        stochastic: train for the stochastic sampler of N steps instead, from the deterministic student of N steps.

    Raises:
        ValueError: the steps of student or teacher fall between grid points.
    """
    step_grid(n_steps if stochastic else 2 * n_steps)
    loop = Loop(student, settings, run)
    place(teacher, loop.device)
    length = OURS.T // n_steps
    for _, draws in loop:
        x, label = pictures.batch(draws.integer("picture", len(pictures)).cpu(), loop.device)
        t = length * (1 + draws.integer("t", n_steps))
        m, s = (t - length, (t - 2 * length).clamp(min=0)) if stochastic else (t - length // 2, t - length)
        w = w_range[0] + (w_range[1] - w_range[0]) * draws.uniform("w")
        z_t = add_noise(x, draws.normal("eps", x.shape[1:]), t)
        x_target = halving_target(denoise_student(teacher, label, w), z_t, t, m, s)
        yield loop.update(halving_loss(denoise_student(student, label, w), x_target, z_t, t))

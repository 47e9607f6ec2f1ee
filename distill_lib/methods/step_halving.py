"""Stage two: halve the number of sampling steps, again and again.

Meng et al. 2023 (arXiv 2210.03142), Algorithm 2, after Salimans and Ho 2022 (arXiv 2202.00512), Algorithm 2:

    for N in N0/2, N0/4, ..., 1:       the student of N steps starts as a copy of its teacher of 2N steps
        x ~ data, i ~ {1..N}, w ~ U[0, w_max], t = i/N, z_t = alpha_t x + sigma_t eps
        the student's step t -> t - 1/N learns to land where two steps of its teacher land
"""

from collections.abc import Iterator

from distill_lib.losses.halving import halving_loss, halving_target
from distill_lib.models import Network, denoise_student
from distill_lib.schedules import OURS, add_noise
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
    w_max: float = 4.0,
) -> Iterator[Progress]:
    """Train student.module to make `n_steps` steps of the 2 n_steps of `teacher`; both take w. One halving."""
    loop = Loop(student, settings, run)
    place(teacher, loop.device)
    length = OURS.T // n_steps
    for _, draws in loop:
        x, label = pictures.batch(draws.integer("picture", len(pictures)).cpu(), loop.device)
        t = length * (1 + draws.integer("t", n_steps))
        w = w_max * draws.uniform("w")
        z_t = add_noise(x, draws.normal("eps", x.shape[1:]), t)
        x_target = halving_target(denoise_student(teacher, label, w), z_t, t, t - length // 2, t - length)
        yield loop.update(halving_loss(denoise_student(student, label, w), x_target, z_t, t))

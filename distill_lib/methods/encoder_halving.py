"""Stage two upward: halve the steps of the encoder, again and again.

Meng et al. 2023 (arXiv 2210.03142), on style transfer, by analogy with Algorithm 2 (`methods.step_halving`):

    for N in N1, N1/2, N1/4, ..:       the encoder of N steps starts as a copy of its teacher of 2N (at first N0) steps
        x ~ data, i ~ {0..N-1}, t = i/N, z_t = alpha_t x + sigma_t eps
        the student's step t -> t + 1/N learns to land where the teacher's steps land

The encoder is asked without guidance (w = 0): what is encoded is a picture of the class that it is told.

Differs from the paper: the first student learns from all of N0/N1 steps at once. Upward few steps err more than
downward: from clean pictures DDIM with 32 steps ends in noise that is visibly too small, so that N0 has to be large.
"""

from collections.abc import Iterator

import torch

from distill_lib.losses.encoding import encoding_loss, encoding_target
from distill_lib.methods.step_halving import Halved, SettingsOf, halve_once
from distill_lib.models import Network, denoise_pair, denoise_student
from distill_lib.schedules import add_noise, step_grid
from distill_lib.store import Run
from distill_lib.training import Loop, Progress, TrainSettings, place
from distill_lib.worlds.datasets import Pictures

__all__ = ["halve_encoder", "halve_encoder_down"]


def halve_encoder(
    student: Network,
    teacher: Network,
    n_steps: int,
    pictures: Pictures,
    settings: TrainSettings,
    run: Run,
    inner: int = 2,
) -> Iterator[Progress]:
    """Train student.module to make `n_steps` steps up of the inner * n_steps of `teacher`.

    Args:
        student: a network that takes w; starts as a copy of the teacher, and is told w = 0.
        teacher: a network that takes w, told w = 0; or a guided pair, asked for its conditional network.
        n_steps: N, a divisor of the grid.
        pictures: data.
        settings: of the training.
        run: where it is kept.
        inner: the teacher's steps within one of the student's; 2 is a halving.

    Raises:
        ValueError: the steps of student or teacher fall between grid points.
    """
    schedule = teacher.schedule
    grid = torch.tensor(step_grid(inner * n_steps, schedule.T)[::-1])
    loop = Loop(student, settings, run)
    place(teacher, loop.device)
    grid = grid.to(loop.device)
    for _, draws in loop:
        x, label = pictures.batch(draws.integer("picture", len(pictures)).cpu(), loop.device)
        first = inner * draws.integer("t", n_steps)
        times = [grid[first + i] for i in range(inner + 1)]
        t = times[0]
        z_t = add_noise(x, draws.normal("eps", x.shape[1:]), t, schedule)
        w = torch.zeros(len(x), device=loop.device)
        known = denoise_student(teacher, label, w) if teacher.takes_w else denoise_pair(teacher, label, 0.0)
        v_target = encoding_target(known, z_t, times, schedule)
        yield loop.update(encoding_loss(denoise_student(student, label, w), v_target, z_t, t, schedule))


def halve_encoder_down(
    first: Network, parent: str, start: int, most: int, until: int, pictures: Pictures, settings_of: SettingsOf
) -> dict[int, Halved]:
    """The encoders of `most`, most/2, .., `until` steps, each trained from the one before; by their steps.

    Args:
        first: the network whose steps up are distilled first; a guided pair is asked for its conditional network.
        parent: key or checksum of its weights.
        start: its steps, a multiple of `most`.
        most: steps of the first encoder, a power of two.
        until: steps of the last encoder.
        pictures: data.
        settings_of: settings of each training.
    """
    chain: dict[int, Halved] = {}
    last, key, n_steps, inner = first, parent, most, start // most
    while n_steps >= until:
        settings = settings_of(n_steps)
        chain[n_steps] = halve_once(last, key, n_steps, pictures, settings, "encoder", halve_encoder, inner=inner)
        last, key, n_steps, inner = chain[n_steps].net, chain[n_steps].key, n_steps // 2, 2
    return chain

"""Stage two upward: the encoder's one step learns to land where several steps of its teacher land.

With alpha = cos(phi) and sigma = sin(phi), a deterministic step in any direction is a rotation towards v,

    z_s = cos(phi_s - phi_t) z_t + sin(phi_s - phi_t) v_hat(z_t)                                               (1)

so that the teacher's steps t -> .. -> s, two or more, are made in one by

    v_target = (z_s - cos(phi_s - phi_t) z_t) / sin(phi_s - phi_t)                                             (2)
    loss     = max(alpha_t^2, sigma_t^2) | v_target - v_hat_student(z_t) |^2                                   (3)

cos(phi_s - phi_t) = alpha_s alpha_t + sigma_s sigma_t, sin(phi_s - phi_t) = sigma_s alpha_t - alpha_s sigma_t. (1) and
(2) are ours and hold downward too, where (3) is the loss of `guided.halving` without its bound: an error of v is an
error of x divided by sigma_t. Upward the x of (2) is of no use: at t = 0, where an encoder starts, z_t is x itself.
Meng et al. 2023 (arXiv 2210.03142) distil the encoder by the same halving with time reversed; the sources at hand give
no formula for it.

By analogy with Algorithm 2 (`guided.halving`):

    for N in N1, N1/2, N1/4, ..:       the encoder of N steps starts as a copy of its teacher of 2N (at first N0) steps
        x ~ data, i ~ {0..N-1}, t = i/N, z_t = alpha_t x + sigma_t eps
        the student's step t -> t + 1/N learns to land where the teacher's steps land

The encoder is evaluated without guidance (w = 0): its condition is the class of the picture that is encoded.

Differs from the paper: the first student learns from all of N0/N1 steps at once. Upward few steps err more than
downward: from clean pictures DDIM with 32 steps ends in noise that is visibly too small, so that N0 has to be large.
"""

from collections.abc import Iterator, Sequence
from itertools import pairwise

import torch
from torch import Tensor

from distill_lib.diffusion.errors import mean_square
from distill_lib.diffusion.samplers import Denoise, above_zero, ddim_step
from distill_lib.diffusion.schedules import OURS, Schedule, add_noise, step_grid
from distill_lib.engine.loop import Loop, Progress, TrainSettings, finish
from distill_lib.engine.store import Run
from distill_lib.networks.adapter import Network, Parent, Trained, denoise_pair, denoise_student
from distill_lib.worlds.pictures import Pictures, identity


@torch.no_grad()
def encoding_target(teacher: Denoise, z_t: Tensor, times: Sequence[Tensor], schedule: Schedule = OURS) -> Tensor:
    """v_target of (2), (B, *D); one call of the teacher for each of its steps.

    Args:
        teacher: denoiser with condition and w bound.
        z_t: noisy data at the first of the times, (B, *D); data itself where that is 0.
        times: grid indices (B,) that the teacher visits, from the start t to the end s of the student's step.
    """
    denoise, z_s = above_zero(teacher), z_t
    for start, end in pairwise(times):
        z_s = ddim_step(denoise, z_s, start, end, schedule)
    t, s = times[0], times[-1]
    (alpha_t, sigma_t), (alpha_s, sigma_s) = schedule(t, z_t), schedule(s, z_t)
    return (z_s - (alpha_s * alpha_t + sigma_s * sigma_t) * z_t) / (sigma_s * alpha_t - alpha_s * sigma_t)


def encoding_loss(student: Denoise, v_target: Tensor, z_t: Tensor, t: Tensor, schedule: Schedule = OURS) -> Tensor:
    """Loss (3), one value per sample, (B,); arguments as in `encoding_target`."""
    alpha_t, sigma_t = schedule(t, z_t)
    weight = torch.maximum(alpha_t**2, sigma_t**2).flatten()
    return weight * mean_square(v_target - above_zero(student)(z_t, t))


def halve_encoder(
    student: Network, teacher: Network, counts: tuple[int, int], pictures: Pictures, settings: TrainSettings, run: Run
) -> Iterator[Progress]:
    """Train student.module to make its N steps up where `teacher` makes several times as many.

    Args:
        student: a network that takes w; starts as a copy of the teacher, and is evaluated at w = 0.
        teacher: a network that takes w, at w = 0; or a guided pair, of which the conditional network is evaluated.
        counts: steps of teacher and student, the first a multiple of the second; (2N, N) is a halving.

    Raises:
        ValueError: the steps of student or teacher fall between grid points.
    """
    schedule, n_steps = teacher.schedule, counts[1]
    inner = counts[0] // n_steps  # the teacher's steps within one of the student's
    grid = torch.tensor(step_grid(inner * n_steps, schedule.T)[::-1])
    loop = Loop(student, settings, run)
    loop.place(teacher)
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


def halve_encoder_once(
    teacher: Parent, counts: tuple[int, int], pictures: Pictures, settings: TrainSettings
) -> Trained:
    """The finished encoder of counts[1] steps; loaded if its run is done.

    Args:
        teacher: the network that it is made of: a guided pair, or an encoder of counts[0] steps.
        counts, pictures, settings: as in `halve_encoder`.
    """
    student = teacher.net.student()
    config = {"counts": counts, "settings": settings, "pictures": identity(pictures), "parent": teacher.key}
    config |= {"teacher": teacher.net}  # the key names its weights, and not its grid, prediction or precision
    run = Run(f"encoder-{counts[1]}", config, halve_encoder)
    training = halve_encoder(student, teacher.net, counts, pictures, settings, run)
    return Trained(student, finish(student, training, run, f"encoder: {counts[1]} steps"), run)

"""One step by regression on pairs of noise and the teacher's answer to it.

    x_hat = x_from_v(z_T, v_hat(z_T, T))         the whole way in one step of the deterministic sampler         (1)
    pair  = |x_hat - x|^2                        against the end x of the teacher's own path from z_T            (2)
    error = |1/k sum_i g_i - g| / |g|            gradient g of k slices at once, and g_i of one slice each       (3)

(2) is knowledge distillation of Luhman and Luhman 2021 (arXiv 2101.02388). Where the teacher's paths cross, one z_T has
to answer for several x, and the mean that (2) asks for is blurred: the premise of SDXS (Song et al. 2024, arXiv
2403.16627, section 3.2), whose blur is measured in `06_latent_teacher`. Its batches of 1,024 to 2,048 are accumulated
over slices: (3) is 0 but for rounding where the loss is a mean over samples.
"""

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from distill_lib.diffusion.errors import Predict, mean_square
from distill_lib.diffusion.schedules import OURS, Schedule, x_from_v
from distill_lib.engine.loop import Loop, Progress, TrainSettings, finish
from distill_lib.engine.store import Run
from distill_lib.networks.adapter import Network, Trained
from distill_lib.teachers.latents import Pairs

Matching = Callable[[Tensor, Tensor], Tensor]
"""Latents x_hat and x (B, C, H, W) -> what their difference costs, (B,)."""


def one_step(net: Predict, z_T: Tensor, label: Tensor, schedule: Schedule = OURS) -> Tensor:
    """(1): data x_hat (B, *D) of pure noise z_T (B, *D) and what is asked for."""
    t = torch.full((len(z_T),), schedule.T, device=z_T.device)
    return x_from_v(z_T, net(z_T, t, label), t, schedule)


def square_loss(x_hat: Tensor, x: Tensor) -> Tensor:
    """(2), one value per sample, (B,), of what was drawn in one step and the end of the teacher's path, (B, *D)."""
    return mean_square(x_hat - x)


def gradient(net: Network, pairs: Pairs, index: Tensor, cost: Matching) -> Tensor:
    """Gradient of the mean cost of the pairs `index` (B,) by all trained weights of net.module, as one vector."""
    weights = [p for p in net.module.parameters() if p.requires_grad]
    z_T, x, label = pairs.batch(index, net.device)
    loss = cost(one_step(net, z_T, label, net.schedule), x).mean()
    parts = torch.autograd.grad(loss, weights, allow_unused=True, materialize_grads=True)
    return torch.cat([part.flatten() for part in parts])


def accumulation_error(net: Network, pairs: Pairs, cost: Matching, slices: int, size: int) -> float:
    """(3) for `slices` slices of `size` pairs each, the first ones, from the start again where there are fewer."""
    index = torch.arange(slices * size) % len(pairs)
    whole = gradient(net, pairs, index, cost)
    accumulated = sum(gradient(net, pairs, part, cost) for part in index.split(size)) / slices
    return ((accumulated - whole).norm() / whole.norm()).item()


def train_on_pairs(
    net: Network, pairs: Pairs, settings: TrainSettings, run: Run, loss: Matching = square_loss
) -> Iterator[Progress]:
    """Train net.module, which starts as the teacher, to make in one step what the teacher made in many."""
    loop = Loop(net, settings, run)
    for _, draws in loop:
        z_T, x, label = pairs.batch(draws.integer("pair", len(pairs)).cpu(), loop.device)
        yield loop.update(loss(one_step(net, z_T, label, net.schedule), x))


def fit_on_pairs(student: Network, pairs: Pairs, cost: Matching, settings: TrainSettings) -> Trained:
    """A student trained on pairs to one step by a loss; the same object is trained."""
    run = Run("one-step", {"settings": settings, "pairs": pairs, "student": student, "cost": cost}, fit_on_pairs)
    training = train_on_pairs(student, pairs, settings, run, cost)
    return Trained(student, finish(student, training, run, "one step"), run)

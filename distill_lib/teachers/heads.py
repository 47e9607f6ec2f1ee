"""Teachers that predict x, eps, v or (x, eps), each under a weighting of its error.

    head      answer         x_hat
    x         x~             x~
    eps       eps~           (z_t - sigma_t eps~) / alpha_t
    v         v~             alpha_t z_t - sigma_t v~
    (x, eps)  x~ and eps~    sigma_t^2 x~ + alpha_t (z_t - sigma_t eps~)

and always eps_hat = (z_t - alpha_t x_hat) / sigma_t. The weighting of an error:

    SNR             |eps - eps_hat|^2                           which is alpha_t^2 / sigma_t^2 times the x error
    truncated SNR   max(|x - x_hat|^2, |eps - eps_hat|^2)
    SNR + 1         |x - x_hat|^2 + |eps - eps_hat|^2           which is the v error

Salimans and Ho 2022 (arXiv 2202.00512), section 4 and Table 1. Times run from 1 to T - 1: at T, where alpha_t = 0, eps
tells nothing of x. With v and SNR + 1 it is `teachers.denoising` without the dropped class.
"""

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from distill_lib.diffusion.errors import Predict, mean_square
from distill_lib.diffusion.samplers import Denoise
from distill_lib.diffusion.schedules import OURS, Schedule, add_noise
from distill_lib.engine.loop import Loop, Progress, TrainSettings
from distill_lib.engine.store import Run
from distill_lib.networks.adapter import Network
from distill_lib.worlds.pictures import Pictures

HEADS = ("x", "eps", "v", "(x, eps)")
WEIGHTINGS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "SNR": lambda x_error, eps_error: eps_error,
    "truncated SNR": torch.maximum,
    "SNR + 1": torch.add,
}


def x_from_head(head: str, answer: Tensor, z_t: Tensor, t: Tensor, schedule: Schedule = OURS) -> Tensor:
    """x_hat (B, C, ..) by the table above; the answer of `(x, eps)` has twice the channels, (B, 2C, ..)."""
    alpha_t, sigma_t = schedule(t, z_t)
    if head == "x":
        return answer
    if head == "eps":
        return (z_t - sigma_t * answer) / alpha_t
    if head == "v":
        return alpha_t * z_t - sigma_t * answer
    x, eps = answer.chunk(2, 1)
    return sigma_t**2 * x + alpha_t * (z_t - sigma_t * eps)


def eps_from_x(z_t: Tensor, x_hat: Tensor, t: Tensor, schedule: Schedule = OURS) -> Tensor:
    """eps_hat = (z_t - alpha_t x_hat) / sigma_t."""
    alpha_t, sigma_t = schedule(t, z_t)
    return (z_t - alpha_t * x_hat) / sigma_t


def head_loss(net: Predict, head: str, weighting: str, x: Tensor, eps: Tensor, t: Tensor, label: Tensor) -> Tensor:
    """Denoising loss of a head under a weighting, one value per sample, (B,).

    Args:
        net: net(z_t, t, label) -> answer of the head, of HEADS.
        weighting: of WEIGHTINGS.
        x, eps: data and unit noise, (B, *D).
        t, label: grid indices in 1..T-1 and classes, (B,).
    """
    z_t = add_noise(x, eps, t)
    x_hat = x_from_head(head, net(z_t, t, label), z_t, t)
    return WEIGHTINGS[weighting](mean_square(x - x_hat), mean_square(eps - eps_from_x(z_t, x_hat, t)))


def denoise_by_head(net: Predict, head: str, label: Tensor) -> Denoise:
    """A network of any head as a denoiser for `samplers`; pure noise is evaluated as t = T - 1, x_hat is clipped."""

    def denoise(z_t: Tensor, t: Tensor) -> Tensor:
        t = t.clamp(max=OURS.T - 1)
        x_hat = x_from_head(head, net(z_t, t, label), z_t, t).clamp(-1, 1)
        alpha_t, sigma_t = OURS(t, z_t)
        return alpha_t * eps_from_x(z_t, x_hat, t) - sigma_t * x_hat

    return denoise


def train_head(
    net: Network, head: str, weighting: str, pictures: Pictures, settings: TrainSettings, run: Run
) -> Iterator[Progress]:
    """Train net.module on pictures; head and weighting are names of `teachers.heads`."""
    loop = Loop(net, settings, run)
    for _, draws in loop:
        x, label = pictures.batch(draws.integer("picture", len(pictures)).cpu(), loop.device)
        t = 1 + draws.integer("t", OURS.T - 1)
        yield loop.update(head_loss(net, head, weighting, x, draws.normal("eps", x.shape[1:]), t, label))

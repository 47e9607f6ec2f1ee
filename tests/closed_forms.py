"""Things that tests compare with: an exact denoiser, and tiny networks."""

import torch
from torch import Tensor

from distill_lib.diffusion.schedules import OURS, Schedule
from distill_lib.networks.unet import build_unet


class Gaussian:
    """The exact denoiser of data N(mean, std^2) in each coordinate: denoise(z_t, t) -> v_hat.

    Since E[x | z] = mean + alpha std^2 / V (z - alpha mean) with V = alpha^2 std^2 + sigma^2, and E[eps | z] follows
    from z = alpha x + sigma eps, v_hat = E[alpha eps - sigma x | z] is finite at both ends of the grid.
    """

    def __init__(self, mean: float, std: float, schedule: Schedule = OURS) -> None:
        self.mean, self.std, self.schedule = mean, std, schedule

    def __call__(self, z_t: Tensor, t: Tensor) -> Tensor:
        alpha, sigma = self.schedule(t, z_t)
        return alpha * self.eps_hat(z_t, t) - sigma * self.x_hat(z_t, t)

    def x_hat(self, z_t: Tensor, t: Tensor) -> Tensor:
        """E[x | z_t]."""
        alpha, sigma = self.schedule(t, z_t)
        gain = alpha * self.std**2 / (alpha**2 * self.std**2 + sigma**2)
        return self.mean + gain * (z_t - alpha * self.mean)

    def eps_hat(self, z_t: Tensor, t: Tensor) -> Tensor:
        """E[eps | z_t]."""
        alpha, sigma = self.schedule(t, z_t)
        return sigma / (alpha**2 * self.std**2 + sigma**2) * (z_t - alpha * self.mean)

    def shrink(self, t: int, s: int) -> float:
        """Factor f of one DDIM step t -> s on the distance to the centre, z_s - alpha_s m = f (z_t - alpha_t m).

        f = (alpha_s alpha_t std^2 + sigma_s sigma_t) / V_t.
        """
        a, b = self.schedule.alpha[t].item(), self.schedule.alpha[s].item()
        sigma_a, sigma_b = (1 - a**2) ** 0.5, (1 - b**2) ** 0.5
        return (a * b * self.std**2 + sigma_a * sigma_b) / (a**2 * self.std**2 + sigma_a**2)


def tiny_unet(seed: int = 0):
    """The smallest network of the library's kind: 8 x 8 pictures, three classes."""
    torch.manual_seed(seed)
    return build_unet(resolution=8, n_classes=3, channels=(16, 32))


def fake_network(z_t: Tensor, t: Tensor) -> Tensor:
    """A smooth nonlinear answer that depends on z, on its neighbours and on t: no formula can be right by luck."""
    time = t.reshape(-1, *[1] * (z_t.ndim - 1)).to(z_t)
    return (3 * z_t + time / 200).sin() * z_t.cos() + 0.3 * z_t.roll(1, -1)

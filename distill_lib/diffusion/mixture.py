"""Two-dimensional data on which everything has a closed form: the same functions, in seconds.

A mixture of K Gaussians N(m_k, s^2 I), one a class. Diffused by the schedule it stays a mixture, with

    p_t(z | k) = N(alpha_t m_k, V I),     V = alpha_t^2 s^2 + sigma_t^2                                        (1)
    x_hat(z | k) = m_k + (alpha_t s^2 / V) (z - alpha_t m_k)                                                   (2)

and without a class, x_hat is the mean of (2) over the posterior of k. `Mixture` answers as a trained teacher would.
"""

import torch
from torch import Tensor, nn

from distill_lib.diffusion.guidance import guidance_embedding
from distill_lib.diffusion.schedules import OURS, v_from_x


def ring(n_classes: int = 5, radius: float = 1.0) -> Tensor:
    """Centres on a circle, (K, 2)."""
    angle = 2 * torch.pi * torch.arange(n_classes) / n_classes
    return radius * torch.stack([angle.cos(), angle.sin()], 1)


class Mixture:
    """The exact teacher of formulas (1) and (2): net(z_t, t, label) -> v_hat; label K asks for no condition."""

    schedule = OURS
    takes_w = True  # and ignores it, so that it can stand for a student of stage one as well

    def __init__(self, centres: Tensor, std: float) -> None:
        self.centres, self.std, self.null = centres, std, len(centres)

    def __call__(self, z_t: Tensor, t: Tensor, label: Tensor, w: Tensor | None = None) -> Tensor:
        alpha_t, sigma_t = OURS(t, z_t)
        variance = alpha_t**2 * self.std**2 + sigma_t**2
        centres = self.centres.to(z_t)
        offset = z_t[:, None] - alpha_t[:, None] * centres  # (B, K, 2)
        x_each = centres + (alpha_t * self.std**2 / variance)[:, None] * offset
        posterior = (-offset.square().sum(2) / (2 * variance)).softmax(1)
        chosen = nn.functional.one_hot(label.clamp(max=self.null - 1), self.null).to(posterior)
        share = torch.where((label == self.null)[:, None], posterior, chosen)
        x_hat = (share[..., None] * x_each).sum(1)
        return v_from_x(z_t, x_hat, t)


class MixtureData:
    """Draws of the mixture with the interface of `worlds.pictures.Pictures`."""

    def __init__(self, centres: Tensor, std: float, count: int = 8192, seed: int = 0) -> None:
        generator = torch.Generator().manual_seed(seed)
        self.label = torch.arange(count) % len(centres)
        self.x = centres[self.label] + std * torch.randn(count, 2, generator=generator)

    def __len__(self) -> int:
        return len(self.x)

    def batch(self, index: Tensor, device: torch.device | str = "cpu") -> tuple[Tensor, Tensor]:
        """x (B, 2) and classes (B,)."""
        return self.x[index].to(device), self.label[index].to(device)


class _Perceptron(nn.Module):
    def __init__(self, n_classes: int, width: int) -> None:
        super().__init__()
        self.label = nn.Embedding(n_classes + 1, 32)
        self.body = nn.Sequential(
            nn.Linear(2 + 3 * 32, width), nn.SiLU(), nn.Linear(width, width), nn.SiLU(), nn.Linear(width, 2)
        )

    def forward(self, z_t: Tensor, t: Tensor, label: Tensor, w: Tensor) -> Tensor:
        # both numbers lie in a range where the features, made for w up to some thousandths, turn a few times
        time = guidance_embedding(t / OURS.T / 200, 32)
        strength = guidance_embedding(w / 1000, 32)
        return self.body(torch.cat([z_t, time, strength, self.label(label)], 1))


class ToyNetwork:
    """A small student net(z_t, t, label, w) -> v_hat for 2-D data, called as `adapter.Network` is."""

    schedule = OURS
    takes_w = True

    def __init__(self, n_classes: int, width: int = 128) -> None:
        self.module = _Perceptron(n_classes, width)
        self.forward, self.null = self.module, n_classes

    def __call__(self, z_t: Tensor, t: Tensor, label: Tensor, w: Tensor | None = None) -> Tensor:
        inputs = z_t, t, label, torch.zeros(len(z_t)) if w is None else w
        device = next(self.module.parameters()).device
        return self.forward(*(tensor.to(device) for tensor in inputs)).to(z_t.device)

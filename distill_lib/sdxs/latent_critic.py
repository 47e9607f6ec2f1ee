"""A critic of latents, on the bottleneck of the online model of score distillation.

    f(z_t) = the online model's innermost features at z_t = alpha_t x + sigma_t eps
    critic and online model:   (1) of `critics` on D(f), and half of r1 times (3) on D                        (1)
    student:                   (2) of `critics` on D(f(alpha_t x_hat + sigma_t eps))                          (2)

DMD2 (Yin et al. 2024, arXiv 2405.14867), section 4.3, to whose code the authors of SDXS (Song et al. 2024, arXiv
2403.16627) point. What is held real there are pictures of a data set; here the teacher's own latents, with noise and
prompts of their own, so that the training stays data-free.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from distill_lib.diffusion.noise import Draws
from distill_lib.diffusion.schedules import add_noise
from distill_lib.engine.trainable import Bare, Trainable
from distill_lib.networks.adapter import Network
from distill_lib.networks.pruning import bottleneck, tapped
from distill_lib.sdxs.critics import (
    ProjectedCritic,
    logistic_critic_loss,
    logistic_fooling_loss,
    slope_penalty,
    with_slope,
)
from distill_lib.sdxs.scoring import Adversary, Answered


def critic_head(online: Network, adversary: Adversary, seed: int) -> Bare:
    """A new head for the bottleneck of an online model."""
    torch.manual_seed(seed)
    channels = online.modules[0].config.block_out_channels[-1]
    return Bare(ProjectedCritic([channels], adversary.width).to(online.device))


@dataclass(frozen=True)
class LatentCritic:
    """A head on an online model, both trained by the loop that calls them."""

    head: Trainable
    online: Network
    adversary: Adversary

    @property
    def layer(self) -> nn.Module:
        """What the head reads."""
        return bottleneck(self.online.modules[0])

    def _answers(self, features: Tensor) -> Tensor:
        return self.head.forward([features.float()])

    def _features(self, z_t: Tensor, t: Tensor, label: Tensor) -> Tensor:
        with tapped([self.layer]) as features:
            self.online(z_t, t, label)
        return features[0]

    def learn(self, fake: Tensor, pairs: Answered, draws: Draws) -> Tensor:
        """(1) times `body`, (B,), which head and online model learn.

        Args:
            fake: features (B, C, h, w) at what the student drew, noised to the times of the stream "t".
            pairs: the teacher's latents; which of them is drawn apart from all else.
            draws: of the step.
        """
        schedule = self.online.schedule
        _, x, label = pairs.batch(draws.integer("real", len(pairs)).cpu(), fake.device)
        t = 1 + draws.integer("t", schedule.T)
        real = self._features(add_noise(x, draws.normal("eps-real", x.shape[1:]), t, schedule), t, label)
        loss = logistic_critic_loss(self._answers(real), self._answers(fake))
        if self.adversary.r1:
            loss = loss + self.adversary.r1 / 2 * slope_penalty(self._answers, real)
        return self.adversary.body * loss

    def fool(self, x_hat: Tensor, z_t: Tensor, t: Tensor, label: Tensor) -> Tensor:
        """(2) times `weight`, (B,), which the maker of x_hat learns and neither head nor online model does.

        Args:
            x_hat: what the student drew, (B, C, H, W).
            z_t: the same noised to t (B,), without a gradient.
            label: conditions.
        """
        z_t = z_t.detach().requires_grad_()
        with torch.enable_grad():
            value = logistic_fooling_loss(self._answers(self._features(z_t, t, label)))
            (slope,) = torch.autograd.grad(value.sum(), z_t)
        alpha_t, _ = self.online.schedule(t, z_t)  # by which z_t moves with x_hat
        return self.adversary.weight * with_slope(value, alpha_t * slope, x_hat)

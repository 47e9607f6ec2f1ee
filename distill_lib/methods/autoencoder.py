"""Training the autoencoder in whose latents a model diffuses: reconstruction, features, and a critic of patches.

Rombach et al. 2022 (arXiv 2112.10752), section 3.1. One step trains both players: the decoder against the critic as it
is, the critic on reconstructions as they are, in one backward pass whose two halves share no gradient.
"""

from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise

import torch
from diffusers import AutoencoderKL
from torch import Tensor, nn
from torch.func import functional_call

from distill_lib.losses.reconstruction import critic_loss, fooling_loss, kl_loss, l1_loss, perceptual_loss
from distill_lib.precision import autocast
from distill_lib.store import Run
from distill_lib.training import Loop, Progress, Trainable, TrainSettings

__all__ = ["Critic", "Players", "build_autoencoder", "train_autoencoder"]


def build_autoencoder(
    channels: tuple[int, ...], latents: int = 4, layers: int = 1, norm_groups: int = 16
) -> AutoencoderKL:
    """diffusers' autoencoder; each level but the last halves the side."""
    levels = len(channels)
    return AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * levels,
        up_block_types=("UpDecoderBlock2D",) * levels,
        block_out_channels=channels,
        layers_per_block=layers,
        latent_channels=latents,
        norm_num_groups=norm_groups,
    )


class Critic(nn.Module):
    """Pictures (B, 3, R, R) -> one answer a patch of about 22 pixels, (B, 1, R/4, R/4)."""

    def __init__(self, width: int = 32) -> None:
        super().__init__()
        sizes = (3, width, 2 * width, 4 * width)
        layers: list[nn.Module] = []
        for level, (a, b) in enumerate(pairwise(sizes)):
            layers += [nn.Conv2d(a, b, 4 if level < 2 else 3, 2 if level < 2 else 1, 1), nn.LeakyReLU(0.2)]
        self.body = nn.Sequential(*layers, nn.Conv2d(sizes[-1], 1, 3, 1, 1))

    def forward(self, image: Tensor) -> Tensor:
        return self.body(image)


class Players(nn.Module):
    """An autoencoder and its critic, trained together."""

    def __init__(self, autoencoder: AutoencoderKL, critic: Critic) -> None:
        super().__init__()
        self.autoencoder, self.critic = autoencoder, critic

    def forward(self, x: Tensor, eps: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
        """x_hat, mean and log variance of the latents, the critic's answers to x, to x_hat fixed, and to x_hat."""
        latent = self.autoencoder.encode(x).latent_dist
        x_hat = self.autoencoder.decode(latent.mean + latent.std * eps).sample
        fixed = {name: value.detach() for name, value in self.critic.named_parameters()}
        answers = self.critic(x), self.critic(x_hat.detach()), functional_call(self.critic, fixed, (x_hat,))
        return x_hat, latent.mean, latent.logvar, *answers


def train_autoencoder(
    net: Trainable,
    features: Callable[[Tensor], Sequence[Tensor]],
    image: Tensor,
    settings: TrainSettings,
    run: Run,
    weights: tuple[float, float, float] = (0.5, 0.2, 1e-4),
    alone: int = 0,
) -> Iterator[Progress]:
    """Train net.module, `Players`, on pictures uint8 (N, 3, R, R).

    Args:
        net: the players.
        features: layers of a frozen network, for (2); of no network that measures anything.
        image: data.
        settings: of the training.
        run: where it is kept.
        weights: of the perceptual loss, of fooling the critic and of the divergence, beside 1 for the first.
        alone: steps before the critic has a say.
    """
    loop = Loop(net, settings, run)
    perceptual, fooling, divergence = weights
    for step, draws in loop:
        x = image[draws.integer("picture", len(image)).cpu()].to(loop.device).float() / 127.5 - 1
        autoencoder = net.module.autoencoder
        side = x.shape[-1] >> (len(autoencoder.config.block_out_channels) - 1)
        eps = draws.normal("eps", (autoencoder.config.latent_channels, side, side))
        with autocast(loop.device, settings.bf16):
            found = net.forward(x, eps)
            x_hat, mean, log_variance, real, fake, fooled = (part.float() for part in found)
            with torch.no_grad():
                seen = [layer.float() for layer in features(x)]
            seen_hat = [layer.float() for layer in features(x_hat)]
        loss = (
            l1_loss(x, x_hat) + perceptual * perceptual_loss(seen, seen_hat) + divergence * kl_loss(mean, log_variance)
        )
        if step >= alone:
            # Adam does not see the factor, the one bound on the gradients of both players does
            loss = loss + fooling * fooling_loss(fooled) + 0.1 * critic_loss(real, fake)
        yield loop.update(loss)

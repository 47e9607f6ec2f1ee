"""Training the autoencoder in whose latents a model diffuses: reconstruction, features, and a critic of patches.

    l1           |x - x_hat|                                                                                   (1)
    perceptual   mean over layers of |f_l(x) - f_l(x_hat)|^2, features of unit length at each place            (2)
    critic       max(0, 1 - D(x)) + max(0, 1 + D(x_hat))     what the critic D learns                          (3)
    fooling      -D(x_hat)                                   what the decoder learns from it                   (4)
    kl           |mean|^2 + var - log var - 1, halved        towards unit latents                              (5)
    coarse       |x pooled - x_hat pooled|                   squares of so many pixels, each by its mean       (6)

(2) is Zhang et al. 2018 (arXiv 1801.03924) without learned weights; (3) and (4) are the hinge form (Lim and Ye 2017,
arXiv 1705.02894); together with (1) and (5) the recipe of Rombach et al. 2022 (arXiv 2112.10752), section 3.1. (6) with
(4) is what SDXS (Song et al. 2024, arXiv 2403.16627), eq. 5, trains a tiny decoder by: colours and shapes are held to
those of the large decoder, texture only has to pass for its own.

One step trains both players: the decoder against the critic as it
is, the critic on reconstructions as they are, in one backward pass whose two halves share no gradient.
"""

from collections.abc import Callable, Iterator, Sequence

import torch
from diffusers import AutoencoderKL
from torch import Tensor
from torch.nn.functional import avg_pool2d, normalize, relu

from distill_lib.diffusion.errors import mean_square
from distill_lib.diffusion.pixels import to_unit
from distill_lib.engine.loop import Loop, Progress, TrainSettings
from distill_lib.engine.precision import autocast
from distill_lib.engine.store import Run
from distill_lib.engine.trainable import Together, Trainable
from distill_lib.networks.autoencoders import Critic


def _mean(x: Tensor) -> Tensor:
    return x.flatten(1).mean(1)


def l1_loss(x: Tensor, x_hat: Tensor) -> Tensor:
    """(1), one value a picture, (B,)."""
    return _mean((x - x_hat).abs())


def perceptual_loss(features: Sequence[Tensor], features_hat: Sequence[Tensor]) -> Tensor:
    """(2), (B,); layers (B, C, H, W) of the picture and of its reconstruction."""
    pairs = zip(features, features_hat, strict=True)
    return torch.stack([mean_square(normalize(a, dim=1) - normalize(b, dim=1)) * a.shape[1] for a, b in pairs]).mean(0)


def critic_loss(real: Tensor, fake: Tensor) -> Tensor:
    """(3), (B,); answers (B, 1, H, W) of the critic to pictures and to reconstructions without a gradient."""
    return _mean(relu(1 - real)) + _mean(relu(1 + fake))


def fooling_loss(fake: Tensor) -> Tensor:
    """(4), (B,); answers of a critic that is not trained by them."""
    return -_mean(fake)


def adversarial_loss(
    real: Tensor, fake: Tensor, fooled: Tensor, weight: float, penalty: Tensor | float = 0.0
) -> Tensor:
    """weight x (4) and 0.1 x (3), (B,), of the answers of `Critic.of_both`: what both players learn in one step.

    Adam does not see the factor of the critic, and each player has its own bound on gradients; the curve sees it.
    `penalty` (B,) on the critic is added to (3).
    """
    return weight * fooling_loss(fooled) + 0.1 * (critic_loss(real, fake) + penalty)


def kl_loss(mean: Tensor, log_variance: Tensor) -> Tensor:
    """(5), (B,), a mean over the latent's entries."""
    return _mean(mean.square() + log_variance.exp() - log_variance - 1) / 2


def coarse_loss(x: Tensor, x_hat: Tensor, factor: int = 8) -> Tensor:
    """(6), (B,), of pictures (B, 3, R, R) whose side `factor` divides; 1 makes it (1)."""
    return l1_loss(avg_pool2d(x, factor), avg_pool2d(x_hat, factor))


class Players(Together):
    """An autoencoder and its critic, trained together."""

    def __init__(self, autoencoder: AutoencoderKL, critic: Critic) -> None:
        super().__init__(autoencoder=autoencoder, critic=critic)

    def forward(self, x: Tensor, eps: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
        """x_hat, mean and log variance of the latents, the critic's answers to x, to x_hat fixed, and to x_hat."""
        latent = self.autoencoder.encode(x).latent_dist
        x_hat = self.autoencoder.decode(latent.mean + latent.std * eps).sample
        return x_hat, latent.mean, latent.logvar, *self.critic.of_both(x, x_hat)


def train_autoencoder(
    net: Trainable,
    features: Callable[[Tensor], Sequence[Tensor]],
    image: Tensor,
    settings: TrainSettings,
    run: Run,
    weights: tuple[float, float, float] = (0.5, 0.2, 1e-4),
    critic_start: int = 0,
) -> Iterator[Progress]:
    """Train net.module, `Players`, on pictures uint8 (N, 3, R, R).

    Args:
        features: layers of a frozen network, for (2); of no network that measures anything.
        weights: of the perceptual loss, of fooling the critic and of the divergence, beside 1 for the first.
        critic_start: steps before the critic has a say.
    """
    loop = Loop(net, settings, run)
    perceptual, fooling, divergence = weights
    for step, draws in loop:
        x = to_unit(image[draws.integer("picture", len(image)).cpu()].to(loop.device))
        autoencoder = net.module.autoencoder
        side = x.shape[-1] >> (len(autoencoder.config.block_out_channels) - 1)
        eps = draws.normal("eps", (autoencoder.config.latent_channels, side, side))
        with autocast(loop.device, settings.bf16):
            outputs = net.forward(x, eps)
            x_hat, mean, log_variance, real, fake, fooled = (part.float() for part in outputs)
            with torch.no_grad():
                seen = [layer.float() for layer in features(x)]
            seen_hat = [layer.float() for layer in features(x_hat)]
        loss = (
            l1_loss(x, x_hat) + perceptual * perceptual_loss(seen, seen_hat) + divergence * kl_loss(mean, log_variance)
        )
        if step >= critic_start:
            loss = loss + adversarial_loss(real, fake, fooled, fooling)
        yield loop.update(loss)

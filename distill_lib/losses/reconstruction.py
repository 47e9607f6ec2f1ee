"""What an autoencoder of pictures is trained by.

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
"""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d, normalize, relu

from distill_lib.losses.denoising import mean_square

__all__ = ["coarse_loss", "critic_loss", "fooling_loss", "kl_loss", "l1_loss", "perceptual_loss"]


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


def kl_loss(mean: Tensor, log_variance: Tensor) -> Tensor:
    """(5), (B,), a mean over the latent's entries."""
    return _mean(mean.square() + log_variance.exp() - log_variance - 1) / 2


def coarse_loss(x: Tensor, x_hat: Tensor, factor: int = 8) -> Tensor:
    """(6), (B,), of pictures (B, 3, R, R) whose side `factor` divides; 1 makes it (1)."""
    return l1_loss(avg_pool2d(x, factor), avg_pool2d(x_hat, factor))

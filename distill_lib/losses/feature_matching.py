"""Feature matching: structural similarity of feature maps of two pictures that come from the same noise.

    luminance  = (2 mu_a mu_b + c) / (mu_a^2 + mu_b^2 + c)
    structure  = (2 cov_ab + c) / (var_a + var_b + c)
    ssim_l     = mean over channels and windows of luminance x structure                                       (1)
    loss       = sum_l w_l (1 - ssim_l) / sum_l w_l                                                            (2)

SDXS (Song et al. 2024, arXiv 2403.16627), eq. 10, whose SSIM is a similarity: what is made small is 1 - SSIM. It says
neither whether statistics are taken over windows or over whole maps, nor the weights w_l; both are arguments. Those of
a whole map are as in DISTS (Ding et al. 2020, arXiv 2004.07728). SSIM was made for positive pictures: where means are
opposite, and structure is too, the product is positive.
"""

from collections.abc import Sequence
from functools import partial

import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d

__all__ = ["feature_matching_loss", "ssim"]


def ssim(a: Tensor, b: Tensor, window: int = 0, c: float = 1e-3) -> Tensor:
    """(1) of maps (B, C, H, W), one value a sample, (B,): 1 for equal maps, and never more.

    Args:
        a, b: the maps.
        window: side of the square windows, one at each place; 0: the whole map is one window.
        c: keeps the quotients apart from 0 / 0; small beside the variance of a feature.
    """
    kept = torch.promote_types(a.dtype, torch.float32)  # half precision loses the variance
    a, b = a.to(kept), b.to(kept)
    size = tuple(min(window or side, side) for side in a.shape[-2:])
    mean = partial(avg_pool2d, kernel_size=size, stride=1)
    mu_a, mu_b = mean(a), mean(b)
    var_a, var_b = mean(a * a) - mu_a**2, mean(b * b) - mu_b**2
    cov = mean(a * b) - mu_a * mu_b
    luminance = (2 * mu_a * mu_b + c) / (mu_a**2 + mu_b**2 + c)
    structure = (2 * cov + c) / (var_a + var_b + c)
    return (luminance * structure).flatten(1).mean(1)


def feature_matching_loss(
    features: Sequence[Tensor],
    wanted: Sequence[Tensor],
    weights: Sequence[float] | None = None,
    window: int = 0,
) -> Tensor:
    """(2), (B,), in [0, 2]; layers (B, C_l, H_l, W_l) of what was drawn and of what should have been.

    Args:
        features, wanted: layer by layer.
        weights: w_l, one a layer; None: all alike.
        window: as in `ssim`.

    Raises:
        ValueError: there are not as many weights as layers.
    """
    weights = [1.0] * len(features) if weights is None else list(weights)
    if not len(weights) == len(features) == len(wanted):
        raise ValueError(f"{len(weights)} weights for {len(features)} layers beside {len(wanted)}")
    parts = [w * (1 - ssim(a, b, window)) for w, a, b in zip(weights, features, wanted, strict=True)]
    return torch.stack(parts).sum(0) / sum(weights)

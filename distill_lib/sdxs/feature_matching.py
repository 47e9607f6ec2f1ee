"""Feature matching (eq. 10): structural similarity of feature maps of two pictures from the same noise.

    luminance  = (2 mu_a mu_b + c) / (mu_a^2 + mu_b^2 + c)
    structure  = (2 cov_ab + c) / (var_a + var_b + c)
    ssim_l     = mean over channels and windows of luminance x structure                                       (1)
    loss       = sum_l w_l (1 - ssim_l) / sum_l w_l                                                            (2)

SDXS (Song et al. 2024, arXiv 2403.16627), eq. 10, whose SSIM is a similarity: what is made small is 1 - SSIM. It says
neither whether statistics are taken over windows or over whole maps, nor the weights w_l; both are arguments. Those of
a whole map are as in DISTS (Ding et al. 2020, arXiv 2004.07728); they say little of where a fine layer has its detail,
which windows do. SSIM was made for positive pictures: where means are opposite, and structure is too, the product is
positive.

`one_step_loss` gives it and what it stands beside, as an encoder sees latents and pictures (`views`). A loss that holds
networks or settings is a frozen dataclass, a function or a partial of one, so that a run that it trains is known by all
of them (`specs`): none can be forgotten.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn.functional import avg_pool2d

from distill_lib.diffusion.errors import mean_square
from distill_lib.networks.adapter import Network
from distill_lib.networks.pruning import stages, tapped
from distill_lib.sdxs.one_step import Matching, square_loss
from distill_lib.teachers.autoencoder import l1_loss, perceptual_loss


def ssim(a: Tensor, b: Tensor, window: int = 0, c: float = 1e-3) -> Tensor:
    """(1) of maps (B, C, H, W), one value per sample, (B,): 1 for equal maps, and never more.

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
    window: int | Sequence[int] = 0,
) -> Tensor:
    """(2), (B,), in [0, 2]; layers (B, C_l, H_l, W_l) of what was drawn and of what should have been.

    Args:
        features, wanted: layer by layer.
        weights: w_l, one a layer; None: all alike.
        window: as in `ssim`, of all layers or one a layer.

    Raises:
        ValueError: there are not as many weights, or windows, as layers.
    """
    weights = [1.0] * len(features) if weights is None else list(weights)
    windows = [window] * len(features) if isinstance(window, int) else list(window)
    if not len(weights) == len(windows) == len(features) == len(wanted):
        given = f"{len(weights)} weights and {len(windows)} windows"
        raise ValueError(f"{given} for {len(features)} layers beside {len(wanted)}")
    layers = zip(weights, windows, features, wanted, strict=True)
    parts = [w * (1 - ssim(a, b, side)) for w, side, a, b in layers]
    return torch.stack(parts).sum(0) / sum(weights)


ONE_STEP_LOSSES = ("square", "l1", "perceptual", "lpips", "matching")
"""What a one-step student is held to; all but the first two see pictures through a matcher."""
View = Callable[[Tensor], Sequence[Tensor]]
"""Latents (B, C, H, W) -> layers of features (B, C_l, H_l, W_l)."""


@dataclass(frozen=True)
class ByMatcher:
    """Latents (B, C, H, W) -> layers of a matcher's features (B, C_l, H_l, W_l) of the picture that `decode` makes.

    With `picture` the first layer is the picture itself, (B, 3, R, R) in [0, 1], where SSIM has its meaning.
    """

    matcher: nn.Module
    decode: Callable[[Tensor], Tensor]
    picture: bool = False

    def __call__(self, x: Tensor) -> Sequence[Tensor]:
        image = self.decode(x)
        first = [(image.float() + 1) / 2] if self.picture else []
        return first + [layer.float() for layer in self.matcher.layers(image)]


@dataclass(frozen=True)
class ByUnet:
    """Latents (B, C, H, W) -> features (B, C_l, H_l, W_l) of the down stages of a U-Net under the empty prompt."""

    teacher: Network

    def __call__(self, x: Tensor) -> Sequence[Tensor]:
        down = list(stages(self.teacher.module))[: len(self.teacher.module.down_blocks)]
        null = self.teacher.null.to(x.device).expand(len(x), -1, -1)
        with tapped(down) as features:
            self.teacher(x, torch.ones(len(x), dtype=torch.long, device=x.device), null)
        return [layer.float() for layer in features]


@dataclass(frozen=True)
class SeenLoss:
    """What latents x_hat cost beside x (B, C, H, W) as they are seen, (B,); no gradient reaches x.

    compare: of layers of features of both, (B,). see, wanted: how the student's and the teacher's latents are seen.
    """

    compare: Callable[[Sequence[Tensor], Sequence[Tensor]], Tensor]
    see: View
    wanted: View

    def __call__(self, x_hat: Tensor, x: Tensor) -> Tensor:
        with torch.no_grad():
            target = self.wanted(x)
        return self.compare(self.see(x_hat), target)


def _square_of_layers(features: Sequence[Tensor], wanted: Sequence[Tensor]) -> Tensor:
    return torch.stack([mean_square(a - b) for a, b in zip(features, wanted, strict=True)]).mean(0)


def views(
    encoder: str,
    matcher: nn.Module | None,
    teacher: Network,
    decode: Callable[[Tensor], Tensor],
    picture: bool = False,
) -> View:
    """How an encoder sees latents: a matcher by the picture that `decode` makes of them, "unet" as they are.

    "unet" is the encoder half of the teacher's own U-Net, evaluated at the lowest noise level under the empty prompt.
    With `picture` a matcher's first layer is the picture itself.

    Raises:
        ValueError: an encoder other than "unet" needs its matcher.
    """
    if encoder != "unet":
        if matcher is None:
            raise ValueError(f"encoder={encoder!r} needs its matcher")
        return ByMatcher(matcher, decode, picture)
    return ByUnet(teacher)


def one_step_loss(
    loss: str,
    see: View | None = None,
    wanted: View | None = None,
    window: int | Sequence[int] = 0,
    weights: Sequence[float] | None = None,
) -> Matching:
    """What x_hat costs beside x: a loss of ONE_STEP_LOSSES.

    Args:
        loss: "square" and "l1" compare latents, the others features: "perceptual" by their squares, "lpips" after each
            place is brought to unit length, "matching" by structural similarity, eq. 10.
        see, wanted: how the student's and the teacher's latents are seen; `wanted` is `see` unless given.
        window, weights: of "matching", as in `sdxs.feature_matching.feature_matching_loss`.

    Raises:
        ValueError: the loss is unknown, or lacks features.
    """
    if loss not in ONE_STEP_LOSSES:
        raise ValueError(f"loss={loss!r} is unknown; choose one of {', '.join(ONE_STEP_LOSSES)}")
    if loss in ("square", "l1"):
        return {"square": square_loss, "l1": l1_loss}[loss]
    if see is None:
        raise ValueError(f"loss={loss!r} compares features; say how latents are seen")
    compare = {
        "perceptual": _square_of_layers,
        "lpips": perceptual_loss,
        "matching": partial(feature_matching_loss, weights=weights, window=window),
    }[loss]

    return SeenLoss(compare, see, wanted or see)

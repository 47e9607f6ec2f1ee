"""What a student's latents and pictures cost beside the teacher's, as an encoder sees them.

    pictures of a tiny decoder      SDXS, eq. 5, and what it stands beside          `decoder_loss`
    latents of a one-step student   eq. 10, and what it stands beside               `one_step_loss`

Song et al. 2024 (arXiv 2403.16627). A loss that holds networks or settings is a frozen dataclass, a function or a
partial of one, so that a run that it trains is known by all of them (`specs`): none can be forgotten.
"""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from diffusers import AutoencoderTiny
from torch import Tensor, nn

from distill_lib.extractor import weights_name
from distill_lib.losses.denoising import mean_square
from distill_lib.losses.feature_matching import feature_matching_loss
from distill_lib.losses.one_step import square_loss
from distill_lib.losses.reconstruction import coarse_loss, l1_loss, perceptual_loss
from distill_lib.methods.pair_regression import Pairs
from distill_lib.models import Network
from distill_lib.pipelines import TextToImage
from distill_lib.precision import autocast
from distill_lib.pruning import stages, tapped
from distill_lib.store import cached

__all__ = [
    "DECODER_LOSSES",
    "ONE_STEP_LOSSES",
    "ByMatcher",
    "ByUnet",
    "FeatureDistance",
    "Matching",
    "Remembered",
    "SeenLoss",
    "TinyDecode",
    "View",
    "decoded",
    "decoder_loss",
    "one_step_loss",
    "views",
]

DECODER_LOSSES = ("coarse", "l1", "square", "features")
"""What a tiny decoder is held to: eq. 5's squares of pixels, every pixel by its difference or its square, or pixels and
features of a matcher."""
ONE_STEP_LOSSES = ("square", "l1", "perceptual", "lpips", "matching")
"""What a one-step student is held to; all but the first two see pictures through a matcher."""
View = Callable[[Tensor], Sequence[Tensor]]
"""Latents (B, C, H, W) -> layers of features (B, C_l, H_l, W_l)."""
Matching = Callable[[Tensor, Tensor], Tensor]
"""Latents x_hat and x (B, C, H, W) -> what their difference costs, (B,)."""


@dataclass(frozen=True)
class TinyDecode:
    """A tiny decoder in the place of `Network.decode`: latents (B, C, H, W) -> pictures (B, 3, R, R) in [-1, 1]."""

    tiny: AutoencoderTiny
    bf16: bool | None = None

    @property
    def name(self) -> str:
        """By its weights, for caches."""
        return weights_name(self.tiny.decoder, "tiny")

    def __call__(self, z: Tensor) -> Tensor:
        device = next(self.tiny.parameters()).device
        with autocast(device, self.bf16):
            return self.tiny.decoder(z.to(device)).float()


def decoded(pairs: Pairs) -> Tensor:
    """What the teacher's decoder makes of pairs, uint8 (N, 3, R, R); kept in a cache."""
    told = pairs.told
    spec = {
        "told": told.fingerprint,
        "bf16": told.network.bf16,
        "x": hashlib.sha256(pairs.x.contiguous().numpy().tobytes()).hexdigest(),
    }
    make = lambda: {"image": torch.cat([told.pictures(z.float()).cpu() for z in pairs.x.split(64)])}  # noqa: E731
    return cached("decoded", spec, make, TextToImage)["image"]


class Remembered:
    """The teacher's decoder for the latents of pairs, which it has decoded once; others it is asked for anew.

    Students that differ in one choice all meet the same pairs, and the large decoder takes longer than a student.
    Pictures (B, 3, R, R) are in [-1, 1] as everywhere, but of whole bytes.
    """

    def __init__(self, pairs: Pairs) -> None:
        self.decode = pairs.told.network.decode
        self._image = decoded(pairs)
        self.spec = {"told": pairs.told, "x": pairs.x}
        self._where = {key: number for number, key in enumerate(map(_bytes_of, pairs.x))}

    def __call__(self, z: Tensor) -> Tensor:
        found = [self._where.get(_bytes_of(one)) for one in z]
        if None in found:
            return self.decode(z)
        return self._image[found].to(z.device).float() / 127.5 - 1


def _bytes_of(z: Tensor) -> bytes:
    return z.cpu().half().numpy().tobytes()  # pairs are kept in half precision


@dataclass(frozen=True)
class FeatureDistance:
    """|x - x_hat| and `weight` times the perceptual loss on features of a matcher, (B,), of pictures (B, 3, R, R)."""

    matcher: nn.Module
    weight: float = 0.1

    def __call__(self, x: Tensor, x_hat: Tensor) -> Tensor:
        seen, seen_hat = ([layer.float() for layer in self.matcher.layers(image)] for image in (x, x_hat))
        return l1_loss(x, x_hat) + self.weight * perceptual_loss(seen, seen_hat)


def decoder_loss(loss: str, factor: int, matcher: nn.Module | None) -> Callable[[Tensor, Tensor], Tensor]:
    """distance(x, x_hat) -> (B,) of pictures (B, 3, R, R): a loss of DECODER_LOSSES.

    Args:
        loss: its name.
        factor: side of the squares of "coarse".
        matcher: for "features".

    Raises:
        ValueError: the loss is unknown, or lacks its matcher.
    """
    if loss not in DECODER_LOSSES:
        raise ValueError(f"loss={loss!r} is unknown; choose one of {', '.join(DECODER_LOSSES)}")
    if loss == "features":
        if matcher is None:
            raise ValueError("loss='features' needs a matcher, whose features the pictures are compared by")
        return FeatureDistance(matcher)
    return {"coarse": partial(coarse_loss, factor=factor), "l1": l1_loss, "square": square_loss}[loss]


@dataclass(frozen=True)
class ByMatcher:
    """Latents (B, C, H, W) -> layers of a matcher's features (B, C_l, H_l, W_l) of the picture that `decode` makes."""

    matcher: nn.Module
    decode: Callable[[Tensor], Tensor]

    def __call__(self, x: Tensor) -> Sequence[Tensor]:
        return [layer.float() for layer in self.matcher.layers(self.decode(x))]


@dataclass(frozen=True)
class ByUnet:
    """Latents (B, C, H, W) -> features (B, C_l, H_l, W_l) of the down stages of a U-Net that is told of no prompt."""

    teacher: Network

    def __call__(self, x: Tensor) -> Sequence[Tensor]:
        down = list(stages(self.teacher.module))[: len(self.teacher.module.down_blocks)]
        null = self.teacher.null.to(x.device).expand(len(x), -1, -1)
        with tapped(down) as found:
            self.teacher(x, torch.ones(len(x), dtype=torch.long, device=x.device), null)
        return [layer.float() for layer in found]


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


def views(encoder: str, matcher: nn.Module | None, teacher: Network, decode: Callable[[Tensor], Tensor]) -> View:
    """How an encoder sees latents: a matcher by the picture that `decode` makes of them, "unet" as they are.

    "unet" is the encoder half of the teacher's own U-Net, asked at the lowest noise level and for no prompt.

    Raises:
        ValueError: an encoder other than "unet" needs its matcher.
    """
    if encoder != "unet":
        if matcher is None:
            raise ValueError(f"encoder={encoder!r} needs its matcher")
        return ByMatcher(matcher, decode)
    return ByUnet(teacher)


def one_step_loss(
    loss: str,
    see: View | None = None,
    wanted: View | None = None,
    window: int = 0,
    weights: Sequence[float] | None = None,
) -> Matching:
    """What x_hat costs beside x: a loss of ONE_STEP_LOSSES.

    Args:
        loss: "square" and "l1" compare latents, the others features: "perceptual" by their squares, "lpips" after each
            place is brought to unit length, "matching" by structural similarity, eq. 10.
        see, wanted: how the student's and the teacher's latents are seen; `wanted` is `see` unless given.
        window, weights: of "matching", as in `losses.feature_matching.feature_matching_loss`.

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

"""The parts of SDXS on a pipeline of the shape of Stable Diffusion, as recipes and notebooks train them.

    decoder     a tiny one learns the large one, on the teacher's own latents     eq. 5        methods.tiny_decoder
    U-Net       cut, then taught by the large one's answers and features          eqs. 6 to 8  .unet_distillation
    one step    feature matching alone                                            eq. 10       .pair_regression
                segmented score distillation                                      Alg. 1       .score_distillation
    texture     an adapter of very low rank against a projected critic            sec. 3.3     .adversarial_tuning

Song et al. 2024 (arXiv 2403.16627). Data-free: what goes in is prompts, noise, and what the teacher makes of them
(`Pairs`); no picture of the world is ever drawn. The matchers have seen such pictures, as the VGG of the paper has seen
photographs.
"""

import copy
import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from diffusers import AutoencoderTiny
from torch import Tensor, nn

from distill_lib.extractor import weights_name
from distill_lib.losses.denoising import mean_square
from distill_lib.losses.feature_matching import feature_matching_loss
from distill_lib.losses.one_step import square_loss
from distill_lib.losses.reconstruction import coarse_loss, l1_loss, perceptual_loss
from distill_lib.methods.adversarial_tuning import (
    ProjectedCritic,
    Tuned,
    add_low_rank,
    merge_low_rank,
    tune_adversarially,
)
from distill_lib.methods.autoencoder import Critic
from distill_lib.methods.pair_regression import Pairs, train_on_pairs
from distill_lib.methods.score_distillation import Segment, Team, distill_scores
from distill_lib.methods.step_halving import Halved
from distill_lib.methods.tiny_decoder import TinyPlayers, build_tiny, train_tiny_decoder
from distill_lib.methods.unet_distillation import distill_unet
from distill_lib.models import Network
from distill_lib.pipelines import Latents, TextToImage
from distill_lib.precision import autocast
from distill_lib.pruning import Cut, prune, stages, tapped
from distill_lib.store import Run, cached
from distill_lib.training import Bare, TrainSettings, finish

__all__ = [
    "CUT",
    "DECODER_LOSSES",
    "ONE_STEP_LOSSES",
    "Matching",
    "Remembered",
    "TinyDecode",
    "cut_network",
    "decoded",
    "one_step_loss",
    "regressed",
    "scored",
    "small_unet",
    "textured",
    "tiny_decoder",
    "views",
]

CUT = Cut(middle="removed", innermost=True, finest=True)
"""What SDXS removes of Stable Diffusion, but for units: ours has one a stage already."""
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
    spec = {"told": told.fingerprint, "x": hashlib.sha256(pairs.x.contiguous().numpy().tobytes()).hexdigest()}
    spec |= {"bf16": told.network.bf16}
    make = lambda: {"image": torch.cat([told.pictures(z.float()).cpu() for z in pairs.x.split(64)])}  # noqa: E731
    return cached("decoded", spec, make, "distill_lib.pipelines")["image"]


class Remembered:
    """The teacher's decoder for the latents of pairs, which it has decoded once; others it is asked for anew.

    Students that differ in one choice all meet the same pairs, and the large decoder takes longer than a student.
    Pictures (B, 3, R, R) are in [-1, 1] as everywhere, but of whole bytes.
    """

    def __init__(self, pairs: Pairs) -> None:
        self.decode = pairs.told.network.decode
        self._image = decoded(pairs)
        self._where = {key: number for number, key in enumerate(map(_bytes_of, pairs.x))}

    def __call__(self, z: Tensor) -> Tensor:
        found = [self._where.get(_bytes_of(one)) for one in z]
        if None in found:
            return self.decode(z)
        return self._image[found].to(z.device).float() / 127.5 - 1


def _bytes_of(z: Tensor) -> bytes:
    return z.cpu().half().numpy().tobytes()  # pairs are kept in half precision


def _decoder_loss(loss: str, factor: int, matcher: nn.Module | None) -> Callable[[Tensor, Tensor], Tensor]:
    if loss not in DECODER_LOSSES:
        raise ValueError(f"loss={loss!r} is unknown; choose one of {', '.join(DECODER_LOSSES)}")
    if loss == "features":
        if matcher is None:
            raise ValueError("loss='features' needs a matcher, whose features the pictures are compared by")
        see = lambda image: [layer.float() for layer in matcher.layers(image)]  # noqa: E731
        return lambda x, x_hat: l1_loss(x, x_hat) + 0.1 * perceptual_loss(see(x), see(x_hat))
    return {
        "coarse": partial(coarse_loss, factor=factor),
        "l1": l1_loss,
        "square": lambda x, x_hat: mean_square(x - x_hat),
    }[loss]


def tiny_decoder(
    pairs: Pairs,
    parents: dict[str, str],
    settings: TrainSettings,
    *,
    loss: str = "coarse",
    factor: int = 4,
    fooling: float = 0.05,
    alone: int = 0,
    width: int = 32,
    blocks: int = 2,
    matcher: nn.Module | None = None,
) -> tuple[AutoencoderTiny, list[tuple[float, float]], Run]:
    """A tiny decoder for the latents of pairs, its curve and its run.

    Differs from the paper: squares of eq. 5 are of `factor` pixels, which is what a latent covers here; the paper's are
    of 8, which is what one of Stable Diffusion covers.

    Args:
        pairs: of the teacher.
        parents: keys of what the training rests on, by name.
        settings: of the training.
        loss: one of DECODER_LOSSES.
        factor: side of the squares of "coarse".
        fooling: weight of fooling the critic; 0 leaves it out.
        alone: steps before the critic has a say.
        width, blocks: of the decoder, as in `methods.tiny_decoder.build_tiny`.
        matcher: for "features".

    Raises:
        ValueError: the loss is unknown, or lacks its matcher.
    """
    distance = _decoder_loss(loss, factor, matcher)
    torch.manual_seed(settings.seed)
    levels = len(pairs.told.pipe.vae.config.block_out_channels)
    tiny = build_tiny(levels, width, blocks, pairs.x.shape[1])
    players = TinyPlayers(tiny, Critic())
    how = {"loss": loss, "factor": factor, "fooling": fooling, "alone": alone, "width": width, "blocks": blocks}
    config = {"settings": settings, "pairs": len(pairs)} | how | parents
    run = Run("tiny-decoder", config, "distill_lib.methods.tiny_decoder", "distill_lib.matchers")
    net = Bare(players)
    training = train_tiny_decoder(net, pairs.x, decoded(pairs), settings, run, distance, fooling, alone)
    curve = finish(net, training, run, f"tiny decoder, {loss}")
    return tiny, curve, run


def cut_network(told: TextToImage, inherit: bool = True, seed: int = 0) -> Network:
    """The U-Net of a pipeline after `CUT`, ready to be trained, with the teacher's weights or with random ones."""
    torch.manual_seed(seed)
    small = prune(told.network.module, CUT, inherit).requires_grad_(True)
    return told.network.like(small)


def small_unet(
    pairs: Pairs,
    parents: dict[str, str],
    settings: TrainSettings,
    *,
    inherit: bool = True,
    lambda_f: float = 1.0,
    denoising: float = 0.0,
) -> Halved:
    """A cut U-Net taught by the whole one on the teacher's own latents, eqs. 6 to 8; arguments as in `distill_unet`."""
    told = pairs.told
    student = cut_network(told, inherit, settings.seed)
    how = {"inherit": inherit, "lambda_f": lambda_f, "denoising": denoising, "cut": CUT}
    config = {"settings": settings, "pairs": len(pairs)} | how | parents
    run = Run("small-unet", config, "distill_lib.methods.unet_distillation")
    data = Latents(pairs.x, pairs.prompts, told)
    training = distill_unet(student, told.network, data, settings, run, lambda_f, denoising)
    return Halved(student, finish(student, training, run, "small U-Net"), run)


def views(encoder: str, matcher: nn.Module | None, teacher: Network, decode: Callable[[Tensor], Tensor]) -> View:
    """How an encoder sees latents: a matcher by the picture that `decode` makes of them, "unet" as they are.

    "unet" is the encoder half of the teacher's own U-Net, asked at the lowest noise level and for no prompt.

    Raises:
        ValueError: an encoder other than "unet" needs its matcher.
    """
    if encoder != "unet":
        if matcher is None:
            raise ValueError(f"encoder={encoder!r} needs its matcher")
        return lambda x: [layer.float() for layer in matcher.layers(decode(x))]
    down = list(stages(teacher.module))[: len(teacher.module.down_blocks)]

    def see(x: Tensor) -> Sequence[Tensor]:
        null = teacher.null.to(x.device).expand(len(x), -1, -1)
        with tapped(down) as found:
            teacher(x, torch.ones(len(x), dtype=torch.long, device=x.device), null)
        return [layer.float() for layer in found]

    return see


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
        "perceptual": lambda a, b: torch.stack([mean_square(x - y) for x, y in zip(a, b, strict=True)]).mean(0),
        "lpips": perceptual_loss,
        "matching": partial(feature_matching_loss, weights=weights, window=window),
    }[loss]

    def cost(x_hat: Tensor, x: Tensor) -> Tensor:
        with torch.no_grad():
            target = (wanted or see)(x)
        return compare(see(x_hat), target)

    return cost


def regressed(student: Network, pairs: Pairs, cost: Matching, about: dict[str, Any], settings: TrainSettings) -> Halved:
    """A student trained on pairs to one step by a loss; `about` says what tells this training from others."""
    config = {"settings": settings, "pairs": len(pairs)} | about
    run = Run("one-step", config, "distill_lib.methods.pair_regression", __name__)
    title = f"one step, {about.get('loss', '')}"
    return Halved(student, finish(student, train_on_pairs(student, pairs, settings, run, cost), run, title), run)


def scored(
    student: Network,
    pairs: Pairs,
    cost: Matching,
    about: dict[str, Any],
    settings: TrainSettings,
    *,
    segment: Segment,
    w: float,
    **how: Any,
) -> Halved:
    """A student after Algorithm 1; the offline model is the teacher, and the online one starts as its copy.

    Args:
        student: one step; the same object is trained.
        pairs, cost, about, settings: as in `regressed`; `cost` is lambda_FM's.
        segment, w, how: as in `methods.score_distillation.distill_scores`.
    """
    teacher = pairs.told.network
    online = teacher.like(copy.deepcopy(teacher.module).requires_grad_(True))
    student.module.requires_grad_(True)
    team = Team(student, online)
    config = {"settings": settings, "pairs": len(pairs), "segment": segment, "w": w} | how | about
    run = Run("scored", config, "distill_lib.methods.score_distillation", __name__)
    training = distill_scores(team, teacher, pairs, settings, run, matching=cost, segment=segment, w=w, **how)
    curve = finish(team, training, run, "score distillation")
    return Halved(student, curve, run)


def textured(
    student: Network, pairs: Pairs, see: View, about: dict[str, Any], settings: TrainSettings, rank: int = 1
) -> Halved:
    """A student after adversarial tuning of an adapter of a rank, which is merged into its weights.

    Args:
        student: the same object is trained.
        pairs, about, settings: as in `regressed`.
        see: features of pictures (B, 3, R, R), which the critic reads.
        rank: of the adapter.
    """
    with torch.no_grad():
        channels = [layer.shape[1] for layer in see(student.decode(pairs.x[:1].float()))]
    torch.manual_seed(settings.seed)
    add_low_rank(student, rank)
    tuned = Tuned(student, ProjectedCritic(channels))
    config = {"settings": settings, "pairs": len(pairs), "rank": rank} | about
    run = Run("textured", config, "distill_lib.methods.adversarial_tuning", __name__)
    curve = finish(tuned, tune_adversarially(tuned, see, pairs, settings, run), run, "adversarial tuning")
    merge_low_rank(student)
    return Halved(student, curve, run)

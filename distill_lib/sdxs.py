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
from typing import Any

import torch
from diffusers import AutoencoderTiny
from torch import nn

from distill_lib.matchers import ConvMatcher
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
from distill_lib.pruning import Cut, prune
from distill_lib.seeing import (
    DECODER_LOSSES,
    ONE_STEP_LOSSES,
    Matching,
    Remembered,
    TinyDecode,
    View,
    decoded,
    decoder_loss,
    one_step_loss,
    views,
)
from distill_lib.store import Run
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
    distance = decoder_loss(loss, factor, matcher)
    torch.manual_seed(settings.seed)
    levels = len(pairs.told.pipe.vae.config.block_out_channels)
    tiny = build_tiny(levels, width, blocks, pairs.x.shape[1])
    players = TinyPlayers(tiny, Critic())
    how = {"distance": distance, "fooling": fooling, "alone": alone, "players": players}
    config = {"settings": settings, "pairs": pairs} | how | parents
    run = Run("tiny-decoder", config, tiny_decoder, ConvMatcher)
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
    config = {"settings": settings, "pairs": pairs, "student": student} | how | parents
    run = Run("small-unet", config, small_unet)
    data = Latents(pairs.x, pairs.prompts, told)
    training = distill_unet(student, told.network, data, settings, run, lambda_f, denoising)
    return Halved(student, finish(student, training, run, "small U-Net"), run)


def regressed(student: Network, pairs: Pairs, cost: Matching, about: dict[str, Any], settings: TrainSettings) -> Halved:
    """A student trained on pairs to one step by a loss, which the key holds as `specs.spec_of` says.

    `about` names what the training rests on besides student, pairs, loss and settings.
    """
    config = {"settings": settings, "pairs": pairs, "student": student, "cost": cost} | about
    run = Run("one-step", config, regressed)
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
    config = {"settings": settings, "pairs": pairs, "student": student, "cost": cost, "segment": segment, "w": w}
    config |= how | about
    run = Run("scored", config, scored)
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
    config = {"settings": settings, "pairs": pairs, "student": student, "see": see, "rank": rank} | about
    torch.manual_seed(settings.seed)
    add_low_rank(student, rank)
    tuned = Tuned(student, ProjectedCritic(channels))
    run = Run("textured", config, textured)
    curve = finish(tuned, tune_adversarially(tuned, see, pairs, settings, run), run, "adversarial tuning")
    merge_low_rank(student)
    return Halved(student, curve, run)

"""A tiny decoder learns from a large one what latents look like (eq. 5).

SDXS (Song et al. 2024, arXiv 2403.16627), eq. 5 and Fig. 2a. Data-free: the latents are a diffusion model's own, and
the pictures are what its decoder makes of them. The student is diffusers' AutoencoderTiny, convolutions without
attention and without normalisation.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial

import torch
from diffusers import AutoencoderTiny
from torch import Tensor, nn
from torch.nn.functional import avg_pool2d, interpolate

from distill_lib.diffusion.pixels import to_unit
from distill_lib.engine.loop import Loop, Progress, TrainSettings, finish
from distill_lib.engine.precision import autocast
from distill_lib.engine.store import Run
from distill_lib.engine.trainable import Bare, Together, Trainable
from distill_lib.networks.autoencoders import Critic, build_tiny
from distill_lib.sdxs.critics import UNBOUND, PatchCritic, slope_penalty
from distill_lib.sdxs.matchers import ConvMatcher
from distill_lib.sdxs.one_step import square_loss
from distill_lib.teachers.autoencoder import adversarial_loss, coarse_loss, l1_loss, perceptual_loss
from distill_lib.teachers.latents import Pairs, decoded


class TinyPlayers(Together):
    """A tiny decoder and a critic, trained together.

    With `factor` the critic is conditioned on means of squares of so many pixels, and has three channels for them.
    """

    def __init__(self, tiny: AutoencoderTiny, critic: Critic, factor: int = 0) -> None:
        super().__init__(decoder=tiny.decoder, critic=critic)
        self.factor = factor

    def condition(self, x: Tensor) -> tuple[Tensor, ...]:
        """What the critic reads beside a picture: the teacher's x (B, 3, R, R), pooled, at its size again."""
        return (interpolate(avg_pool2d(x, self.factor), scale_factor=self.factor),) if self.factor else ()

    def forward(self, z: Tensor, x: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """x_hat, and the critic's answers to x, to x_hat fixed, and to x_hat."""
        x_hat = self.decoder(z)
        return x_hat, *self.critic.of_both(x, x_hat, *self.condition(x))

    def penalty(self, x: Tensor) -> Tensor:
        """`critics.slope_penalty` of the critic at the teacher's pictures x, (B,)."""
        return slope_penalty(lambda image: self.critic(image, *self.condition(x)), x)


def train_tiny_decoder(
    net: Trainable,
    z: Tensor,
    image: Tensor,
    settings: TrainSettings,
    run: Run,
    distance: Callable[[Tensor, Tensor], Tensor] = coarse_loss,
    fooling: float = 0.1,
    critic_start: int = 0,
    critic: PatchCritic = UNBOUND,
) -> Iterator[Progress]:
    """Train net.module, `TinyPlayers`, on latents z (N, C, H, W) and the large decoder's pictures uint8 (N, 3, R, R).

    Args:
        distance: distance(x, x_hat) -> (B,): (6) of `teachers.autoencoder` as in the paper, or what it stands beside.
        fooling: weight of fooling the critic, lambda_GAN; the paper gives none. 0 leaves the critic out.
        critic_start: steps before the critic has a say.
        critic: the penalty on its slope; what it reads is known by net.module.
    """
    loop = Loop(net, settings, run)
    for step, draws in loop:
        index = draws.integer("picture", len(image)).cpu()
        x = to_unit(image[index].to(loop.device))
        with autocast(loop.device, settings.bf16):
            x_hat, real, fake, fooled = (part.float() for part in net.forward(z[index].to(loop.device).float(), x))
        loss = distance(x, x_hat)
        if fooling and step >= critic_start:
            due = critic.r1 and step % critic.every == 0
            penalty = critic.every * critic.r1 / 2 * net.module.penalty(x) if due else 0.0
            loss = loss + adversarial_loss(real, fake, fooled, fooling, penalty)
        yield loop.update(loss)


DECODER_LOSSES = ("coarse", "l1", "square", "features")
"""What a tiny decoder is held to: eq. 5's squares of pixels, every pixel by its difference or its square, or pixels and
features of a matcher."""


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


def tiny_decoder(
    pairs: Pairs,
    parents: dict[str, str],
    settings: TrainSettings,
    *,
    loss: str = "coarse",
    factor: int = 4,
    fooling: float = 0.05,
    critic_start: int = 0,
    critic: PatchCritic = UNBOUND,
    width: int = 32,
    blocks: int = 2,
    matcher: nn.Module | None = None,
) -> tuple[AutoencoderTiny, list[tuple[float, float]], Run]:
    """A tiny decoder for the latents of pairs, its curve and its run.

    Differs from the paper: squares of eq. 5 are of `factor` pixels, which is what a latent covers here; the paper's are
    of 8, which is what one of Stable Diffusion covers. The critic may read the pooled picture and be held back by a
    penalty, of which the paper says nothing; eq. 5 stays the loss.

    Args:
        parents: keys of what the training rests on, by name.
        loss: one of DECODER_LOSSES.
        factor: side of the squares of "coarse".
        fooling: weight of fooling the critic; 0 leaves it out.
        critic_start: steps before the critic has a say.
        critic: how it is held back, and whether it reads the pooled picture.
        width, blocks: of the decoder, as in `networks.autoencoders.build_tiny`.
        matcher: for "features".

    Raises:
        ValueError: the loss is unknown, or lacks its matcher.
    """
    distance = decoder_loss(loss, factor, matcher)
    torch.manual_seed(settings.seed)
    levels = len(pairs.model.pipe.vae.config.block_out_channels)
    tiny = build_tiny(levels, width, blocks, pairs.x.shape[1])
    players = TinyPlayers(tiny, Critic(given=3), factor) if critic.conditioned else TinyPlayers(tiny, Critic())
    options = {"distance": distance, "fooling": fooling, "critic_start": critic_start, "players": players}
    options |= {"critic": critic, "factor": players.factor}
    config = {"settings": settings, "pairs": pairs} | options | parents
    run = Run("tiny-decoder", config, tiny_decoder, ConvMatcher)
    net = Bare(players)
    image = decoded(pairs)
    training = train_tiny_decoder(net, pairs.x, image, settings, run, distance, fooling, critic_start, critic)
    curve = finish(net, training, run, f"tiny decoder, {loss}")
    return tiny, curve, run

"""A tiny decoder learns from a large one what latents look like.

SDXS (Song et al. 2024, arXiv 2403.16627), eq. 5 and Fig. 2a. Data-free: the latents are a diffusion model's own, and
the pictures are what its decoder makes of them. The student is diffusers' AutoencoderTiny, convolutions without
attention and without normalisation.
"""

from collections.abc import Callable, Iterator

from diffusers import AutoencoderTiny
from torch import Tensor, nn
from torch.func import functional_call

from distill_lib.losses.reconstruction import coarse_loss, critic_loss, fooling_loss
from distill_lib.methods.autoencoder import Critic
from distill_lib.precision import autocast
from distill_lib.store import Run
from distill_lib.training import Loop, Progress, Trainable, TrainSettings

__all__ = ["TinyPlayers", "build_tiny", "train_tiny_decoder"]


def build_tiny(levels: int, width: int = 64, blocks: int = 3, latents: int = 4) -> AutoencoderTiny:
    """diffusers' tiny autoencoder for latents a factor 2^(levels - 1) smaller than pictures.

    With four levels of 64 channels and three blocks its decoder has the paper's 1.2 million weights. Only the decoder
    is trained here: image-to-image needs the large encoder.
    """
    inner = levels - 1
    return AutoencoderTiny(
        latent_channels=latents,
        encoder_block_out_channels=(width,) * levels,
        decoder_block_out_channels=(width,) * levels,
        num_encoder_blocks=(1,) + (blocks,) * inner,
        num_decoder_blocks=(blocks,) * inner + (1,),
        scaling_factor=1.0,
    )


class TinyPlayers(nn.Module):
    """A tiny decoder and a critic, trained together."""

    def __init__(self, tiny: AutoencoderTiny, critic: Critic) -> None:
        super().__init__()
        self.decoder, self.critic = tiny.decoder, critic

    def forward(self, z: Tensor, x: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """x_hat, and the critic's answers to x, to x_hat fixed, and to x_hat."""
        x_hat = self.decoder(z)
        fixed = {name: value.detach() for name, value in self.critic.named_parameters()}
        answers = self.critic(x), self.critic(x_hat.detach()), functional_call(self.critic, fixed, (x_hat,))
        return x_hat, *answers


def train_tiny_decoder(
    net: Trainable,
    z: Tensor,
    image: Tensor,
    settings: TrainSettings,
    run: Run,
    distance: Callable[[Tensor, Tensor], Tensor] = coarse_loss,
    fooling: float = 0.1,
    alone: int = 0,
) -> Iterator[Progress]:
    """Train net.module, `TinyPlayers`, on latents z (N, C, H, W) and the large decoder's pictures uint8 (N, 3, R, R).

    Args:
        net: the players.
        z, image: data.
        settings, run: of the training.
        distance: distance(x, x_hat) -> (B,): (6) of `losses.reconstruction` as in the paper, or what it stands beside.
        fooling: weight of fooling the critic, lambda_GAN; the paper gives none. 0 leaves the critic out.
        alone: steps before the critic has a say.
    """
    loop = Loop(net, settings, run)
    for step, draws in loop:
        index = draws.integer("picture", len(image)).cpu()
        x = image[index].to(loop.device).float() / 127.5 - 1
        with autocast(loop.device, settings.bf16):
            x_hat, real, fake, fooled = (part.float() for part in net.forward(z[index].to(loop.device).float(), x))
        loss = distance(x, x_hat)
        if fooling and step >= alone:
            # Adam does not see the factor of the critic, the one bound on the gradients of both players does
            loss = loss + fooling * fooling_loss(fooled) + 0.1 * critic_loss(real, fake)
        yield loop.update(loss)

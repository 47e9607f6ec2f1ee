"""A tiny decoder for the autoencoder that somebody brings, and for nothing else: no teacher, no prompts.

    z       = scale (mean of the encoder - shift)     of pictures of a folder: latents as a U-Net knows them
    x       = the large decoder's picture of z        what the tiny decoder learns, by eq. 5 of SDXS (`tiny_decoder`)

Differs from the paper: latents are of encoded pictures, where a teacher's own answers to prompts would need a teacher.
Every tenth picture is held back and measured.
"""

import sys
from dataclasses import replace
from functools import partial
from pathlib import Path

import torch
from diffusers import AutoencoderKL, AutoencoderTiny
from torch import Tensor

from distill_lib.diffusion.pixels import to_bytes, to_unit
from distill_lib.engine.loop import TrainSettings, finish
from distill_lib.engine.precision import default_device
from distill_lib.engine.store import Run, weights_hash
from distill_lib.engine.trainable import Bare
from distill_lib.measure.metrics import psnr
from distill_lib.networks.autoencoders import Critic, TinyDecode, build_tiny
from distill_lib.networks.doors import open_part
from distill_lib.paths import runs_folder
from distill_lib.sdxs.tiny_decoder import TinyPlayers, train_tiny_decoder
from distill_lib.shipped.export import export_decoder
from distill_lib.teachers.autoencoder import coarse_loss
from distill_lib.worlds.folders import read_picture

SIDE = 256
"""Pixels of a picture's side, unless another is named."""
SETTINGS = TrainSettings(steps=20000, batch_size=8, lr=5e-4, warmup=500, ema=0.999)
_FOOLING = 0.05  # weight of the critic, as in notebook 09
_KINDS = {".png", ".jpg", ".jpeg", ".webp"}
_LEAST = 10  # pictures
_BATCH = 8


def pictures_in(folder: Path, side: int) -> Tensor:
    """All pictures in a folder and below it, by name, read as `worlds.folders` says, uint8 (N, 3, side, side).

    Raises:
        ValueError: there are fewer than ten, or as `worlds.folders.read_picture`.
    """
    paths = [path for path in sorted(folder.rglob("*")) if path.suffix.lower() in _KINDS and path.is_file()]
    if len(paths) < _LEAST:
        raise ValueError(f"{folder} holds {len(paths)} pictures (PNG, JPEG, WebP); {_LEAST} are due at least")
    return torch.stack([read_picture(path, side) for path in paths])


def open_vae(folder: Path) -> AutoencoderKL:
    """An autoencoder of diffusers from its folder, or from `vae/` of a pipeline's; raises as `doors.open_part`."""
    inner = folder / "vae" if (folder / "vae").is_dir() else folder
    vae = open_part(AutoencoderKL, inner, "AutoencoderKL", "name a folder that save_pretrained wrote")
    return vae.to(default_device()).eval().requires_grad_(False)


@torch.no_grad()
def latents_and_pictures(vae: AutoencoderKL, image: Tensor) -> tuple[Tensor, Tensor]:
    """z (N, C, R/f, R/f) as a U-Net knows them, in half precision, and what the large decoder makes of them, uint8."""
    scale, shift, known = vae.config.scaling_factor, vae.config.shift_factor or 0.0, []
    for part in image.split(_BATCH):
        mean = vae.encode(to_unit(part.to(vae.device))).latent_dist.mean
        known.append((((mean - shift) * scale).half().cpu(), to_bytes(vae.decode(mean).sample).cpu()))
    z, x = zip(*known, strict=True)
    return torch.cat(z), torch.cat(x)


def decoder_for(vae: AutoencoderKL, image: Tensor, settings: TrainSettings = SETTINGS) -> tuple[AutoencoderTiny, float]:
    """A tiny decoder that learned of nine pictures in ten, and its PSNR to the large decoder on the others, in dB."""
    levels = len(vae.config.block_out_channels)
    torch.manual_seed(settings.seed)
    tiny = build_tiny(levels, latents=vae.config.latent_channels)
    players = TinyPlayers(tiny, Critic())
    distance = partial(coarse_loss, factor=2 ** (levels - 1))
    config = {"settings": settings, "vae": vae, "image": image, "distance": distance, "players": players}
    run = Run("own-decoder", config | {"fooling": _FOOLING}, decoder_for)
    z, x = latents_and_pictures(vae, image)
    held = torch.arange(len(z)) % 10 == 9
    net = Bare(players)
    training = train_tiny_decoder(net, z[~held], x[~held], settings, run, distance, _FOOLING)
    finish(net, training, run, "tiny decoder")
    tiny = tiny.to(default_device())
    with torch.no_grad():
        drawn = torch.cat([to_bytes(TinyDecode(tiny)(part.float())).cpu() for part in z[held].split(_BATCH)])
    return tiny, psnr(drawn, x[held])


def make_decoder(vae: str, pictures: str, side: int = SIDE, steps: int = SETTINGS.steps) -> Path:
    """Train a tiny decoder for an autoencoder on a folder of pictures, and write it to `runs/decoders`.

    Raises:
        ValueError: as `open_vae` and `pictures_in`; the side is no multiple of what a latent covers.
    """
    network = open_vae(Path(vae).expanduser())
    factor = 2 ** (len(network.config.block_out_channels) - 1)
    if side < 2 * factor or side % factor:
        raise ValueError(
            f"side={side} should be a multiple of {factor}, which a latent covers, and twice that at least"
        )
    if not pictures:
        raise ValueError("a decoder needs pictures=, a folder with ten or more; they are encoded and drawn again")
    image = pictures_in(Path(pictures).expanduser(), side)
    tiny, value = decoder_for(network, image, replace(SETTINGS, steps=steps, warmup=min(SETTINGS.warmup, steps)))
    place = Path(vae).expanduser().resolve()
    folder = runs_folder() / "decoders" / f"{weights_hash(network, place.name)}-{side}-{steps}"
    export_decoder(
        folder, tiny, f"Distilled from the decoder in {place.name} on {len(image)} pictures of {side} pixels."
    )
    print(f"PSNR to the large decoder on pictures held back: {value:.1f} dB", file=sys.stderr)
    return folder

"""A small Stable Diffusion of our own: text encoder, autoencoder and U-Net, trained one after the other on scenes.

    1. a mini CLIP reads captions and pictures (`clip`); its text encoder is frozen from then on
    2. an autoencoder takes pictures to latents a quarter of their side (`teachers.autoencoder`)
    3. a U-Net with cross-attention denoises latents of captioned pictures, in v (`teachers.denoising`)
    4. the decoder goes on alone, on latents that stay as they are, as that of Stable Diffusion did

Captions with a pair of `worlds.captions.HELD_OUT` are seen by neither 1 nor 3. What comes out is a plain folder of
diffusers' StableDiffusionPipeline, on our own schedule.
"""

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from diffusers import UNet2DConditionModel
from torch import Tensor

from distill_lib.diffusion.schedules import OURS
from distill_lib.engine import store
from distill_lib.engine.loop import TrainSettings, finish
from distill_lib.engine.trainable import Bare
from distill_lib.networks.adapter import Network
from distill_lib.networks.autoencoders import Critic, build_autoencoder
from distill_lib.networks.folders import plain_pipeline
from distill_lib.networks.pipeline import Latents, TextToImage, decode, text_states
from distill_lib.networks.unet import config_of
from distill_lib.teachers.autoencoder import Players, train_autoencoder
from distill_lib.teachers.clip import Clip, build_text_encoder, train_clip
from distill_lib.teachers.denoising import train_teacher
from distill_lib.teachers.latents import captioned, encoded, phrased
from distill_lib.worlds.captions import names_held_out, tokenizer
from distill_lib.worlds.pictures import WORLDS


def build_text_unet(
    *, side: int, width: int, channels: Sequence[int], attention: Sequence[bool], layers: int = 1
) -> UNet2DConditionModel:
    """diffusers' U-Net of Stable Diffusion at our size: cross-attention where `attention` says so, by level."""
    down = tuple("CrossAttnDownBlock2D" if attends else "DownBlock2D" for attends in attention)
    up = tuple("CrossAttnUpBlock2D" if attends else "UpBlock2D" for attends in reversed(attention))
    return UNet2DConditionModel(
        sample_size=side,
        in_channels=4,
        out_channels=4,
        block_out_channels=tuple(channels),
        layers_per_block=layers,
        down_block_types=down,
        up_block_types=up,
        cross_attention_dim=width,
        attention_head_dim=4,
        norm_num_groups=16,
        resnet_time_scale_shift="scale_shift",
    )


def _settings(recipe: dict[str, Any]) -> TrainSettings:
    known = TrainSettings.__dataclass_fields__
    return TrainSettings(**{name: value for name, value in recipe.items() if name in known})


def build_clip(recipe: dict[str, Any], side: int) -> Clip:
    """An untrained mini CLIP for pictures of a side, by the sizes of its recipe."""
    torch.manual_seed(recipe["seed"])
    return Clip(build_text_encoder(tokenizer(), recipe["width"], recipe["layers"]), recipe["tower"], side)


def make_clip(
    recipe: dict[str, Any], image: Tensor, wanted_attributes: Tensor, parent: dict[str, Any]
) -> tuple[Clip, store.Run]:
    """A mini CLIP trained on pictures uint8 (N, 3, R, R) of attributes (N, 2, 4), and its run.

    The recipe holds sizes, settings and seed; `parent` says what the data is, for the run's key.
    """
    net = Bare(build_clip(recipe, image.shape[-1]))
    run = store.Run("clip", parent | {"clip": recipe}, train_clip)
    finish(net, train_clip(net, tokenizer(), image, wanted_attributes, _settings(recipe), run), run, "mini CLIP")
    return net.module, run


def _autoencoder(recipe: dict[str, Any], clip: Clip, image: Tensor, config: dict[str, Any], net: Players) -> store.Run:
    """One training of the players' parts that are not frozen; leaves the averaged weights in them."""
    run = store.Run("autoencoder", config, train_autoencoder)
    training = train_autoencoder(
        Bare(net), clip.tower.layers, image, _settings(recipe), run, tuple(recipe["weights"]), recipe["alone"]
    )
    finish(Bare(net), training, run, "autoencoder")
    return run


def train_small_diffusion(recipe: dict[str, Any], folder: Path) -> list[store.Run]:
    """Train all of it and write the pipeline to `folder` in half precision; the runs, in order.

    Args:
        recipe: world, count, seed, and the settings and sizes of `clip`, `autoencoder` and `unet`; `decoder` holds what
            differs from the autoencoder's when the decoder goes on alone.
        folder: where the pipeline goes.
    """
    image, wanted_attributes = captioned(recipe["world"], recipe["count"], recipe["seed"])
    known = ~names_held_out(wanted_attributes)
    # the world itself and not its name: it may be made harder
    data = {"world": WORLDS[recipe["world"]], "count": recipe["count"], "seed": recipe["seed"]}
    clip, clip_run = make_clip(recipe["clip"], image[known], wanted_attributes[known], data)
    vae_recipe = recipe["autoencoder"]
    torch.manual_seed(vae_recipe["seed"])
    players = Players(build_autoencoder(vae_recipe["channels"]), Critic(vae_recipe["critic"]))
    vae_run = _autoencoder(vae_recipe, clip, image, data | {"parent": clip_run.key, "autoencoder": vae_recipe}, players)
    vae = players.autoencoder
    vae.register_to_config(scaling_factor=1.0)
    parts = {"vae": vae, "text_encoder": clip.text, "tokenizer": tokenizer(), "scheduler": OURS.to_scheduler()}
    sizes = {name: recipe["unet"][name] for name in ("channels", "attention", "layers")}
    torch.manual_seed(recipe["unet"]["seed"])
    side = image.shape[-1] >> (len(recipe["autoencoder"]["channels"]) - 1)
    unet = build_text_unet(side=side, width=recipe["clip"]["width"], **sizes)
    pipe = plain_pipeline(**parts, unet=unet)
    model = TextToImage(pipe, Network(unet, null=text_states(pipe, [""])[0], decode=partial(decode, pipe, bf16=None)))
    make = lambda: {"z": encoded(model, image[known])}  # noqa: E731
    z = store.cached("encoded", data | {"vae": vae}, make, encoded)["z"]
    scale = 1 / z.float().std().item()
    vae.register_to_config(scaling_factor=scale)
    config = {"parents": [clip_run.key, vae_run.key], "settings": recipe["unet"], "unet": config_of(unet)}
    run = store.Run("text-teacher", config, train_teacher, Latents, phrased)
    pictures = Latents(scale * z.float(), phrased(wanted_attributes[known], recipe["seed"]), model)
    training = train_teacher(model.network, pictures, _settings(recipe["unet"]), run, recipe["unet"]["drop"])
    finish(model.network, training, run, "text-to-image teacher")
    vae_recipe = vae_recipe | recipe["decoder"]
    for part in (vae.decoder, vae.post_quant_conv, players.critic):
        part.requires_grad_(True)
    last_run = _autoencoder(vae_recipe, clip, image, data | {"parent": vae_run.key, "decoder": vae_recipe}, players)
    for old in folder.rglob("*.safetensors*"):  # another number of shards would leave some behind
        old.unlink()
    pipe.to(dtype=torch.float16)
    pipe.save_pretrained(folder, safe_serialization=True, max_shard_size="7MB")
    return [clip_run, vae_run, run, last_run]

"""A small Stable Diffusion of our own: text encoder, autoencoder and U-Net, trained one after the other on scenes.

    1. a mini CLIP reads captions and pictures (`clip`); its text encoder is frozen from then on
    2. an autoencoder takes pictures to latents a quarter or an eighth of their side (`teachers.autoencoder`)
    3. its decoder goes on alone, on latents that stay as they are, as that of Stable Diffusion did
    4. a U-Net with cross-attention denoises latents of captioned pictures, in v (`teachers.denoising`)

Captions with a pair held out are seen by neither 1 nor 4. What comes out is a plain folder of diffusers'
StableDiffusionPipeline, on our own schedule. The weights' average after a part of 4 is a weaker teacher of the same
form (`early_unet`): beside its student it stands where Stable Diffusion 1.5 stands in the paper's Table 3.

Every training is a run of its own: one that is done is read again, one that was cut off goes on.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from torch import Tensor

from distill_lib.diffusion.pixels import to_unit
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
from distill_lib.teachers.latents import captioned, phrased
from distill_lib.worlds.captions import names_held_out, tokenizer
from distill_lib.worlds.pictures import WORLDS
from distill_lib.worlds.vocabulary import SCENES, Vocabulary, vocabulary_of

_BATCH = 64


def build_text_unet(
    *,
    side: int,
    width: int,
    channels: Sequence[int],
    attention: Sequence[bool],
    layers: int = 1,
    latents: int = 4,
) -> UNet2DConditionModel:
    """diffusers' U-Net of Stable Diffusion at our size: cross-attention where `attention` says so, by level.

    Args:
        side: of the latents.
        width: of the text encoder's states.
        channels, attention: of each level, from the finest.
        layers: units of a down stage; an up stage has one more.
        latents: channels of the latents.
    """
    down = tuple("CrossAttnDownBlock2D" if attends else "DownBlock2D" for attends in attention)
    up = tuple("CrossAttnUpBlock2D" if attends else "UpBlock2D" for attends in reversed(attention))
    return UNet2DConditionModel(
        sample_size=side,
        in_channels=latents,
        out_channels=latents,
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


def build_clip(recipe: dict[str, Any], side: int, words: Vocabulary = SCENES) -> Clip:
    """An untrained mini CLIP for pictures of a side and a world's words, by the sizes of its recipe."""
    torch.manual_seed(recipe["seed"])
    return Clip(build_text_encoder(tokenizer(words), recipe["width"], recipe["layers"]), recipe["tower"], side)


def make_clip(
    recipe: dict[str, Any], image: Tensor, wanted_attributes: Tensor, parent: dict[str, Any]
) -> tuple[Clip, store.Run]:
    """A mini CLIP trained on pictures uint8 (N, 3, R, R) of attributes (N, 2, 4), and its run.

    The recipe holds sizes, settings and seed; `parent` says what the data is, for the run's key, `world` among it.
    """
    words = vocabulary_of(parent["world"])
    net = Bare(build_clip(recipe, image.shape[-1], words))
    run = store.Run("clip", parent | {"clip": recipe}, train_clip)
    finish(net, train_clip(net, words, image, wanted_attributes, _settings(recipe), run), run, "mini CLIP")
    return net.module, run


def _autoencoder(recipe: dict[str, Any], clip: Clip, image: Tensor, config: dict[str, Any], net: Players) -> store.Run:
    """One training of the players' parts that are not frozen; leaves the averaged weights in them."""
    run = store.Run("autoencoder", config, train_autoencoder)
    training = train_autoencoder(
        Bare(net), clip.tower.layers, image, _settings(recipe), run, tuple(recipe["weights"]), recipe["alone"]
    )
    finish(Bare(net), training, run, "autoencoder")
    return run


@dataclass(frozen=True)
class LatentSpace:
    """What a U-Net is trained in: autoencoder and CLIP, and the latents of all pictures that it may see.

    z (N, C, R/f, R/f) has unit standard deviation over all; `runs` are of the CLIP, the autoencoder, and its decoder.
    """

    clip: Clip
    vae: AutoencoderKL
    z: Tensor
    prompts: list[str]
    words: Vocabulary
    runs: list[store.Run]


@torch.no_grad()
def encoded_by(vae: AutoencoderKL, image: Tensor) -> Tensor:
    """Means of the latents of pictures uint8 (N, 3, R, R), unscaled, (N, C, R/f, R/f), in half precision."""
    parts = image.split(_BATCH)
    return torch.cat([vae.encode(to_unit(part.to(vae.device))).latent_dist.mean.half().cpu() for part in parts])


def train_latent_space(recipe: dict[str, Any]) -> LatentSpace:
    """Steps 1 to 3; `recipe` as in `train_small_diffusion`, whose `unet` is not read."""
    image, wanted_attributes = captioned(recipe["world"], recipe["count"], recipe["seed"])
    world, vae_recipe = WORLDS[recipe["world"]], recipe["autoencoder"]
    words = vocabulary_of(world)
    known = ~names_held_out(wanted_attributes, words)
    # the world itself and not its name: it may be made harder
    data = {"world": world, "count": recipe["count"], "seed": recipe["seed"]}
    clip, clip_run = make_clip(recipe["clip"], image[known], wanted_attributes[known], data)
    torch.manual_seed(vae_recipe["seed"])
    vae = build_autoencoder(vae_recipe["channels"], vae_recipe.get("latents", 4))
    players = Players(vae, Critic(vae_recipe["critic"]))
    config = data | {"parent": clip_run.key, "autoencoder": vae_recipe}
    vae_run = _autoencoder(vae_recipe, clip, image, config, players)
    vae.register_to_config(scaling_factor=1.0)
    make = lambda: {"z": encoded_by(vae, image[known])}  # noqa: E731
    z = store.cached("encoded", data | {"vae": vae}, make, encoded_by)["z"].float()
    scale = 1 / z.std().item()
    vae.register_to_config(scaling_factor=scale)
    last_recipe = vae_recipe | recipe["decoder"]
    for part in (vae.decoder, vae.post_quant_conv, players.critic):
        part.requires_grad_(True)
    last_run = _autoencoder(last_recipe, clip, image, data | {"parent": vae_run.key, "decoder": last_recipe}, players)
    prompts = phrased(wanted_attributes[known], recipe["seed"], words)
    return LatentSpace(clip, vae, scale * z, prompts, words, [clip_run, vae_run, last_run])


def _train_unet(recipe: dict[str, Any], space: LatentSpace) -> tuple[TextToImage, store.Run]:
    """Step 4, and the pipeline of all parts."""
    tokens, sizes = tokenizer(space.words), {name: recipe["unet"][name] for name in ("channels", "attention", "layers")}
    torch.manual_seed(recipe["unet"]["seed"])
    sizes |= {"side": space.z.shape[-1], "latents": space.z.shape[1]}
    unet = build_text_unet(width=recipe["clip"]["width"], **sizes)
    parts = {"vae": space.vae, "text_encoder": space.clip.text, "tokenizer": tokens, "scheduler": OURS.to_scheduler()}
    pipe = plain_pipeline(**parts, unet=unet)
    model = TextToImage(pipe, Network(unet, null=text_states(pipe, [""])[0], decode=partial(decode, pipe, bf16=None)))
    parents = [run.key for run in space.runs[:2]]
    config = {"parents": parents, "settings": recipe["unet"], "unet": config_of(unet)}
    run = store.Run("text-teacher", config, train_teacher, Latents, phrased)
    pictures = Latents(space.z, space.prompts, model)
    training = train_teacher(model.network, pictures, _settings(recipe["unet"]), run, recipe["unet"]["drop"])
    finish(model.network, training, run, "text-to-image teacher")
    return model, run


def train_small_diffusion(recipe: dict[str, Any], folder: Path) -> list[store.Run]:
    """Train all of it and write the pipeline to `folder` in half precision; the runs, in order.

    Args:
        recipe: world, count, seed, and the settings and sizes of `clip`, `autoencoder` and `unet`; `decoder` holds what
            differs from the autoencoder's when the decoder goes on alone.
        folder: where the pipeline goes.
    """
    space = train_latent_space(recipe)
    model, run = _train_unet(recipe, space)
    for old in folder.rglob("*.safetensors*"):  # another number of shards would leave some behind
        old.unlink()
    model.pipe.to(dtype=torch.float16)
    model.pipe.save_pretrained(folder, safe_serialization=True, max_shard_size="7MB")
    return [*space.runs[:2], run, space.runs[2]]


def early_unet(recipe: dict[str, Any]) -> tuple[UNet2DConditionModel, list[store.Run]]:
    """The U-Net whose weights are the first average kept on the way, and the runs; trains what is not done.

    Of `snapshots: 4` it is the average after a fifth of the updates.

    Raises:
        ValueError: the recipe keeps none.
    """
    if not recipe["unet"].get("snapshots"):
        raise ValueError("the recipe of the U-Net keeps no average on the way; give it snapshots: 4")
    space = train_latent_space(recipe)
    model, run = _train_unet(recipe, space)
    unet = model.network.module
    unet.load_state_dict(next(iter(run.snapshots().values())))
    return unet, [*space.runs, run]

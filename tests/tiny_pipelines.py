"""Pipelines of the shape of Stable Diffusion, tiny and random, of either kind of prediction."""

from pathlib import Path

import torch
from diffusers import AutoencoderKL, DDIMScheduler, StableDiffusionPipeline, UNet2DConditionModel
from transformers import CLIPTextConfig, CLIPTextModel

from distill_lib.worlds.captions import LENGTH, tokenizer


def scheduler(predicts):
    """Stable Diffusion's: T = 1000, scaled-linear betas, some signal left at the end."""
    betas = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}
    return DDIMScheduler(1000, **betas, clip_sample=False, prediction_type=predicts, timestep_spacing="trailing")


def tiny_pipeline(predicts, levels=2):
    """Of pictures of 8 pixels; with `levels` of 1 the latents are as large."""
    torch.manual_seed(0)
    tokens = tokenizer()
    text = CLIPTextConfig(
        vocab_size=len(tokens), hidden_size=16, intermediate_size=32, num_hidden_layers=1, num_attention_heads=2,
        max_position_embeddings=LENGTH, bos_token_id=tokens.bos_token_id, eos_token_id=tokens.eos_token_id,
    )  # fmt: skip
    unet = UNet2DConditionModel(
        sample_size=8 // levels, in_channels=4, out_channels=4, layers_per_block=1,
        block_out_channels=(16, 32)[:levels],
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D")[:levels],
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D")[-levels:],
        cross_attention_dim=16, attention_head_dim=4, norm_num_groups=8,
    )  # fmt: skip
    vae = AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * levels, up_block_types=("UpDecoderBlock2D",) * levels,
        block_out_channels=(8,) * levels, norm_num_groups=4, latent_channels=4, scaling_factor=0.5,
    )  # fmt: skip
    return StableDiffusionPipeline(
        vae=vae, text_encoder=CLIPTextModel(text), tokenizer=tokens, unet=unet, scheduler=scheduler(predicts),
        safety_checker=None, feature_extractor=None, requires_safety_checker=False,
    )  # fmt: skip


class Poison:
    """Unpickled, it makes a file."""

    def __init__(self, mark):
        self.mark = mark

    def __reduce__(self):
        return Path.touch, (self.mark,)

"""Pipelines of the shape of Stable Diffusion, tiny and random, of either kind of prediction."""

from pathlib import Path

import diffusers
import torch
from diffusers import (
    AutoencoderKL,
    DDIMScheduler,
    StableDiffusionPipeline,
    StableDiffusionXLPipeline,
    UNet2DConditionModel,
)
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

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


def tiny_stable_diffusion(predicts, grid="DDIMScheduler"):
    """Four stages of two units with Stable Diffusion's own blocks, for pictures of 64 pixels in latents of 8; `grid` is
    the kind of scheduler that the folder names."""
    pipe, stages = tiny_pipeline(predicts), 4
    torch.manual_seed(1)
    pipe.unet = UNet2DConditionModel(
        sample_size=8, layers_per_block=2, block_out_channels=(8, 8, 16, 16),
        cross_attention_dim=16, attention_head_dim=4, norm_num_groups=4,
    )  # fmt: skip
    pipe.vae = AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * stages, up_block_types=("UpDecoderBlock2D",) * stages,
        block_out_channels=(8,) * stages, norm_num_groups=4, latent_channels=4, scaling_factor=0.18215,
    )  # fmt: skip
    kind = getattr(diffusers, grid)
    pipe.scheduler = kind.from_config(scheduler(predicts).config, steps_offset=1)
    return pipe


def tiny_sdxl(predicts="epsilon"):
    """Three stages of two units as those of Stable Diffusion XL, with two text encoders, for pictures of 32 pixels."""
    pipe = tiny_stable_diffusion(predicts)
    torch.manual_seed(2)
    second = CLIPTextConfig(**pipe.text_encoder.config.to_dict() | {"projection_dim": 24})
    unet = UNet2DConditionModel(
        sample_size=4, layers_per_block=2, block_out_channels=(8, 8, 16), cross_attention_dim=32,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
        transformer_layers_per_block=[1, 2, 3], attention_head_dim=[2, 2, 4], norm_num_groups=4,
        use_linear_projection=True, addition_embed_type="text_time", addition_time_embed_dim=8,
        projection_class_embeddings_input_dim=24 + 6 * 8,
    )  # fmt: skip
    return StableDiffusionXLPipeline(
        vae=pipe.vae, text_encoder=pipe.text_encoder, text_encoder_2=CLIPTextModelWithProjection(second),
        tokenizer=pipe.tokenizer, tokenizer_2=tokenizer(), unet=unet, scheduler=pipe.scheduler, add_watermarker=False,
    )  # fmt: skip


class Poison:
    """Unpickled, it makes a file."""

    def __init__(self, mark):
        self.mark = mark

    def __reduce__(self):
        return Path.touch, (self.mark,)

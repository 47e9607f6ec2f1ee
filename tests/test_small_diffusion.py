"""The small Stable Diffusion is trained from nothing, written, and read again by diffusers alone."""

import pytest
import torch
from diffusers import StableDiffusionPipeline

from distill_lib.diffusion.samplers import sample
from distill_lib.networks.adapter import denoise_pair
from distill_lib.networks.pipeline import open_pipeline
from distill_lib.teachers.latents import phrased
from distill_lib.teachers.small_diffusion import build_text_unet
from distill_lib.worlds.captions import HELD_OUT, PHRASINGS, drawn_attributes, say
from distill_lib.worlds.pictures import WORLDS, render_pictures

PROMPT = "a red cube left of a green sphere"


def test_diffusers_alone_draws_what_our_sampler_draws(small_pipeline):
    folder, _ = small_pipeline
    model = open_pipeline(folder, bf16=False)
    assert model.network.schedule.T == 1024 and model.network.predicts == "v_prediction"
    z_T = torch.randn(1, 4, 16, 16, generator=torch.Generator().manual_seed(0))
    ours = sample(denoise_pair(model.network, model.states([PROMPT]), 2.0), z_T, 4)
    pipe = StableDiffusionPipeline.from_pretrained(folder, safety_checker=None, torch_dtype=torch.float32)
    pipe.set_progress_bar_config(disable=True)
    reference = pipe(
        [PROMPT], num_inference_steps=4, guidance_scale=3.0, latents=z_T.clone(), output_type="latent"
    ).images
    assert torch.allclose(ours, reference, atol=1e-3 * reference.abs().max().item())
    assert model.pictures(ours).shape == (1, 3, 64, 64)


def test_latents_have_unit_size_and_weights_are_small_shards(small_pipeline):
    folder, runs = small_pipeline
    assert [run.key.split("-")[0] for run in runs] == ["clip", "autoencoder", "text", "autoencoder"] and all(
        run.done for run in runs
    )
    before, after = runs[1].weights(), runs[3].weights()
    moved = {name.split(".")[1] for name, value in after.items() if not torch.equal(value, before[name])}
    assert {"decoder", "post_quant_conv"} <= moved and not moved & {"encoder", "quant_conv"}  # latents stay
    model = open_pipeline(folder)
    image, _ = render_pictures(WORLDS["captioned"], 0, torch.arange(24))
    assert model.latents(image).std().item() == pytest.approx(1, rel=0.05)
    assert all(path.stat().st_size < 8e6 for path in folder.rglob("*.safetensors"))


def test_a_phrasing_is_drawn_once_for_each_picture():
    wanted_attributes = drawn_attributes(200, 0)
    texts = phrased(wanted_attributes, 3)
    assert texts == phrased(wanted_attributes, 3) and texts[:50] == phrased(wanted_attributes[:50], 3)
    sentences = [
        [say(objects[None], torch.tensor([k]))[0] for k in range(len(PHRASINGS))] for objects in wanted_attributes[:60]
    ]
    used = {options.index(text) for options, text in zip(sentences, texts, strict=False)}
    assert used == set(range(len(PHRASINGS)))
    assert not any(f"{color} {shape}" in text for color, shape in HELD_OUT for text in texts)


def test_attention_stands_where_it_is_asked_for():
    unet = build_text_unet(side=8, width=16, channels=(16, 32), attention=(False, True))
    assert unet.config.down_block_types == ("DownBlock2D", "CrossAttnDownBlock2D")
    assert unet.config.up_block_types == ("CrossAttnUpBlock2D", "UpBlock2D")

"""A network that is shown a mask is the old one at first, and goes through every method; diffusers alone runs it."""

import pytest
import torch
from diffusers import StableDiffusionInpaintPipeline

from distill_lib.diffusion.guidance import guided_pair, without_condition
from distill_lib.diffusion.samplers import sample
from distill_lib.engine.loop import TrainSettings, finish
from distill_lib.engine.store import Run
from distill_lib.guided.halving import Halving, halve_once
from distill_lib.guided.stage_one import distill_guidance
from distill_lib.networks.adapter import Keyed, append_extra, denoiser, split_extra
from distill_lib.networks.pipeline import Latents, open_pipeline
from distill_lib.teachers.denoising import train_teacher
from distill_lib.teachers.inpainting import drawn_masks, inpainter, inpainting_of, visible_latents
from distill_lib.worlds.captions import drawn_attributes, say
from distill_lib.worlds.pictures import WORLDS, render_pictures

SHORT = TrainSettings(steps=2, batch_size=4, lr=1e-3, warmup=1, bf16=False)


@pytest.fixture
def model(small_pipeline):
    return open_pipeline(small_pipeline[0], bf16=False)


def masked(model, n=8):
    image, _ = render_pictures(WORLDS["captioned"], 0, torch.arange(n))
    mask = drawn_masks(torch.arange(n), 0, 64)
    return Latents(model.latents(image), say(drawn_attributes(n, 0)), model, visible_latents(model, image, mask))


@pytest.mark.parametrize("width", [16, 24])  # 5 x 4 x 4 is a multiple of the one and not of the other
def test_what_is_shown_comes_back_from_behind_the_states(width):
    states, extra = torch.randn(2, 7, width), torch.randn(2, 5, 4, 4)
    label = append_extra(states, extra)
    assert torch.equal(label[:, :7], states)
    assert torch.equal(split_extra(label[:, 7:], 5, 4), extra)


def test_dropping_the_prompt_keeps_what_is_shown():
    label, null = torch.randn(3, 9, 16), torch.randn(7, 16)
    dropped = without_condition(label, null)
    assert torch.equal(dropped[:, 7:], label[:, 7:]) and torch.equal(dropped[:, :7], null.expand(3, -1, -1))
    assert torch.equal(without_condition(torch.tensor([1, 2]), 5), torch.tensor([5, 5]))


def test_masks_are_boxes_of_the_promised_sizes():
    mask = drawn_masks(torch.arange(200), 1, 64)
    rows, columns = mask.amax(3).sum((1, 2)), mask.amax(2).sum((1, 2))
    assert torch.equal(mask.sum((1, 2, 3)), rows * columns)  # a full box
    assert 20 <= min(rows.min(), columns.min()) and max(rows.max(), columns.max()) <= 43
    assert torch.equal(drawn_masks(torch.tensor([7]), 1, 64), mask[7:8])


def test_the_masked_part_of_a_picture_is_not_shown(model):
    image, _ = render_pictures(WORLDS["captioned"], 0, torch.arange(2))
    mask, other = drawn_masks(torch.arange(2), 0, 64), image.clone()
    other[(mask > 0).expand_as(image)] = 7
    assert torch.equal(visible_latents(model, image, mask), visible_latents(model, other, mask))
    assert not torch.equal(visible_latents(model, image, mask), visible_latents(model, image, 0 * mask))


def test_a_wider_network_starts_as_the_old_one_and_heeds_the_mask_once_trained(model, runs):
    net, data = inpainter(model, inpainting_of(model.network.module)), masked(model)
    x, label = data.batch(torch.arange(4))
    t = torch.full((4,), 600)
    length = len(net.null)
    with torch.no_grad():
        assert torch.allclose(net(x, t, label), model.network(x, t, label[:, :length]), atol=1e-5)
        pair = guided_pair(net, x, t, label, net.null)
        assert torch.allclose(pair[1], model.network(x, t, net.null.expand(4, -1, -1)), atol=1e-5)
    net.module.requires_grad_(True)
    run = Run("inpainting", {}, train_teacher)
    finish(net, train_teacher(net, data, SHORT, run), run, "inpainting")
    other = torch.cat([label[:, :length], 0 * label[:, length:]], 1)
    with torch.no_grad():
        assert not torch.allclose(net(x, t, label), net(x, t, other), atol=1e-6)


def test_all_of_distillation_runs_and_diffusers_alone_paints_our_picture(model, runs):
    with torch.no_grad():  # diffusers draws latents of the masked picture where we take their mean: let them not spread
        model.pipe.vae.quant_conv.weight[4:], model.pipe.vae.quant_conv.bias[4:] = 0, -30
    net, data = inpainter(model, inpainting_of(model.network.module)), masked(model)
    student, run = net.student(), Run("one", {}, distill_guidance)
    finish(student, distill_guidance(student, net, data, SHORT, run), run, "stage one")
    last = halve_once(Keyed(student, run.key), data, Halving(4, SHORT.with_seed(4))).net
    image, _ = render_pictures(WORLDS["captioned"], 5, torch.arange(1))
    mask, prompt = drawn_masks(torch.arange(1), 5, 64), data.prompts[:1]
    label = append_extra(model.states(prompt), visible_latents(model, image, mask))
    z_T = torch.randn(1, 4, 16, 16, generator=torch.Generator().manual_seed(2))
    ours = sample(denoiser(last, label, 2.0), z_T, 4)
    plain = StableDiffusionInpaintPipeline(
        vae=model.pipe.vae, text_encoder=model.pipe.text_encoder, tokenizer=model.pipe.tokenizer, unet=last.module,
        scheduler=model.pipe.scheduler, safety_checker=None, feature_extractor=None, requires_safety_checker=False,
    )  # fmt: skip
    plain.set_progress_bar_config(disable=True)
    options = {"num_inference_steps": 4, "guidance_scale": 3.0, "height": 64, "width": 64, "output_type": "latent"}
    options |= {"image": image.float() / 127.5 - 1, "mask_image": mask, "strength": 1.0, "latents": z_T.clone()}
    reference = plain(prompt, **options).images
    assert torch.allclose(ours, reference, atol=1e-3 * reference.abs().max().item())

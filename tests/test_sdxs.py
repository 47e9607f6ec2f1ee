"""The parts of SDXS on a small pipeline: from prompts and noise alone, to a plain pipeline of diffusers of one step."""

import copy
from dataclasses import replace

import pytest
import torch
from diffusers import StableDiffusionPipeline

from distill_lib.diffusion.pixels import to_bytes
from distill_lib.engine.loop import TrainSettings
from distill_lib.networks.autoencoders import TinyDecode, build_tiny
from distill_lib.networks.pipeline import open_pipeline
from distill_lib.networks.pruning import Cut
from distill_lib.sdxs import tiny_unet
from distill_lib.sdxs.feature_matching import ONE_STEP_LOSSES, one_step_loss, views
from distill_lib.sdxs.matchers import ConvMatcher
from distill_lib.sdxs.one_step import fit_on_pairs, one_step
from distill_lib.sdxs.score_distillation import fit_by_scores
from distill_lib.sdxs.scoring import Scoring
from distill_lib.sdxs.texture import tune_texture
from distill_lib.sdxs.tiny_decoder import DECODER_LOSSES, tiny_decoder
from distill_lib.sdxs.tiny_unet import cut_network, small_unet
from distill_lib.shipped.export import export_one_step
from distill_lib.teachers.latents import Remembered, decoded, latent_pictures, teacher_pairs
from distill_lib.worlds import pictures, scenes
from distill_lib.worlds.captions import drawn_attributes, say

SHORT = TrainSettings(steps=2, batch_size=4, lr=1e-3, warmup=1, bf16=False)


@pytest.fixture
def pairs(small_pipeline, runs):
    model = open_pipeline(small_pipeline[0], bf16=False)
    return teacher_pairs(model, say(drawn_attributes(8, 0)), 2, 1.0, 5, "teacher", "unipc")


@pytest.fixture
def matcher():
    torch.manual_seed(3)
    return ConvMatcher(8, 64).requires_grad_(False)


def latents(pairs, seed=0):
    return torch.randn(3, *pairs.x.shape[1:], generator=torch.Generator().manual_seed(seed))


def test_parts_of_pairs_keep_their_noise(pairs):
    index = torch.tensor([1, 2])
    for whole, part in zip(pairs.batch(index + 4), pairs.part(4, 8).batch(index), strict=True):
        assert torch.equal(whole, part)


def test_a_solver_with_few_steps_is_nearer_to_many_steps(small_pipeline, runs):
    model = open_pipeline(small_pipeline[0], bf16=False)
    wanted_attributes = model, say(drawn_attributes(4, 0))
    many = teacher_pairs(*wanted_attributes, 128, 1.0, 5, "teacher").x
    few = {name: teacher_pairs(*wanted_attributes, 8, 1.0, 5, "teacher", name).x for name in ("ddim", "unipc")}
    error = {name: (x - many).square().mean() for name, x in few.items()}
    assert error["unipc"] < 0.5 * error["ddim"]


def test_decoded_pictures_are_those_of_the_teachers_decoder(pairs):
    assert torch.equal(decoded(pairs), to_bytes(pairs.model.network.decode(pairs.x)))
    tiny = TinyDecode(build_tiny(3, 8, 1, pairs.x.shape[1]), bf16=False)
    model = replace(pairs.model, network=pairs.model.network.like(pairs.model.network.module, decode=tiny))
    assert torch.equal(decoded(replace(pairs, model=model)), to_bytes(tiny(pairs.x)))


def test_a_name_that_two_pipelines_share_mixes_none_of_what_is_kept_under_it(pairs):
    model = pairs.model
    unet = copy.deepcopy(model.network.module)
    unet.conv_out.weight.data += 0.5
    other = replace(model, network=model.network.like(unet))
    assert not torch.equal(teacher_pairs(other, pairs.prompts, 2, 1.0, 5, "teacher", "unipc").x, pairs.x)
    before = latent_pictures(model, "teacher", "captioned", 4, 0).z
    model.pipe.vae.register_to_config(scaling_factor=2 * model.pipe.vae.config.scaling_factor)
    scaled = latent_pictures(replace(model), "teacher", "captioned", 4, 0).z
    assert torch.allclose(scaled.float(), 2 * before.float(), rtol=1e-2)


def test_what_was_decoded_once_is_not_decoded_again(pairs):
    calls, kept = [], Remembered(pairs)
    whole = kept.decode = lambda z, decode=kept.decode: calls.append(len(z)) or decode(z)
    index = torch.tensor([3, 0, 3])
    x = pairs.batch(index)[1]
    assert torch.equal(to_bytes(kept(x)), decoded(pairs)[index]) and not calls
    assert torch.equal(kept(x + 1), whole(x + 1)) and calls == [3, 3]


@pytest.mark.parametrize("loss", DECODER_LOSSES)
def test_a_tiny_decoder_learns_by_every_loss(loss, pairs, matcher):
    settings = TrainSettings(steps=40, batch_size=8, lr=5e-3, warmup=2, ema=0.5, bf16=False)
    options = {"loss": loss, "fooling": 0.0, "width": 8, "blocks": 1, "matcher": matcher}
    _, curve, _ = tiny_decoder(pairs, {}, settings, **options)
    assert curve[-1][1] < 0.8 * curve[0][1]


def test_a_decoder_is_told_apart_by_its_weights(pairs):
    first, other = (TinyDecode(build_tiny(3, 8, 1), bf16=False) for _ in range(2))
    assert first.name != other.name
    z = latents(pairs)
    assert torch.equal(first(z), first.tiny.decode(z).sample)


@pytest.mark.parametrize("loss", ONE_STEP_LOSSES)
def test_a_one_step_loss_is_least_at_the_teachers_answer_and_moves_the_students_alone(loss, pairs, matcher):
    see = views("cnn", matcher, pairs.model.network, pairs.model.network.decode)
    cost = one_step_loss(loss, see)
    x = latents(pairs).requires_grad_()
    x_hat = latents(pairs, 1).requires_grad_()
    result = cost(x_hat, x)
    assert result.shape == (3,) and (result > 0.01 * (loss != "lpips")).all()
    assert cost(x, x).abs().max() < 1e-4 * result.max() + 1e-6
    result.sum().backward()
    assert x_hat.grad.abs().sum() > 0
    assert x.grad is None or loss in ("square", "l1")


def test_the_encoder_of_the_unet_sees_every_down_stage(pairs):
    net = pairs.model.network
    layers = views("unet", None, net, net.decode)(latents(pairs))
    assert len(layers) == len(net.module.down_blocks)
    assert [layer.shape[1] for layer in layers] == list(net.module.config.block_out_channels)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: one_step_loss("huber"), "loss='huber' is unknown; choose one of square, l1"),
        (lambda: one_step_loss("matching"), "compares features"),
        (lambda: views("cnn", None, None, None), "needs its matcher"),
        (lambda: tiny_decoder(None, {}, SHORT, loss="ssim"), "loss='ssim' is unknown; choose one of coarse"),
        (lambda: tiny_decoder(None, {}, SHORT, loss="features"), "needs a matcher"),
    ],
)
def test_what_is_missing_or_unknown_is_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_from_prompts_to_a_plain_pipeline_without_a_picture_of_the_world(
    small_pipeline, runs, matcher, monkeypatch, tmp_path
):
    """The whole chain with a poisoned renderer; diffusers alone then draws what we draw."""

    def poisoned(*_args, **_kwargs):
        raise AssertionError("a picture of the world was asked for")

    for module in (pictures, scenes):
        for name in ("render", "render_pictures", "rendered_once"):
            monkeypatch.setattr(module, name, poisoned, raising=False)
    monkeypatch.setattr(tiny_unet, "CUT", Cut(middle="removed"))  # of two stages none can be spared
    model = open_pipeline(small_pipeline[0], bf16=False)
    prompts = say(drawn_attributes(8, 1))
    pairs = teacher_pairs(model, prompts, 2, 1.0, 6, "teacher")
    tiny, _, _ = tiny_decoder(pairs, {}, SHORT, loss="coarse", width=8, blocks=1)
    decode = TinyDecode(tiny, bf16=False)
    unet = small_unet(cut_network(model.network), pairs, SHORT).net.module.requires_grad_(True)
    student = model.network.like(unet, decode=decode)
    see, wanted = (views("cnn", matcher, model.network, by) for by in (decode, model.network.decode))
    cost = one_step_loss("matching", see, wanted)
    fit_on_pairs(student, pairs, cost, SHORT)
    fit_by_scores(student, pairs, cost, Scoring(SHORT, online_updates=1, before=SHORT))
    tune_texture(student, pairs, matcher.layers, SHORT)
    folder = export_one_step(tmp_path / "one", model.pipe, student.module, tiny, "A test.", prompts[0])
    plain = StableDiffusionPipeline.from_pretrained(folder, safety_checker=None)
    plain.set_progress_bar_config(disable=True)
    z_T, _, label = pairs.batch(torch.tensor([0]))
    reference = plain(prompts[:1], num_inference_steps=1, guidance_scale=1.0, latents=z_T, output_type="pt").images
    with torch.no_grad():
        ours = decode(one_step(student, z_T, label, model.network.schedule))
    assert torch.allclose((ours / 2 + 0.5).clamp(0, 1), reference, atol=1e-4)
    assert (folder / "README.md").read_text().count("num_inference_steps=1, guidance_scale=1.0") == 1

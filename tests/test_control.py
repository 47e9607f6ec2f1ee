"""ControlNets on a small pipeline: triplets, shrinking, one step, and a plain pipeline of diffusers at the end."""

import copy
from functools import partial

import pytest
import torch
from diffusers import StableDiffusionControlNetPipeline

from distill_lib.engine.loop import TrainSettings
from distill_lib.measure.readers.geometry import Geometry, read_depth
from distill_lib.networks.autoencoders import TinyDecode, build_tiny
from distill_lib.networks.controlnet import Controlled, build_control, cut_control
from distill_lib.networks.pipeline import open_pipeline
from distill_lib.networks.pruning import Cut, prune
from distill_lib.sdxs import controlnet, score_distillation
from distill_lib.sdxs import triplets as sdxs_triplets
from distill_lib.sdxs.controlnet import distill_controlnet, one_step_control, train_controlnet
from distill_lib.sdxs.feature_matching import one_step_loss
from distill_lib.sdxs.one_step import one_step
from distill_lib.sdxs.scoring import Scoring
from distill_lib.sdxs.triplets import Triplets, mapped_pictures, resample_noise
from distill_lib.shipped.export import assembled
from distill_lib.teachers.latents import decoded, teacher_pairs
from distill_lib.worlds import pictures, scenes
from distill_lib.worlds.captions import attributes, drawn_attributes, names_held_out, say
from distill_lib.worlds.maps import canny

SHORT = TrainSettings(steps=2, batch_size=4, lr=1e-3, warmup=1, bf16=False)
LONG = TrainSettings(steps=15, batch_size=8, lr=3e-3, warmup=2, ema=0.5, bf16=False)


def loud(unet):
    torch.manual_seed(5)
    made = build_control(unet, 4)
    for part in (*made.controlnet_down_blocks, made.controlnet_mid_block, made.controlnet_cond_embedding.conv_out):
        torch.nn.init.normal_(part.weight, std=0.2)
    return made.requires_grad_(False)


@pytest.fixture
def pairs(small_pipeline, runs):
    model = open_pipeline(small_pipeline[0], bf16=False)
    return teacher_pairs(model, say(drawn_attributes(8, 0)), 2, 1.0, 5, "teacher")


@pytest.fixture
def reader():
    torch.manual_seed(4)
    return partial(read_depth, Geometry(8).requires_grad_(False))


@pytest.fixture
def teacher_control(pairs):
    return loud(pairs.model.network.module)


def moved(first, other):
    """Whether two networks of a form differ in a weight."""
    return any(not torch.equal(a, b) for a, b in zip(first.parameters(), other.parameters(), strict=True))


def small_of(model):
    return model.network.like(prune(model.network.module, Cut(middle="removed")).requires_grad_(False))


# --- noise and triplets


@pytest.mark.parametrize("share", [0.0, 0.25, 1.0])
def test_a_share_of_the_places_is_drawn_anew_in_all_channels(share):
    z_T, fresh = torch.randn(8, 4, 16, 16), torch.randn(8, 4, 16, 16)
    mixed = resample_noise(z_T, fresh, torch.rand(8, 256), share)
    resampled = mixed == fresh
    assert torch.equal(resampled.all(1), resampled.any(1)) and torch.equal(mixed[~resampled], z_T[~resampled])
    assert resampled.float().mean().item() == pytest.approx(share, abs=4 * 0.5 / 2048**0.5)  # four standard errors


def test_a_share_that_is_none_is_refused():
    with pytest.raises(ValueError, match=r"share=1.5 of the noise should lie in \[0, 1\]"):
        resample_noise(torch.zeros(1, 4, 2, 2), torch.zeros(1, 4, 2, 2), torch.zeros(1, 4), 1.5)


@pytest.mark.parametrize("kind", ["edges", "depth", "coarse"])
def test_a_triplet_is_the_pair_with_a_map_of_its_own_picture(kind, pairs, reader, teacher_control):
    triplets = Triplets.of(pairs, kind, reader, teacher_control)
    index = torch.tensor([3, 1])
    z_T, x, label = triplets.batch(index)
    noise, target, words = pairs.batch(index)
    assert torch.equal(z_T, noise) and torch.equal(x, target) and torch.equal(label[:, : words.shape[1]], words)
    seen = label[:, words.shape[1] :].flatten(1)[:, : triplets.seen[0].numel()]
    assert torch.equal(seen, triplets.seen[index].float().flatten(1))
    if kind == "edges":
        assert torch.equal(triplets.seen[:, 0] > 0, canny(decoded(pairs)))
    again = Triplets.of(pairs, kind, reader, teacher_control, 0.5).batch(index)
    assert not torch.equal(again[0], noise) and torch.equal(again[1], x) and torch.equal(again[2], label)


def test_triplets_of_teachers_that_differ_in_their_control_alone_are_told_apart(pairs, reader, teacher_control):
    other = build_control(pairs.model.network.module, 4)
    named = [Triplets.of(pairs, "edges", reader, control).model.fingerprint for control in (teacher_control, other)]
    assert len({*named, pairs.model.fingerprint}) == 3


def test_pictures_of_the_world_have_exact_maps_and_none_of_a_pair_held_out(pairs):
    data = mapped_pictures("edges", pairs.model, "pipe", "captioned", 6, 3)
    image, drawn = pictures.render_pictures(pictures.WORLDS["captioned"], 3, torch.arange(6))
    known = ~names_held_out(attributes(drawn, pictures.WORLDS["captioned"]))
    assert torch.equal(data.seen[:, 0] > 0, canny(image[known])) and len(data.prompts) == known.sum()
    assert torch.allclose(data.z.float(), pairs.model.latents(image[known]), atol=1e-2)


# --- the large one, and the small one


def test_the_teachers_learns_by_denoising_and_its_unet_does_not(pairs, reader, runs):
    model = pairs.model
    data = Triplets.of(pairs, "edges", reader, build_control(model.network.module, 4)).as_data()
    before = copy.deepcopy(model.network.module.state_dict())
    net = Controlled(model.network, build_control(model.network.module, 4).requires_grad_(True))
    train_controlnet(net, data, SHORT, 0.2)
    assert any(part.weight.any() for part in net.control.controlnet_down_blocks)
    assert all(torch.equal(weight, before[name]) for name, weight in model.network.module.state_dict().items())


def test_residuals_leave_a_cut_one_nothing_to_learn_but_the_decoder_does(pairs, reader, teacher_control):
    triplets = Triplets.of(pairs, "edges", reader, teacher_control)
    small = small_of(pairs.model)
    result = {
        way: distill_controlnet(small, triplets, teacher_control, SHORT, way).curve for way in ("residuals", "decoder")
    }
    assert result["residuals"][0][1] < 1e-10 and result["decoder"][0][1] > 1e-4


@pytest.mark.parametrize("way", controlnet.CONTROL_TARGETS)
def test_a_small_one_learns_in_every_way_and_only_it(way, pairs, reader, teacher_control):
    triplets, small = Triplets.of(pairs, "edges", reader, teacher_control), small_of(pairs.model)
    frozen = small.module, pairs.model.network.module, teacher_control
    before = [copy.deepcopy(part.state_dict()) for part in frozen]
    done = distill_controlnet(small, triplets, teacher_control, LONG, way, inherit=False)
    if way != "denoising":  # which cannot fall below the noise in it
        assert done.curve[-1][1] < 0.9 * done.curve[0][1]
    assert any(part.weight.any() for part in done.net.control.controlnet_down_blocks)
    for part, weights in zip(frozen, before, strict=True):
        assert all(torch.equal(weight, weights[name]) for name, weight in part.state_dict().items())


def test_an_unknown_way_is_named():
    with pytest.raises(ValueError, match="target='both' is unknown; choose one of decoder, residuals, denoising"):
        distill_controlnet(None, None, None, SHORT, "both")


# --- one step


def test_online_and_offline_model_both_see_the_map_through_the_teachers_frozen_control(
    pairs, reader, teacher_control, monkeypatch
):
    seen, real = [], score_distillation.distill_scores

    def watched(team, offline, *given, **named):
        seen.append((team, offline))
        return real(team, offline, *given, **named)

    monkeypatch.setattr(score_distillation, "distill_scores", watched)
    triplets, small = Triplets.of(pairs, "edges", reader, teacher_control, 0.5), small_of(pairs.model)
    student = Controlled(small, cut_control(teacher_control, small.module).requires_grad_(True))
    unet, offline_before = (
        copy.deepcopy(small.module.state_dict()),
        copy.deepcopy(pairs.model.network.module.state_dict()),
    )
    scoring = Scoring(SHORT, online_updates=1, before=SHORT)
    warm, done = one_step_control(student, triplets, one_step_loss("square"), SHORT, scoring)
    ((team, offline),) = seen
    online = team.members["online"]
    assert online.control is teacher_control and offline.control is teacher_control
    assert offline.network.module is pairs.model.network.module
    for net, weights in ((small, unet), (pairs.model.network, offline_before)):
        assert all(torch.equal(weight, weights[name]) for name, weight in net.module.state_dict().items())
    assert moved(online.module, offline.module)  # it has learned what the student draws
    assert done.net.control is not warm.net.control
    assert moved(done.net.control, warm.net.control)


def test_the_online_model_agrees_with_the_offline_one_before_it_learns(pairs, reader, teacher_control):
    triplets = Triplets.of(pairs, "edges", reader, teacher_control)
    offline = triplets.model.network
    online = offline.like(copy.deepcopy(offline.module))
    z_T, _, label = triplets.batch(torch.arange(2))
    with torch.no_grad():
        assert torch.equal(online(z_T, torch.tensor([500, 900]), label), offline(z_T, torch.tensor([500, 900]), label))


def test_from_prompts_to_a_plain_pipeline_without_a_picture_of_the_world(pairs, reader, teacher_control, monkeypatch):
    """After the teacher's ControlNet nothing is drawn of the world; diffusers alone then draws what we draw."""

    def poisoned(*_args, **_kwargs):
        raise AssertionError("a picture of the world was asked for")

    for module in (pictures, scenes, sdxs_triplets):
        for name in ("render", "rendered", "render_pictures", "rendered_once"):
            monkeypatch.setattr(module, name, poisoned, raising=False)
    model, small = pairs.model, small_of(pairs.model)
    triplets = Triplets.of(pairs, "edges", reader, teacher_control, 0.5)
    first = distill_controlnet(small, triplets, teacher_control, SHORT)
    tiny = build_tiny(3, 8, 1)
    over = small.like(small.module, decode=TinyDecode(tiny, bf16=False))
    student = Controlled(over, first.net.control.requires_grad_(True))
    done = one_step_control(student, triplets, one_step_loss("l1"), SHORT, Scoring(SHORT, online_updates=2))
    net = done[-1].net
    parts = assembled(model.pipe, small.module, tiny).components
    plain = StableDiffusionControlNetPipeline(**parts, controlnet=net.control, requires_safety_checker=False)
    plain.set_progress_bar_config(disable=True)
    z_T, _, label = triplets.batch(torch.tensor([0]))
    seen = triplets.seen[:1].float().repeat(1, 3, 1, 1)
    options = {"num_inference_steps": 1, "guidance_scale": 1.0, "latents": z_T, "output_type": "pt"}
    reference = plain(pairs.prompts[:1], seen, **options).images
    with torch.no_grad():
        ours = net.decode(one_step(net, z_T, label, net.schedule))
        other = net.decode(one_step(net, z_T, torch.cat([label[:, :7], 0 * label[:, 7:]], 1), net.schedule))
    assert torch.allclose((ours / 2 + 0.5).clamp(0, 1), reference, atol=1e-4)
    assert not torch.allclose(ours, other, atol=1e-4)  # the map is heeded


def test_a_run_goes_on_where_it_stood_and_a_share_makes_another(pairs, reader, teacher_control, runs):
    made = []
    for share in (0.0, 0.5, 0.0):
        triplets, small = Triplets.of(pairs, "edges", reader, teacher_control, share), small_of(pairs.model)
        student = Controlled(small, cut_control(teacher_control, small.module).requires_grad_(True))
        cost = one_step_loss("square")
        made += one_step_control(student, triplets, cost, SHORT, None)
    assert made[0].key == made[2].key != made[1].key
    assert torch.equal(made[0].net.control.conv_in.weight, made[2].net.control.conv_in.weight)

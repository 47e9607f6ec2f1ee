"""The network behind the metrics: what it is taught, and how pictures are degraded for it."""

from dataclasses import replace

import pytest
import torch
from torch.nn.functional import pad

from distill_lib.measure.readers.common import degrade
from distill_lib.measure.readers.extractor import (
    Extractor,
    extractor_loss,
    factors,
    factors_of_two,
    joint_label,
    picture_examples,
    scene_examples,
)
from distill_lib.worlds.pictures import WORLDS, Pictures
from distill_lib.worlds.scenes import draw_scenes

SINGLE = ("plain", "textured", "cluttered")


@pytest.mark.parametrize("name", SINGLE)
def test_each_factor_that_shows_has_about_unit_spread(name):
    spec = WORLDS[name]
    values, weights = factors(draw_scenes(spec, 0, torch.arange(2000)), spec)
    assert values.isfinite().all() and set(weights.unique().tolist()) <= {0.0, 1.0}
    for value, weight in zip(values.T, weights.T, strict=True):
        if weight.any():
            spread = value[weight > 0].std().item()
            # 0: the sign "no clutter" of a world without any
            assert spread == 0 or 0.3 < spread < 2


def test_the_factors_of_the_hardest_world_are_all_different():
    spec = WORLDS["cluttered"]
    values, weights = factors(draw_scenes(spec, 0, torch.arange(4000)), spec)
    for i in range(values.shape[1]):
        for j in range(i):
            both = (weights[:, i] * weights[:, j]) > 0
            related = torch.corrcoef(torch.stack([values[both, i], values[both, j]]))[0, 1].abs()
            assert not related > 0.95, (i, j)  # nan: one that is constant where both show


def test_all_worlds_have_the_same_columns():
    shapes = {factors(draw_scenes(WORLDS[n], 0, torch.arange(4)), WORLDS[n])[0].shape for n in SINGLE}
    assert len(shapes) == 1


def test_what_does_not_show_has_no_weight():
    spec = WORLDS["textured"]
    scenes = draw_scenes(spec, 0, torch.arange(500))
    turned = replace(scenes, rotation=scenes.rotation + 0.5)
    values, weights = factors(scenes, spec)
    moved = ((factors(turned, spec)[0] - values).abs() > 1e-6) & (weights > 0)
    shows = (scenes.shape[:, 0] == 1) | (scenes.texture[:, 0] == 2)  # cubes and checks
    assert not moved[~shows].any() and moved[shows].any(1).all()


def test_the_joint_class_is_a_class_for_each_of_shape_colour_and_texture():
    scenes = draw_scenes(WORLDS["textured"], 0, torch.arange(3000))
    assert torch.equal(joint_label(scenes), scenes.labels(WORLDS["textured"]))
    assert len(joint_label(scenes).unique()) == 96


def test_no_blur_and_no_grain_leave_a_picture_as_it_is():
    image = 2 * torch.rand(5, 3, 16, 16) - 1
    nothing = torch.zeros(5)
    assert torch.allclose(degrade(image, nothing, nothing, torch.randn_like(image)), image, atol=1e-6)


@pytest.mark.parametrize("blur", [0.6, 1.0, 1.2])
def test_a_point_is_blurred_to_a_gaussian_of_that_width(blur):
    image = pad(torch.ones(2, 3, 1, 1), (10, 10, 10, 10))  # 21 x 21
    out = degrade(image, torch.tensor([blur, 0.0]), torch.zeros(2), torch.zeros_like(image))
    place = torch.arange(21.0) - 10
    spread = (out[0, 0].sum(0) * place.square()).sum().sqrt().item()
    assert spread == pytest.approx(blur, rel=0.03)  # the kernel ends at 3 pixels
    assert out[0].sum((1, 2)) == pytest.approx([1, 1, 1], rel=1e-5)
    assert torch.equal(out[1], image[1])  # each picture has its own blur


def test_grain_is_noise_of_that_size():
    image, eps = torch.zeros(2, 3, 8, 8), torch.randn(2, 3, 8, 8)
    out = degrade(image, torch.zeros(2), torch.tensor([0.1, 0.0]), eps)
    assert torch.allclose(out[0], 0.1 * eps[0], atol=1e-6) and torch.equal(out[1], image[1])


def test_the_loss_takes_factors_by_their_weight():
    logits, label = torch.randn(4, 7), torch.arange(4)
    read, values = torch.randn(4, 3), torch.randn(4, 3)
    unseen = extractor_loss(logits, read, label, values, torch.zeros(4, 3))
    assert torch.allclose(unseen, torch.nn.functional.cross_entropy(logits, label, reduction="none"))
    seen = extractor_loss(logits, read, label, values, torch.ones(4, 3))
    assert torch.allclose(seen - unseen, 0.5 * (read - values).square().sum(1) / 3**0.5, atol=1e-5)


def test_worlds_of_two_looks_teach_the_look_as_one_more_factor():
    spec = WORLDS["textured"]
    image, label, values, weights = scene_examples([spec, WORLDS["sketch"]], 6, 3)
    assert image.shape == (12, 3, 32, 32) and torch.equal(label[:6], label[6:])  # the same scenes
    assert (values[:6, -1] == -values[6:, -1]).all() and (weights[:, -1] == 1).all()
    of_one_look = scene_examples([spec, WORLDS["plain"]], 6, 3)[2]
    assert of_one_look.shape[1] == values.shape[1] - 1 and torch.equal(of_one_look[:6], values[:6, :-1])


def test_real_pictures_teach_their_own_grey_squares():
    image = torch.zeros(2, 3, 32, 32, dtype=torch.uint8)
    image[1, :, :4, 4:8] = 255
    pictures = Pictures(image, torch.tensor([3, 5]), tuple("abcdef"))
    x, label, values, weights = picture_examples(pictures)
    assert x is image and label.tolist() == [3, 5] and (weights == 1).all()
    assert (values[0] == -2).all() and values[1, 1] == 2 and values[1].sum() == 2 - 2 * 63


def test_the_factors_of_two_objects_are_those_of_the_left_one_and_then_of_the_right_one():
    spec = WORLDS["captioned"]
    scenes = draw_scenes(spec, 0, torch.arange(50))
    values, weights = factors_of_two(scenes, spec)
    n = factors(scenes, spec)[0].shape[1]
    assert values.shape == weights.shape == (50, n + 9)
    left, right = values[:, 0], values[:, n]  # 2 x of either
    assert torch.equal(torch.stack([left, right], 1), 2 * scenes.position[:, :2, 0].sort(1).values)
    order = torch.tensor([1, 0, *range(2, scenes.shape.shape[1])])
    names = ("shape", "color", "texture", "present", "position", "size", "rotation", "albedo", "frequency")
    stored = replace(scenes, **{name: getattr(scenes, name)[:, order] for name in names})
    assert torch.equal(factors_of_two(stored, spec)[0], values)  # however they are stored
    turned = replace(scenes, light=scenes.light + 0.3)
    assert ((factors_of_two(turned, spec)[0] != values).sum(1) == 1).all()  # what is the scene's is there once


def test_pictures_of_64_are_read_at_64_by_a_network_made_for_them():
    torch.manual_seed(0)
    fine, coarse = Extractor(4, 3, width=8, side=64), Extractor(4, 3, width=8)
    image = torch.rand(2, 3, 64, 64) * 2 - 1
    grain = 0.3 * (-1.0) ** torch.arange(64)  # is gone in the mean of two pixels
    assert torch.allclose(coarse(image)[0], coarse(image + grain)[0], atol=1e-5)
    assert not torch.allclose(fine(image)[0], fine(image + grain)[0], atol=1e-2)
    assert fine(image)[0].shape == (2, 64)

"""Reading shape off pictures: the measures on masks and depths made by hand, the training on a few pictures."""

from types import SimpleNamespace

import pytest
import torch

from distill_lib.diffusion.noise import normal
from distill_lib.engine import store
from distill_lib.engine.loop import TrainSettings
from distill_lib.measure.readers import geometry
from distill_lib.measure.readers.geometry import Geometry, depth_error, geometry_loss, mask_iou, train_geometry
from distill_lib.worlds.pictures import WORLDS
from distill_lib.worlds.scenes import draw_scenes, render, rendered


def test_a_reader_answers_in_the_size_of_the_picture_and_within_the_depths_of_a_scene():
    torch.manual_seed(0)
    for size in (16, 32, 64):
        mask, depth = Geometry()(torch.rand(2, 3, size, size) * 2 - 1)
        assert mask.shape == depth.shape == (2, size, size)
        assert depth.min() > 0 and depth.max() < 12


def test_rendered_scenes_are_those_of_the_world_whatever_the_batch():
    spec, index = WORLDS["sketch"], torch.arange(40)
    image, depth, mask = rendered(spec, draw_scenes(spec, 3, index))
    single = render(draw_scenes(spec, 3, index[37:38]), spec)
    assert torch.equal(image[37], (single.image[0] * 127.5 + 127.5).round().to(torch.uint8))
    assert torch.equal(depth[37], single.depth[0, 0].half()) and torch.equal(mask[37], single.masks[0, 0].half())


def hand(monkeypatch, logits, depth):
    monkeypatch.setattr(geometry, "answers_of", lambda net, image: (logits, depth))
    return torch.zeros(len(logits), 3, 4, 4, dtype=torch.uint8)


def test_iou_counts_the_pixels_of_both(monkeypatch):
    true = torch.zeros(3, 4, 4)
    true[:, :2] = 1  # 8 pixels
    result = torch.full((3, 4, 4), -1.0)
    result[0, :2] = 1  # the same
    result[1, 1:3] = 1  # half of them, and 4 others
    image = hand(monkeypatch, result, torch.zeros(3, 4, 4))
    assert mask_iou(None, image, true).tolist() == pytest.approx([1, 4 / 12, 0])


def test_the_depth_is_compared_on_the_solid_alone(monkeypatch):
    mask = torch.zeros(1, 4, 4)
    mask[0, 0, :2] = 1
    true, result = torch.full((1, 4, 4), 3.0), torch.full((1, 4, 4), 9.0)
    result[0, 0, :2] = torch.tensor([3.5, 2.0])
    image = hand(monkeypatch, mask, result)
    assert depth_error(None, image, mask, true).tolist() == pytest.approx([0.75])


def test_the_loss_is_least_at_the_truth_and_counts_the_solid_more():
    mask = torch.zeros(2, 4, 4)
    mask[:, :2] = 1
    depth = torch.full((2, 4, 4), 3.0)
    right = geometry_loss(20 * (2 * mask - 1), depth, mask, depth)
    assert right.shape == (2,) and right.max() < 1e-6
    on, off = depth.clone(), depth.clone()
    on[:, :2] += 1
    off[:, 2:] += 1
    wrong = [geometry_loss(20 * (2 * mask - 1), moved, mask, depth)[0].item() for moved in (on, off)]
    assert wrong == pytest.approx([0.25, 0.05], abs=1e-5)


def test_training_lowers_the_loss_of_a_few_pictures(runs):
    torch.manual_seed(0)
    net = Geometry(width=8)
    train_settings = TrainSettings(steps=60, batch_size=16, lr=5e-3, warmup=5, bf16=False)
    run = store.Run("test", {"name": "geometry"}, normal)
    trainable = SimpleNamespace(module=net, forward=net)
    history = list(train_geometry(trainable, [WORLDS["textured"], WORLDS["sketch"]], 8, train_settings, run))
    assert history[-1].loss < 0.6 * history[0].loss

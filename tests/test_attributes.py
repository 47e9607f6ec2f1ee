"""Attributes are those that the caption says, and the two accuracies count what they say they count."""

from types import SimpleNamespace

import pytest
import torch

from distill_lib.engine import store
from distill_lib.engine.loop import TrainSettings
from distill_lib.measure.readers.attributes import (
    AttributeReader,
    attribute_accuracy,
    attribute_loss,
    prompt_accuracy,
    read_attributes,
    train_reader,
)
from distill_lib.worlds.captions import attributes
from distill_lib.worlds.pictures import WORLDS, render_pictures
from distill_lib.worlds.scenes import draw_scenes

SPEC = WORLDS["captioned"]


def test_accuracies_count_attributes_in_either_order_and_whole_prompts_in_theirs():
    wanted_attributes = torch.tensor([[[0, 1, 2, 0], [3, 4, 0, 1]]]).repeat(4, 1, 1)
    result = wanted_attributes.clone()
    result[1] = wanted_attributes[1].flip(0)  # exchanged places
    result[2, 0, 1] = 7  # another colour
    result[3, 1, 3] = 0  # not small
    assert attribute_accuracy(result, wanted_attributes).tolist() == [1, 1, 0.75, 1]
    assert prompt_accuracy(result, wanted_attributes).tolist() == [1, 0, 0, 0]


def test_the_loss_is_the_mean_cross_entropy_of_every_attribute():
    torch.manual_seed(0)
    logits, truth = torch.randn(3, 2, 17), attributes(draw_scenes(SPEC, 1, torch.arange(3)), SPEC)
    loss = attribute_loss(logits, truth)
    for i in range(3):
        each = [
            -part.log_softmax(0)[right]
            for side in range(2)
            for part, right in zip(logits[i, side].split((4, 8, 3, 2)), truth[i, side], strict=True)
        ]
        assert loss[i].item() == pytest.approx(torch.stack(each).mean().item(), rel=1e-5)


def test_a_reader_learns_a_few_pictures_by_heart(tmp_path, monkeypatch):
    monkeypatch.setattr(store, "RUNS", tmp_path)
    torch.manual_seed(0)
    image, scenes = render_pictures(SPEC, 0, torch.arange(8))
    truth, net = attributes(scenes, SPEC), AttributeReader(width=8)
    assert prompt_accuracy(read_attributes(net, image), truth).mean() < 0.2
    settings = TrainSettings(steps=60, batch_size=8, lr=3e-3, warmup=5, ema=0.5, bf16=False)
    run = store.Run("reader", {}, train_reader)
    history = list(train_reader(SimpleNamespace(module=net, forward=net), image, truth, settings, run))
    net.load_state_dict(run.weights())
    assert history[-1].loss < 0.5 * history[0].loss
    assert attribute_accuracy(read_attributes(net, image), truth).mean() > 0.8

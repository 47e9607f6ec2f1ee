"""Networks for feature matching: layers of known sizes, which learn to read, and which see blur."""

from types import SimpleNamespace

import pytest
import torch

from distill_lib.engine.loop import TrainSettings, finish
from distill_lib.engine.store import Run
from distill_lib.measure.readers.attributes import read_attributes, train_reader
from distill_lib.measure.readers.common import degrade
from distill_lib.sdxs.feature_matching import feature_matching_loss
from distill_lib.sdxs.matchers import LOGITS, MATCHERS, ConvMatcher

SIZES = {"cnn": [(8, 32, 32), (16, 16, 16), (24, 8, 8), (32, 4, 4)], "vit": [(8, 4, 4)] * 3}


def built(name):
    torch.manual_seed(0)
    return MATCHERS[name](8, 32)


@pytest.mark.parametrize("name", MATCHERS)
def test_layers_and_answers_have_their_sizes(name):
    net, image = built(name), torch.rand(2, 3, 32, 32)
    assert [tuple(layer.shape[1:]) for layer in net.layers(image)] == SIZES[name]
    assert net(image).shape == (2, 2, LOGITS)


@pytest.mark.parametrize("name", MATCHERS)
def test_a_network_learns_to_read(name, runs):
    """Four pictures that are distinguishable by their colour alone, each with attributes of its own."""
    colours = torch.tensor([[200, 20, 20], [20, 200, 20], [20, 20, 200], [200, 200, 20]], dtype=torch.uint8)
    image = colours[:, :, None, None].expand(-1, -1, 32, 32).contiguous()
    truth = torch.tensor([[[0, 1, 0, 1], [1, 2, 1, 0]]]).repeat(4, 1, 1)
    truth[:, 0, 1] = torch.arange(4)
    net = built(name)
    settings = TrainSettings(steps=60, batch_size=16, lr=3e-3, warmup=5, ema=0.5, bf16=False)
    run = Run(name, {}, ConvMatcher)
    trainable = SimpleNamespace(module=net, forward=net)
    finish(trainable, train_reader(trainable, image, truth, settings, run), run, name)
    assert torch.equal(read_attributes(net, image), truth)


@pytest.mark.parametrize("name", MATCHERS)
def test_features_move_with_blur(name):
    net, image = built(name), torch.rand(4, 3, 32, 32) * 2 - 1
    blurred = degrade(image, torch.full((4,), 1.2), torch.zeros(4), torch.zeros_like(image))
    loss = feature_matching_loss(net.layers(blurred), net.layers(image))
    same = feature_matching_loss(net.layers(image), net.layers(image))
    assert (loss > same + 0.01).all()

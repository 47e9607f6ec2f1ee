"""Networks for feature matching: layers of known sizes, which learn to read, and which see blur."""

from types import SimpleNamespace

import pytest
import torch
from torch import nn

from distill_lib.diffusion.pixels import to_unit
from distill_lib.engine.loop import TrainSettings, finish
from distill_lib.engine.store import Run
from distill_lib.measure.readers.attributes import read_attributes, train_on_clean, train_reader
from distill_lib.measure.readers.common import degrade
from distill_lib.sdxs.feature_matching import ByMatcher, feature_matching_loss, one_step_loss
from distill_lib.sdxs.matchers import MATCHERS, ConvMatcher
from distill_lib.worlds.vocabulary import SCENES, STUDIO

LEVELS = [(8, 32, 32), (16, 16, 16), (24, 8, 8), (32, 4, 4)]
SIZES = {"cnn": LEVELS, "vit": [(8, 4, 4)] * 3, "plain": LEVELS}


def built(name):
    torch.manual_seed(0)
    return MATCHERS[name](8, 32)


@pytest.mark.parametrize("name", MATCHERS)
def test_layers_and_answers_have_their_sizes(name):
    net, image = built(name), torch.rand(2, 3, 32, 32)
    assert [tuple(layer.shape[1:]) for layer in net.layers(image)] == SIZES[name]
    assert net(image).shape == (2, 2, SCENES.logits)


@pytest.mark.parametrize("name", MATCHERS)
def test_a_network_learns_to_read(name, runs):
    """Four pictures that are distinguishable by their colour alone, each with attributes of its own."""
    colours = torch.tensor([[200, 20, 20], [20, 200, 20], [20, 20, 200], [200, 200, 20]], dtype=torch.uint8)
    image = colours[:, :, None, None].expand(-1, -1, 32, 32).contiguous()
    truth = torch.tensor([[[0, 1, 0, 1], [1, 2, 1, 0]]]).repeat(4, 1, 1)
    truth[:, 0, 1] = torch.arange(4)
    net = built(name)
    steps = 100 if name == "plain" else 60  # nothing centres its features: of 3 starts 1 has a colour wrong after 60
    settings = TrainSettings(steps=steps, batch_size=16, lr=3e-3, warmup=5, ema=0.5, bf16=False)
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


def test_a_plain_matcher_has_no_layer_that_re_scales_and_weakens_with_the_picture():
    net = built("plain")
    kinds = {type(m) for m in net.modules() if not list(m.children())}
    assert kinds == {nn.Conv2d, nn.ReLU, nn.AvgPool2d, nn.Linear}
    image = torch.rand(2, 3, 32, 32)
    for weak, strong in zip(net.layers(image / 2), net.layers(image), strict=True):
        assert torch.allclose(weak, strong / 2, atol=1e-6)  # biases start at 0: features are positively homogeneous
    weak, strong = (built("cnn").layers(x)[0] for x in (image / 100, image))
    assert weak.std() > 0.1 * strong.std()  # while a normalisation gives the contrast back


def test_features_of_a_plain_matcher_keep_their_size_from_level_to_level():
    layers = MATCHERS["plain"](24, 64).layers(torch.randn(4, 3, 64, 64))
    # He's start; pooling between levels takes a little
    assert all(0.3 < layer.square().mean().sqrt() < 3 for layer in layers)


def test_words_of_another_world_make_other_answers():
    assert MATCHERS["plain"](8, 32, STUDIO)(torch.rand(2, 3, 32, 32)).shape == (2, 2, STUDIO.logits)


def test_the_picture_is_the_first_layer_and_windows_belong_to_layers():
    net, x = built("plain"), torch.rand(2, 3, 32, 32) * 2 - 1
    see = ByMatcher(net, lambda z: z, picture=True)
    assert torch.equal(see(x)[0], (x + 1) / 2) and [len(layer[0]) for layer in see(x)] == [3, 8, 16, 24, 32]
    cost = {w: one_step_loss("matching", see, window=(w, 0, 0, 0, 0), weights=(1, 0, 0, 0, 0)) for w in (0, 7)}
    # detail that one corner alone has is much of a window there, and little of a whole map that has steps elsewhere
    steps = torch.where(torch.arange(32) < 16, 0.8, -0.8).expand(2, 3, 32, 32).clone()
    detail = steps.clone()
    detail[..., :8, :8] += 0.1 * torch.randn(2, 3, 8, 8)
    assert cost[0](steps, steps).abs().max() < 1e-4
    assert cost[7](steps, detail).min() > 3 * cost[0](steps, detail).max()
    with pytest.raises(ValueError, match="5 weights and 2 windows for 5 layers"):
        one_step_loss("matching", see, window=(7, 7), weights=(1, 1, 1, 1, 1))(x, x)


def test_clean_training_shows_pictures_as_they_are(runs):
    image = torch.randint(0, 256, (4, 3, 32, 32), dtype=torch.uint8)
    truth = torch.zeros(4, 2, 4, dtype=torch.long)
    for train, more, clean in ((train_on_clean, [SCENES.kinds], True), (train_reader, [], False)):
        net, seen = built("plain"), []
        trainable = SimpleNamespace(module=net, forward=lambda x, net=net, seen=seen: seen.append(x) or net(x))
        settings = TrainSettings(steps=2, batch_size=16, lr=1e-3, warmup=1, ema=0.0, bf16=False)
        list(train(trainable, image, truth, *more, settings, Run(train.__name__, {}, ConvMatcher)))
        distance = (torch.cat(seen)[:, None] - to_unit(image)).abs().flatten(2).amax(2).amin(1)
        assert (distance < 1e-5).all() == clean


def test_blur_costs_a_plain_matcher_with_the_picture_more_than_one_that_normalises():
    torch.manual_seed(1)
    image = torch.rand(4, 3, 32, 32) * 2 - 1
    blurred = degrade(image, torch.full((4,), 0.45), torch.zeros(4), torch.zeros_like(image))
    losses = {}
    for name, picture in (("cnn", False), ("plain", True)):
        see = ByMatcher(built(name), lambda z: z, picture)
        losses[name] = one_step_loss("matching", see)(blurred, image).mean().item()
    assert losses["plain"] > losses["cnn"]

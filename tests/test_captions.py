"""Captions say what the scene holds."""

import torch

from distill_lib.worlds.captions import captions
from distill_lib.worlds.datasets import WORLDS
from distill_lib.worlds.scenes import class_names, draw_scenes


def test_a_caption_of_one_object_holds_the_name_of_its_class():
    spec = WORLDS["textured"]
    scenes = draw_scenes(spec, 0, torch.arange(64))
    names = class_names(spec)
    for caption, label in zip(captions(scenes, spec), scenes.labels(spec).tolist(), strict=True):
        assert caption.removeprefix("a ").removeprefix("small ") == names[label].removeprefix("plain ")


def test_a_caption_of_two_objects_says_which_stands_left():
    spec = WORLDS["captioned"]
    scenes = draw_scenes(spec, 0, torch.arange(64))
    for i, caption in enumerate(captions(scenes, spec)):
        first, second = scenes.position[i, :2, 0]
        assert (" left of a " in caption) == bool(first < second)
        assert (" right of a " in caption) == bool(first > second)


def test_small_is_said_of_about_a_third_of_the_objects():
    spec = WORLDS["plain"]
    said = [" small " in caption for caption in captions(draw_scenes(spec, 0, torch.arange(600)), spec)]
    assert abs(sum(said) / 600 - 1 / 3) < 4 * (2 / 9 / 600) ** 0.5  # four standard errors of a share of 1/3

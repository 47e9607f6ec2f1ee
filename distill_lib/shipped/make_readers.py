"""Making the shipped networks that read pictures: extractor, geometry, layout, attributes; and the matchers."""

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import torch
from torch import nn

from distill_lib.engine import store
from distill_lib.engine.loop import follow
from distill_lib.engine.trainable import Bare
from distill_lib.measure.readers.attributes import AttributeReader, train_reader
from distill_lib.measure.readers.extractor import Extractor, picture_lessons, scene_lessons, train_extractor
from distill_lib.measure.readers.geometry import Geometry, train_geometry
from distill_lib.measure.readers.layout import Layout, train_layout
from distill_lib.sdxs.matchers import MATCHERS
from distill_lib.shipped.pretrained import RECIPES
from distill_lib.shipped.settings import _COMPILED, _of_data, pictures_of, settings_of
from distill_lib.shipped.write import ship_reader
from distill_lib.teachers.latents import captioned
from distill_lib.worlds.pictures import WORLDS
from distill_lib.worlds.scenes import COLORS, SHAPES, TEXTURES


def make_extractor(name: str) -> None:
    """Train the network behind the metrics, on several worlds of single objects or on one set of real data."""
    recipe = RECIPES["extractors"][name]
    torch.manual_seed(recipe["seed"])
    if "worlds" in recipe:
        lessons = scene_lessons([WORLDS[world] for world in recipe["worlds"]], recipe["count"], recipe["seed"])
        n_classes = len(SHAPES) * len(COLORS) * len(TEXTURES)
    else:
        pictures = pictures_of(recipe)
        recipe = _of_data(recipe, pictures)
        lessons, n_classes = picture_lessons(pictures), len(pictures.names)
    net = Extractor(n_classes, lessons[2].shape[1] + 2, side=lessons[0].shape[-1])  # and blur and grain
    run = store.Run(f"extractor-{name}", recipe, train_extractor)
    if not run.done:
        forward = torch.compile(net, dynamic=False) if _COMPILED else net
        trainable = SimpleNamespace(module=net, forward=forward)
        follow(train_extractor(trainable, lessons, settings_of(recipe), run), f"extractor {name}", 30)
    ship_reader(f"extractor-{name}", run, recipe)


def make_geometry(name: str) -> None:
    """Train the network that reads masks and depth, on worlds of several looks."""
    recipe = RECIPES["geometries"][name]
    torch.manual_seed(recipe["seed"])
    net = Geometry()
    run = store.Run(f"geometry-{name}", recipe, train_geometry)
    if not run.done:
        forward = torch.compile(net, dynamic=False) if _COMPILED else net
        worlds = [WORLDS[world] for world in recipe["worlds"]]
        trainable = SimpleNamespace(module=net, forward=forward)
        follow(train_geometry(trainable, worlds, recipe["count"], settings_of(recipe), run), f"geometry {name}", 30)
    ship_reader(f"geometry-{name}", run, recipe)


def make_layout(name: str) -> None:
    """Train the network that reads where two solids stand, on worlds that differ in their look."""
    recipe = RECIPES["layouts"][name]
    torch.manual_seed(recipe["seed"])
    net = Layout()
    run = store.Run(f"layout-{name}", recipe, train_layout)
    if not run.done:
        worlds, trainable = [WORLDS[world] for world in recipe["worlds"]], Bare(net)
        follow(train_layout(trainable, worlds, recipe["count"], settings_of(recipe), run), f"layout {name}", 30)
    ship_reader(f"layout-{name}", run, recipe)


def make_attributes(name: str) -> None:
    """Train the network that reads what a picture of two objects shows."""
    _make_reader(f"attributes-{name}", RECIPES["attributes"][name], AttributeReader)


def make_matcher(name: str) -> None:
    """Train a network to read the same, for its features."""
    _make_reader(f"matcher-{name}", RECIPES["matchers"][name], MATCHERS[name])


def _make_reader(name: str, recipe: dict[str, Any], build: Callable[..., nn.Module]) -> None:
    image, asked = captioned(recipe["world"], recipe["count"], recipe["seed"])
    torch.manual_seed(recipe["seed"])
    net = build(recipe["width"], image.shape[-1])
    run = store.Run(name, recipe, build, train_reader, captioned)
    if not run.done:
        forward = torch.compile(net, dynamic=False) if _COMPILED else net
        trainable = SimpleNamespace(module=net, forward=forward)
        follow(train_reader(trainable, image, asked, settings_of(recipe), run), name, 30)
    ship_reader(name, run, recipe)

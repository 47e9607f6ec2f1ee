"""Making the shipped networks that read pictures: extractor, geometry, layout, attributes, CLIP; and the matchers."""

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import torch
from torch import nn

from distill_lib.engine import store
from distill_lib.engine.loop import Progress, finish
from distill_lib.engine.trainable import Bare
from distill_lib.measure.readers.attributes import AttributeReader, train_on_clean, train_reader
from distill_lib.measure.readers.extractor import Extractor, picture_examples, scene_examples, train_extractor
from distill_lib.measure.readers.geometry import Geometry, train_geometry
from distill_lib.measure.readers.layout import Layout, train_layout
from distill_lib.measure.readers.studio import StudioReader, details, in_all_glyphs, train_studio_reader
from distill_lib.sdxs.matchers import MATCHERS
from distill_lib.shipped.pretrained import RECIPES
from distill_lib.shipped.settings import COMPILED, pictures_of, settings_of, with_parents
from distill_lib.shipped.write import ship_reader
from distill_lib.teachers.latents import captioned
from distill_lib.teachers.small_diffusion import make_clip
from distill_lib.worlds.captions import attributes
from distill_lib.worlds.pictures import WORLDS, rendered_once
from distill_lib.worlds.scenes import class_names
from distill_lib.worlds.studio import StudioSpec
from distill_lib.worlds.vocabulary import vocabulary_of


def make_extractor(name: str) -> None:
    """Train the network behind the metrics, on several worlds of single objects or on one set of real data."""
    recipe = RECIPES["extractor"][name]
    if "worlds" in recipe:
        examples = scene_examples(_worlds(recipe), recipe["count"], recipe["seed"])
        n_classes = max(len(class_names(world)) for world in _worlds(recipe))
    else:
        pictures = pictures_of(recipe)
        recipe = with_parents(recipe, pictures.fingerprint)
        examples, n_classes = picture_examples(pictures), len(pictures.names)
    n_factors = examples[2].shape[1] + 2  # and blur and grain
    build = partial(Extractor, n_classes, n_factors, side=examples[0].shape[-1])
    _make(f"extractor-{name}", recipe, build, train_extractor, examples)


def make_geometry(name: str) -> None:
    """Train the network that reads masks and depth, on worlds of several looks."""
    recipe = RECIPES["geometry"][name]
    _make(f"geometry-{name}", recipe, Geometry, train_geometry, _worlds(recipe), recipe["count"])


def make_layout(name: str) -> None:
    """Train the network that reads where two solids stand, on worlds that differ in their look."""
    recipe = RECIPES["layout"][name]
    _make(f"layout-{name}", recipe, Layout, train_layout, _worlds(recipe), recipe["count"])


def make_attributes(name: str) -> None:
    """Train the network that reads what a picture of two objects shows, in the studio also glyph and floor."""
    recipe = RECIPES["attributes"][name]
    world = WORLDS[recipe["world"]]
    if isinstance(world, StudioSpec):
        image, scenes = rendered_once(world, recipe["seed"], recipe["count"])
        build = partial(StudioReader, recipe["width"], image.shape[-1])
        truth, mixed = (attributes(scenes, world), details(scenes)), {"spec": world, **recipe["mixed"]}
        every = store.cached("glyphs", mixed, lambda: {"image": in_all_glyphs(**mixed)}, in_all_glyphs)["image"]
        _make(f"attributes-{name}", recipe, build, train_studio_reader, image, truth, every)
    else:
        _make_on_captions("attributes", name, AttributeReader)


def make_matcher(name: str) -> None:
    """Train a network to read the same, for its features; with `clean` on pictures as they are."""
    recipe = RECIPES["matcher"][name]
    network = MATCHERS[recipe.get("network", name)]
    if not recipe.get("clean"):
        _make_on_captions("matcher", name, network)
        return
    words = vocabulary_of(WORLDS[recipe["world"]])
    image, wanted_attributes = captioned(recipe["world"], recipe["count"], recipe["seed"])
    build = partial(network, recipe["width"], image.shape[-1], words)
    _make(f"matcher-{name}", recipe, build, train_on_clean, image, wanted_attributes, words.kinds)


def make_judge(name: str) -> None:
    """Train a mini CLIP that measures, on all captions."""
    recipe = RECIPES["clip"][name]
    image, wanted_attributes = captioned(recipe["world"], recipe["count"], recipe["seed"])
    ship_reader(
        f"clip-{name}", make_clip(recipe, image, wanted_attributes, {"world": WORLDS[recipe["world"]]})[1], recipe
    )


def _worlds(recipe: dict[str, Any]) -> list[Any]:
    return [WORLDS[world] for world in recipe["worlds"]]


def _make_on_captions(kind: str, name: str, network: Callable[..., nn.Module]) -> None:
    recipe = RECIPES[kind][name]
    image, wanted_attributes = captioned(recipe["world"], recipe["count"], recipe["seed"])
    build = partial(network, recipe["width"], image.shape[-1])
    _make(f"{kind}-{name}", recipe, build, train_reader, image, wanted_attributes)


def _make(
    name: str,
    recipe: dict[str, Any],
    build: Callable[[], nn.Module],
    train: Callable[..., Iterator[Progress]],
    *data: Any,
) -> None:
    """Train a reader on data by the settings of its recipe, and ship it."""
    torch.manual_seed(recipe["seed"])
    net = Bare(build(), COMPILED)
    run = store.Run(name, recipe | {"data": data}, train, type(net.module))
    finish(net, train(net, *data, settings_of(recipe), run), run, name)
    ship_reader(name, run, recipe)

"""Making the shipped weights, by the recipes of `shipped/recipes.yaml`.

`make teachers [NAMES=..]` makes what is missing in `pretrained/`, or the named.
"""

import argparse
from typing import Any

import torch
from diffusers import UNet2DConditionModel

from distill_lib.engine import store
from distill_lib.engine.loop import follow
from distill_lib.guided.stage_one import distill_guidance
from distill_lib.networks.adapter import Network
from distill_lib.networks.pipeline import Latents
from distill_lib.networks.unet import build_unet, student_of
from distill_lib.shipped import pretrained
from distill_lib.shipped.make_control import make_controlnet, make_one_control
from distill_lib.shipped.make_lora import make_lora
from distill_lib.shipped.make_readers import make_attributes, make_extractor, make_geometry, make_layout, make_matcher
from distill_lib.shipped.make_sdxs import make_one_step, make_pairs, make_tiny_decoder, make_tiny_unet
from distill_lib.shipped.pretrained import RECIPES, inpaint_network, key, made, pipeline, teacher
from distill_lib.shipped.settings import _COMPILED, _of_data, pictures_of, settings_of
from distill_lib.shipped.write import ship, ship_reader, write_origin
from distill_lib.teachers.denoising import train_teacher
from distill_lib.teachers.inpainting import Masked, inpainter, inpainting_of, masked_pictures
from distill_lib.teachers.latents import captioned, latent_pictures
from distill_lib.teachers.small_diffusion import make_clip, train_small_diffusion
from distill_lib.worlds.pictures import REAL, WORLDS, Pictures, check_real

_KINDS = {"extractors": "extractor", "geometries": "geometry", "teachers": "teacher", "students": "student"}
_KINDS |= {"attributes": "attributes", "clips": "clip", "pipelines": "pipeline", "textstudents": "textstudent"}
_KINDS |= {"inpainters": "inpainter", "inpaintstudents": "inpaintstudent", "matchers": "matcher"}
_KINDS |= {"pairs": "pairs", "tinydecoders": "tinydecoder", "tinyunets": "tinyunet", "onesteps": "onestep"}
_KINDS |= {"layouts": "layout", "loras": "lora"}
_KINDS |= {"controlnets": "controlnet", "onecontrols": "onecontrol"}


def make_teacher(name: str) -> None:
    """Train the teacher of a world, from `start` (a teacher of the same classes) where the recipe names one.

    `then` holds settings that differ in a second training, which goes on from the weights of the first.
    """
    pictures = pictures_of(RECIPES["teachers"][name])
    recipe = _of_data(RECIPES["teachers"][name], pictures)
    if "start" in recipe:
        unet = teacher(recipe["start"])
        recipe["start"] = made(f"teacher-{recipe['start']}")["weights"]
    else:
        torch.manual_seed(recipe["seed"])  # initial weights are diffusers' own
        sizes = RECIPES["networks"][recipe["network"]]
        unet = build_unet(resolution=pictures.image.shape[-1], n_classes=len(pictures.names), **sizes)
    first = {key: value for key, value in recipe.items() if key != "then"}
    runs = [_train_teacher(name, unet, pictures, first)]
    if "then" in recipe:
        runs.append(_train_teacher(name, unet, pictures, first | recipe["then"] | {"start": runs[0].key}))
    ship(f"teacher-{name}", unet, runs, recipe, f"make teachers NAMES=teacher-{name}")


def _train_teacher(name: str, unet: UNet2DConditionModel, pictures: Pictures, config: dict[str, Any]) -> store.Run:
    """One training; leaves its averaged weights in the network."""
    run = store.Run(f"teacher-{name}", config, train_teacher)
    training = train_teacher(
        Network(unet, compiled=_COMPILED), pictures, settings_of(config), run, config.get("drop", 0.1)
    )
    if not run.done:
        follow(training, f"teacher {name}", 30)
    unet.load_state_dict(run.weights())
    return run


def make_student(name: str) -> None:
    """Stage one: distil the guided pair of a teacher into one network that takes w."""
    recipe = RECIPES["students"][name]
    settings, pictures, net = settings_of(recipe), pictures_of(recipe), teacher(recipe["teacher"])
    recipe = _of_data(recipe, pictures)
    student = Network(student_of(net), compiled=_COMPILED)
    pair = Network(net.requires_grad_(False), compiled=_COMPILED)
    parent = made(f"teacher-{recipe['teacher']}")["weights"]
    run = store.Run(f"student-{name}", recipe | {"teacher": parent}, distill_guidance)
    if not run.done:
        follow(distill_guidance(student, pair, pictures, settings, run, recipe["w_max"]), f"stage one {name}", 30)
    ship(f"student-{name}", student.module, [run], run.config, f"make teachers NAMES=student-{name}")


def make_judge(name: str) -> None:
    """Train a mini CLIP that measures, on all captions."""
    recipe = RECIPES["clips"][name]
    image, asked = captioned(recipe["world"], recipe["count"], recipe["seed"])
    ship_reader(f"clip-{name}", make_clip(recipe, image, asked, {"world": WORLDS[recipe["world"]]})[1], recipe)


def make_text_student(name: str) -> None:
    """Stage one in latents: the guided pair of a pipeline folded into one network that takes w."""
    recipe = RECIPES["textstudents"][name]
    source = f"pipeline-{recipe['pipeline']}"
    told = pipeline(recipe["pipeline"])
    pictures = latent_pictures(told, key(source), recipe["world"], recipe["count"], recipe["seed"])
    _fold(f"textstudent-{name}", told.network, pictures, recipe, {"pipeline": made(source)["weights"]})


def _fold(
    name: str, pair: Network, pictures: Latents | Masked, recipe: dict[str, Any], parents: dict[str, str]
) -> None:
    """Ship the student of stage one of a pair in latents; `parents` stands in for what the recipe names."""
    student, config = pair.student(), recipe | parents
    run = store.Run(name, config, distill_guidance, masked_pictures)
    if not run.done:
        follow(distill_guidance(student, pair, pictures, settings_of(recipe), run, recipe["w_max"]), name, 30)
    ship(name, student.module, [run], config, f"make teachers NAMES={name}")


def make_inpainter(name: str) -> None:
    """Train the U-Net of a pipeline on, with a mask and the rest of the picture shown to it."""
    recipe = RECIPES["inpainters"][name]
    told, source = pipeline(recipe["pipeline"]), f"pipeline-{recipe['pipeline']}"
    net = inpainter(told, inpainting_of(told.network.module).requires_grad_(True))
    config = recipe | {"pipeline": made(source)["weights"]}
    run = store.Run(f"inpainter-{name}", config, train_teacher, masked_pictures)
    if not run.done:
        pictures = masked_pictures(told, key(source), recipe["world"], recipe["count"], recipe["seed"])
        follow(train_teacher(net, pictures, settings_of(recipe), run, recipe["drop"]), f"inpainter {name}", 30)
    ship(f"inpainter-{name}", net.module, [run], config, f"make teachers NAMES=inpainter-{name}")


def make_inpaint_student(name: str) -> None:
    """Stage one of inpainting."""
    recipe = RECIPES["inpaintstudents"][name]
    source = f"pipeline-{recipe['pipeline']}"
    told = pipeline(recipe["pipeline"])
    pictures = masked_pictures(told, key(source), recipe["world"], recipe["count"], recipe["seed"])
    parents = {"pipeline": made(source)["weights"], "inpainter": made(f"inpainter-{recipe['inpainter']}")["weights"]}
    _fold(f"inpaintstudent-{name}", inpaint_network("inpainter", recipe["inpainter"], told), pictures, recipe, parents)


def make_pipeline(name: str) -> None:
    """Train a small Stable Diffusion and ship it as a folder of diffusers."""
    recipe, folder = RECIPES["pipelines"][name], pretrained.PRETRAINED / f"pipeline-{name}"
    runs = train_small_diffusion(recipe, folder)
    write_origin(folder, runs, recipe, f"make teachers NAMES=pipeline-{name}")


def _needs_files(name: str) -> bool:
    """Whether a recipe rests on real data, which is not here: it is made only when it is named."""
    kind, _, rest = name.partition("-")
    (recipes,) = [found for found, singular in _KINDS.items() if singular == kind]
    return RECIPES[recipes][rest].get("world") in REAL


def make(name: str) -> None:
    """Make one shipped folder."""
    kind, _, rest = name.partition("-")
    makers = {"teacher": make_teacher, "student": make_student, "extractor": make_extractor, "geometry": make_geometry}
    makers |= {"attributes": make_attributes, "clip": make_judge, "pipeline": make_pipeline}
    makers |= {"textstudent": make_text_student, "inpainter": make_inpainter, "inpaintstudent": make_inpaint_student}
    makers |= {"matcher": make_matcher, "pairs": make_pairs, "tinydecoder": make_tiny_decoder}
    makers |= {"tinyunet": make_tiny_unet, "onestep": make_one_step, "layout": make_layout, "lora": make_lora}
    makers |= {"controlnet": make_controlnet, "onecontrol": make_one_control}
    makers[kind](rest)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*")
    everything = [f"{_KINDS[kind]}-{name}" for kind, recipes in RECIPES.items() if kind in _KINDS for name in recipes]
    names = parser.parse_args().names
    if unknown := set(names) - set(everything):
        parser.error(f"{', '.join(sorted(unknown))} is unknown; choose of {', '.join(everything)}")
    there = {path.parent.name for path in pretrained.PRETRAINED.glob("*/made.json")}
    missing = [name for name in everything if name not in there and not _needs_files(name)]
    for dataset in {name.partition("-")[2] for name in names if _needs_files(name)}:
        check_real(dataset, "")
    for name in names or missing:
        make(name)

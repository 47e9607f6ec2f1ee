"""Making the shipped weights, by the recipes of `shipped/recipes.yaml`.

`make teachers [NAMES=..]` makes what is missing in `pretrained/`, or the named.
"""

import argparse
from collections.abc import Callable
from typing import Any

import torch
from diffusers import UNet2DConditionModel

from distill_lib.engine import store
from distill_lib.engine.loop import finish
from distill_lib.guided.stage_one import distill_guidance
from distill_lib.networks.adapter import Network
from distill_lib.networks.pipeline import Latents
from distill_lib.networks.unet import build_unet, config_of, student_of
from distill_lib.shipped import pretrained
from distill_lib.shipped.make_control import make_controlnet, make_one_control
from distill_lib.shipped.make_decoder import SETTINGS, SIDE, make_decoder
from distill_lib.shipped.make_lora import make_lora
from distill_lib.shipped.make_readers import (
    make_attributes,
    make_extractor,
    make_geometry,
    make_judge,
    make_layout,
    make_matcher,
)
from distill_lib.shipped.make_sdxs import make_one_step, make_pairs, make_tiny_decoder, make_tiny_unet
from distill_lib.shipped.pretrained import RECIPES, inpaint_network, teacher
from distill_lib.shipped.settings import COMPILED, data_of, pictures_of, settings_of, with_parents
from distill_lib.shipped.write import ship, write_origin
from distill_lib.teachers.denoising import train_teacher
from distill_lib.teachers.inpainting import inpainter, inpainting_of, masked_pictures
from distill_lib.teachers.small_diffusion import early_unet, train_latent_space, train_small_diffusion
from distill_lib.worlds.pictures import REAL, Pictures, check_real, identity


def make_teacher(name: str) -> None:
    """Train the teacher of a world, from `start` (a teacher of the same classes) where the recipe names one.

    `then` holds settings that differ in a second training, which goes on from the weights of the first.
    """
    recipe = RECIPES["teacher"][name]
    pictures = pictures_of(recipe)
    if "start" in recipe:
        unet = teacher(recipe["start"])
    else:
        torch.manual_seed(recipe["seed"])  # initial weights are diffusers' own
        sizes = RECIPES["networks"][recipe["network"]]
        unet = build_unet(resolution=pictures.image.shape[-1], n_classes=len(pictures.names), **sizes)
    config = with_parents(recipe, pictures.fingerprint)
    first = {key: value for key, value in config.items() if key != "then"}
    runs = [_train_teacher(name, unet, pictures, first)]
    if "then" in recipe:
        runs.append(_train_teacher(name, unet, pictures, first | recipe["then"] | {"start": runs[0].key}))
    ship(f"teacher-{name}", unet, runs, config)


def _train_teacher(name: str, unet: UNet2DConditionModel, pictures: Pictures, config: dict[str, Any]) -> store.Run:
    """One training; leaves its averaged weights in the network."""
    run, net = (
        store.Run(f"teacher-{name}", config | {"unet": config_of(unet)}, train_teacher),
        Network(unet.requires_grad_(True), compiled=COMPILED),
    )
    training = train_teacher(net, pictures, settings_of(config), run, config.get("drop", 0.1))
    finish(net, training, run, f"teacher {name}")
    return run


def make_student(name: str) -> None:
    """Stage one: distil the guided pair of a teacher into one network that takes w."""
    recipe = RECIPES["student"][name]
    pictures, net = pictures_of(recipe), teacher(recipe["teacher"])
    student = Network(student_of(net), compiled=COMPILED)
    pair = Network(net.requires_grad_(False), compiled=COMPILED)
    _fold(f"student-{name}", student, pair, pictures, recipe)


def make_text_student(name: str) -> None:
    """Stage one in latents: the guided pair of a pipeline folded into one network that takes w."""
    recipe = RECIPES["textstudent"][name]
    model, pictures = data_of(recipe)
    _fold(f"textstudent-{name}", model.network.student(), model.network, pictures, recipe)


def make_inpaint_student(name: str) -> None:
    """Stage one of inpainting."""
    recipe = RECIPES["inpaintstudent"][name]
    model, pictures = data_of(recipe, masked_pictures)
    pair = inpaint_network("inpainter", recipe["inpainter"], model)
    _fold(f"inpaintstudent-{name}", pair.student(), pair, pictures, recipe)


def _fold(name: str, student: Network, pair: Network, pictures: Pictures | Latents, recipe: dict[str, Any]) -> None:
    """Train and ship the student of stage one of a pair."""
    config = with_parents(recipe, getattr(pictures, "fingerprint", ""))
    run = store.Run(name, config | {"pictures": identity(pictures)}, distill_guidance)
    finish(student, distill_guidance(student, pair, pictures, settings_of(config), run, recipe["w_max"]), run, name)
    ship(name, student.module, [run], config)


def make_inpainter(name: str) -> None:
    """Train the U-Net of a pipeline on, with a mask and the rest of the picture shown to it."""
    recipe = RECIPES["inpainter"][name]
    model, pictures = data_of(recipe, masked_pictures)
    net = inpainter(model, inpainting_of(model.network.module).requires_grad_(True))
    config = with_parents(recipe)
    run = store.Run(f"inpainter-{name}", config | {"pictures": identity(pictures)}, train_teacher)
    finish(net, train_teacher(net, pictures, settings_of(recipe), run, recipe["drop"]), run, f"inpainter {name}")
    ship(f"inpainter-{name}", net.module, [run], config)


def make_autoencoder(name: str) -> None:
    """Train what a pipeline's U-Net rests on and ship the autoencoder, which is judged before the U-Net is trained.

    `make_pipeline` of the same name finds the runs done and goes on with the U-Net.
    """
    space = train_latent_space(RECIPES["pipeline"][name])
    ship(f"autoencoder-{name}", space.vae, space.runs, RECIPES["autoencoder"][name])


def make_early(name: str) -> None:
    """Ship the first average that the training of a pipeline's U-Net has kept: a weaker teacher of the same form."""
    unet, runs = early_unet(RECIPES["pipeline"][name])
    ship(f"early-{name}", unet, runs, RECIPES["early"][name])


def make_pipeline(name: str) -> None:
    """Train a small Stable Diffusion and ship it as a folder of diffusers."""
    recipe, folder = RECIPES["pipeline"][name], pretrained.PRETRAINED / f"pipeline-{name}"
    write_origin(folder, train_small_diffusion(recipe, folder), recipe)


MAKERS: dict[str, Callable[[str], None]] = {
    "extractor": make_extractor,
    "geometry": make_geometry,
    "layout": make_layout,
    "teacher": make_teacher,
    "student": make_student,
    "attributes": make_attributes,
    "matcher": make_matcher,
    "clip": make_judge,
    "autoencoder": make_autoencoder,
    "pipeline": make_pipeline,
    "early": make_early,
    "textstudent": make_text_student,
    "inpainter": make_inpainter,
    "inpaintstudent": make_inpaint_student,
    "pairs": make_pairs,
    "tinydecoder": make_tiny_decoder,
    "tinyunet": make_tiny_unet,
    "onestep": make_one_step,
    "lora": make_lora,
    "controlnet": make_controlnet,
    "onecontrol": make_one_control,
}
"""By kind of recipe, in the order in which they rest on each other."""


def _needs_files(name: str) -> bool:
    """Whether a recipe rests on real data, which is not here."""
    kind, _, rest = name.partition("-")
    return RECIPES[kind][rest].get("world") in REAL


def only_named(name: str) -> bool:
    """Whether a recipe is made only when it is named: of real data, or of the studio, which has to pass its gates."""
    return _needs_files(name) or name.partition("-")[2].startswith("studio")


def make(name: str) -> None:
    """Make one shipped folder."""
    kind, _, rest = name.partition("-")
    MAKERS[kind](rest)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*")
    parser.add_argument("--vae", default="", help="a folder of an AutoencoderKL, which gets a tiny decoder; no names")
    parser.add_argument("--pictures", default="", help="the folder of pictures that it learns on")
    parser.add_argument("--side", type=int, default=SIDE, help="of these pictures, in pixels")
    parser.add_argument("--steps", type=int, default=SETTINGS.steps, help="updates")
    everything = [f"{kind}-{name}" for kind in MAKERS for name in RECIPES[kind]]
    given = parser.parse_args()
    if given.vae and given.names:
        parser.error("--vae trains one decoder and no shipped weights; leave the names out")
    if given.vae:
        print(make_decoder(given.vae, given.pictures, given.side, given.steps), flush=True)
        return
    names = given.names
    if unknown := set(names) - set(everything):
        parser.error(f"{', '.join(sorted(unknown))} is unknown; choose of {', '.join(everything)}")
    present = {path.parent.name for path in pretrained.PRETRAINED.glob("*/made.json")}
    missing = [name for name in everything if name not in present and not only_named(name)]
    for dataset in {name.partition("-")[2] for name in names if _needs_files(name)}:
        check_real(dataset, "")
    for name in names or missing:
        make(name)

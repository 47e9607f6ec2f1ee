"""Making the shipped ControlNets: the teacher's, on the world's exact maps, and those of the student of one step."""

from functools import partial

import torch

from distill_lib.engine.loop import TrainSettings
from distill_lib.measure.readers.geometry import read_depth
from distill_lib.networks.controlnet import Controlled, build_control
from distill_lib.networks.pipeline import TextToImage
from distill_lib.sdxs.controlnet import distill_controlnet, one_step_control, train_controlnet
from distill_lib.sdxs.feature_matching import ByMatcher, one_step_loss
from distill_lib.sdxs.triplets import Triplets, mapped_pictures
from distill_lib.shipped import pretrained
from distill_lib.shipped.export import card
from distill_lib.shipped.pretrained import RECIPES, pipeline
from distill_lib.shipped.settings import data_of, scoring_of, with_parents
from distill_lib.shipped.write import ship
from distill_lib.teachers.latents import Remembered


def _factor(model: TextToImage) -> int:
    return 2 ** (len(model.pipe.vae.config.block_out_channels) - 1)


def make_controlnet(kind: str) -> None:
    """Train a ControlNet of a pipeline for a kind of map."""
    recipe = RECIPES["controlnet"][kind]
    model, data = data_of(recipe, partial(mapped_pictures, kind))
    torch.manual_seed(recipe["seed"])
    net = Controlled(model.network, build_control(model.network.module, _factor(model)).requires_grad_(True))
    done = train_controlnet(net, data, TrainSettings(**recipe["training"]), recipe["drop"])
    ship(f"controlnet-{kind}", net.control, [done.run], with_parents(recipe))


def make_one_control(kind: str) -> None:
    """Shrink the teacher's ControlNet for a kind of map, then distil it to one step over the shipped student."""
    recipe = RECIPES["onecontrol"][kind]
    model = pipeline(RECIPES["pairs"][recipe["pairs"]]["pipeline"])
    control, pairs = pretrained.controlnet(recipe["controlnet"]), pretrained.pairs(recipe["pairs"], model)
    depth_of = partial(read_depth, pretrained.geometry(recipe["reader"]))
    triplets = Triplets.of(pairs, kind, depth_of, control, recipe["share"])
    small, plain = pretrained.tiny_unet(recipe["unet"], model), pretrained.one_step(recipe["student"], model)
    first = distill_controlnet(small, triplets, control, TrainSettings(**recipe["shrinking"]))
    see = partial(ByMatcher, pretrained.matcher(recipe["matcher"]))
    cost = one_step_loss("matching", see(plain.decode), see(Remembered(pairs)))
    student = Controlled(plain, first.net.control.requires_grad_(True))
    done = one_step_control(student, triplets, cost, TrainSettings(**recipe["matching"]), scoring_of(recipe))
    name, runs = f"onecontrol-{kind}", [first.run, *(trained.run for trained in done)]
    ship(name, done[-1].net.control, runs, with_parents(recipe))
    side = model.pipe.unet.config.sample_size * _factor(model)
    provenance = {"kind": kind, "student": f"onestep-{recipe['student']}", "name": name, "side": side}
    text = card("one_control").format(**provenance, prompt=pairs.prompts[0])
    (pretrained.PRETRAINED / name / "README.md").write_text(text)

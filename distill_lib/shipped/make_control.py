"""Making the shipped ControlNets: the teacher's, on the world's exact maps, and those of the student of one step."""

from functools import partial

import torch

from distill_lib.engine.loop import TrainSettings
from distill_lib.measure.readers.geometry import read_depth
from distill_lib.networks.controlnet import Controlled, build_control
from distill_lib.networks.pipeline import TextToImage
from distill_lib.sdxs.controlnet import one_step_control, shrunk, taught
from distill_lib.sdxs.feature_matching import one_step_loss, views
from distill_lib.sdxs.score_distillation import Segment
from distill_lib.sdxs.triplets import Triplets, mapped_pictures
from distill_lib.shipped import pretrained
from distill_lib.shipped.pretrained import RECIPES, key, made, pipeline
from distill_lib.shipped.write import ship, ship_as_it_is
from distill_lib.teachers.latents import Remembered

_CARD = """# A ControlNet for one step: {kind}

It belongs to the student of one step in `{student}`, whose decoder it needs; `make teachers` made it from the teacher
and the teacher's ControlNet. The control is a picture of {side} x {side} pixels; `distill_lib/worlds/maps.py` says
what it shows.

```python
from diffusers import ControlNetModel, StableDiffusionControlNetPipeline
from diffusers.utils import load_image

control = ControlNetModel.from_pretrained("{name}")
pipe = StableDiffusionControlNetPipeline.from_pretrained("{student}", controlnet=control)
pipe("{prompt}", load_image("control.png"), num_inference_steps=1, guidance_scale=1.0).images[0]
```
"""


def _factor(told: TextToImage) -> int:
    return 2 ** (len(told.pipe.vae.config.block_out_channels) - 1)


def make_controlnet(kind: str) -> None:
    """Train a ControlNet of a pipeline for a kind of map."""
    recipe = RECIPES["controlnets"][kind]
    told, source = pipeline(recipe["pipeline"]), f"pipeline-{recipe['pipeline']}"
    data = mapped_pictures(told, key(source), kind, recipe["world"], recipe["count"], recipe["seed"])
    torch.manual_seed(recipe["seed"])
    unet = told.network.module
    net = Controlled(told.network, build_control(unet, _factor(told)).requires_grad_(True))
    config = recipe | {"pipeline": made(source)["weights"]}
    _, run = taught(net, data, TrainSettings(**recipe["training"]), config | {"kind": kind}, recipe["drop"])
    ship(f"controlnet-{kind}", net.control, [run], config, f"make teachers NAMES=controlnet-{kind}")


def make_one_control(kind: str) -> None:
    """Shrink the teacher's ControlNet for a kind of map, then distil it to one step over the shipped student."""
    recipe = RECIPES["onecontrols"][kind]
    told = pipeline(RECIPES["pairs"][recipe["pairs"]]["pipeline"])
    given = {"pairs": "pairs", "unet": "tinyunet", "student": "onestep", "matcher": "matcher", "reader": "geometry"}
    given |= {"controlnet": "controlnet"}
    parents = {what: made(f"{name}-{recipe[what]}")["weights"] for what, name in given.items()}
    control, pairs = pretrained.controlnet(recipe["controlnet"]), pretrained.pairs(recipe["pairs"], told)
    depth_of = partial(read_depth, pretrained.geometry(recipe["reader"]))
    triplets = Triplets.of(pairs, kind, depth_of, control, recipe["share"])
    small = pretrained.tiny_unet(recipe["unet"], told)
    first = shrunk(small, triplets, control, parents | {"kind": kind}, TrainSettings(**recipe["shrinking"]))
    plain, matcher = pretrained.one_step(recipe["student"], told), pretrained.matcher(recipe["matcher"])
    by = plain.decode, Remembered(pairs)
    see, wanted = (views(recipe["matcher"], matcher, told.network, decode) for decode in by)
    cost = one_step_loss("matching", see, wanted)
    student = Controlled(plain, first.net.control.requires_grad_(True))
    settings = TrainSettings(**recipe["matching"]), TrainSettings(**recipe["scores"])
    segment = Segment(**{field: tuple(ends) for field, ends in recipe["segment"].items()})
    about = parents | {"kind": kind, "start": first.key}
    done = one_step_control(student, triplets, cost, about, *settings, segment=segment, **recipe["how"])
    name = f"onecontrol-{kind}"
    runs = [first.run, *(one.run for one in done)]
    # score distillation keeps student and online model as one: the ControlNet is a part of that
    ship_as_it_is(name, done[-1].net.control, runs, recipe | parents, f"make teachers NAMES={name}")
    side = told.pipe.unet.config.sample_size * _factor(told)
    card = {"kind": kind, "student": f"onestep-{recipe['student']}", "name": name, "side": side}
    (pretrained.PRETRAINED / name / "README.md").write_text(_CARD.format(**card, prompt=pairs.prompts[0]))

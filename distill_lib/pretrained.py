"""The shipped weights: how each is made (`profiles/pretrained.yaml`), where it lies, how it is loaded.

`python -m distill_lib.pretrained [NAME ..]` (that is `make teachers`) makes what is missing in `pretrained/`, or the
named ones. A folder holds a diffusers network (fp16 safetensors, config.json) or an extractor, and `made.json`
with settings, seed, data, commit, training curve and the command.
"""

import argparse
import hashlib
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
import yaml
from diffusers import UNet2DConditionModel

from distill_lib import store
from distill_lib.artefacts import origin
from distill_lib.attributes import AttributeReader, train_reader
from distill_lib.extractor import Extractor, picture_lessons, scene_lessons, train_extractor
from distill_lib.geometry import Geometry, train_geometry
from distill_lib.methods.guidance_distillation import distill_guidance
from distill_lib.methods.teacher import train_teacher
from distill_lib.models import Network, build_unet, home, load_unet, student_of
from distill_lib.pipelines import TextToImage, open_pipeline
from distill_lib.reach import ROOT
from distill_lib.small_diffusion import build_clip, captioned, latent_pictures, make_clip, train_small_diffusion
from distill_lib.text import Clip
from distill_lib.training import TrainSettings, follow
from distill_lib.worlds.datasets import REAL, WORLDS, DatasetSpec, Pictures, load
from distill_lib.worlds.scenes import COLORS, SHAPES, TEXTURES

__all__ = [
    "PRETRAINED",
    "RECIPES",
    "attribute_reader",
    "clip",
    "extractor",
    "geometry",
    "key",
    "made",
    "make",
    "pipeline",
    "student",
    "teacher",
    "text_student",
]

PRETRAINED = ROOT / "pretrained"
RECIPES: dict[str, dict[str, dict[str, Any]]] = yaml.safe_load(
    (Path(__file__).parent / "profiles" / "pretrained.yaml").read_text()
)
_KINDS = {"extractors": "extractor", "geometries": "geometry", "teachers": "teacher", "students": "student"}
_KINDS |= {"attributes": "attributes", "clips": "clip", "pipelines": "pipeline", "textstudents": "textstudent"}
_COMPILED = torch.cuda.is_available()  # on a CPU it does not pay, see models.Network
_STAGE_ONE = "distill_lib.methods.guidance_distillation"
_NOT_SETTINGS = (
    "network",
    "world",
    "worlds",
    "count",
    "start",
    "then",
    "drop",
    "teacher",
    "w_max",
    "width",
    "pipeline",
)


def teacher(name: str) -> UNet2DConditionModel:
    """The shipped teacher of a world, on the device where networks live."""
    return load_unet(PRETRAINED / f"teacher-{name}").to(home())


def student(name: str) -> UNet2DConditionModel:
    """The shipped student of stage one: one network for the guided pair of a world's teacher."""
    return load_unet(PRETRAINED / f"student-{name}").to(home())


def made(name: str) -> dict[str, Any]:
    """How a shipped folder was made; `weights` is the checksum of its weights, under which others name it as parent.

    Raises:
        ValueError: nothing of this name is shipped.
    """
    path = PRETRAINED / name / "made.json"
    if not path.exists():
        raise ValueError(f"{name} is not shipped; train it with `make teachers NAMES={name}` if it has a recipe")
    return json.loads(path.read_text())


def key(name: str) -> str:
    """A shipped folder with the start of its checksum, as results name their parents."""
    return f"{name}-{made(name)['weights'][:12]}"


def settings_of(recipe: dict[str, Any]) -> TrainSettings:
    """Training settings of a recipe."""
    return TrainSettings(**{k: v for k, v in recipe.items() if k not in _NOT_SETTINGS})


def pictures_of(recipe: dict[str, Any]) -> Pictures:
    """The training pictures of a recipe; real data is read from the folder DISTILL_FOLDER."""
    return load(DatasetSpec(name=recipe["world"], count=recipe["count"], seed=recipe["seed"]))


def ship(name: str, unet: UNet2DConditionModel, runs: list[store.Run], config: dict[str, Any], command: str) -> None:
    """Write the network of finished runs, each of which went on from the one before, to pretrained/name in fp16."""
    folder = PRETRAINED / name
    unet.load_state_dict(runs[-1].weights())
    for old in folder.glob("*.safetensors*"):  # another number of shards would leave some behind
        old.unlink()
    unet.register_to_config(_name_or_path=name)  # diffusers keeps the folder that a network was loaded from
    unet.half().save_pretrained(folder, safe_serialization=True, max_shard_size="7MB")
    write_origin(folder, runs, config, command)


def write_origin(folder: Path, runs: list[store.Run], config: dict[str, Any], command: str) -> None:
    """Write made.json: settings, data, commit, command and training curve (step, loss, seconds) over all runs."""
    curve, step, seconds = [], 0, 0.0
    for run in runs:
        curve += [[step + r["step"], round(r["loss"], 5), round(seconds + r["seconds"], 1)] for r in run.progress()]
        step, _, seconds = curve[-1]
    digest = hashlib.sha256()
    for weights in sorted(folder.rglob("*.safetensors")):
        digest.update(weights.read_bytes())
    record = {"config": config, "commit": origin()["commit"], "command": command, "curve": curve}
    record |= {"weights": digest.hexdigest()}
    with store.atomic(folder / "made.json") as part:
        part.write_text(json.dumps(record))


def make_teacher(name: str) -> None:
    """Train the teacher of a world, from `start` (a teacher of the same classes) where the recipe names one.

    `then` holds settings that differ in a second training, which goes on from the weights of the first.
    """
    recipe = dict(RECIPES["teachers"][name])
    pictures = pictures_of(recipe)
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
    run = store.Run(f"teacher-{name}", config, "distill_lib.methods.teacher")
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
    student = Network(student_of(net), compiled=_COMPILED)
    pair = Network(net.requires_grad_(False), compiled=_COMPILED)
    parent = made(f"teacher-{recipe['teacher']}")["weights"]
    run = store.Run(f"student-{name}", recipe | {"teacher": parent}, _STAGE_ONE)
    if not run.done:
        follow(distill_guidance(student, pair, pictures, settings, run, recipe["w_max"]), f"stage one {name}", 30)
    ship(f"student-{name}", student.module, [run], run.config, f"make teachers NAMES=student-{name}")


def make_extractor(name: str) -> None:
    """Train the network behind the metrics, on several worlds of single objects or on one set of real data."""
    recipe = RECIPES["extractors"][name]
    torch.manual_seed(recipe["seed"])
    if "worlds" in recipe:
        lessons = scene_lessons([WORLDS[world] for world in recipe["worlds"]], recipe["count"], recipe["seed"])
        n_classes = len(SHAPES) * len(COLORS) * len(TEXTURES)
    else:
        pictures = pictures_of(recipe)
        lessons, n_classes = picture_lessons(pictures), len(pictures.names)
    net = Extractor(n_classes, lessons[2].shape[1] + 2, side=lessons[0].shape[-1])  # and blur and grain
    run = store.Run(f"extractor-{name}", recipe, "distill_lib.extractor")
    if not run.done:
        forward = torch.compile(net, dynamic=False) if _COMPILED else net
        trainable = SimpleNamespace(module=net, forward=forward)
        follow(train_extractor(trainable, lessons, settings_of(recipe), run), f"extractor {name}", 30)
    _ship_reader(f"extractor-{name}", run, recipe)


def make_geometry(name: str) -> None:
    """Train the network that reads masks and depth, on worlds of several looks."""
    recipe = RECIPES["geometries"][name]
    torch.manual_seed(recipe["seed"])
    net = Geometry()
    run = store.Run(f"geometry-{name}", recipe, "distill_lib.geometry")
    if not run.done:
        forward = torch.compile(net, dynamic=False) if _COMPILED else net
        worlds = [WORLDS[world] for world in recipe["worlds"]]
        trainable = SimpleNamespace(module=net, forward=forward)
        follow(train_geometry(trainable, worlds, recipe["count"], settings_of(recipe), run), f"geometry {name}", 30)
    _ship_reader(f"geometry-{name}", run, recipe)


def make_attributes(name: str) -> None:
    """Train the network that reads what a picture of two objects shows."""
    recipe = RECIPES["attributes"][name]
    image, asked = captioned(recipe["world"], recipe["count"], recipe["seed"])
    torch.manual_seed(recipe["seed"])
    net = AttributeReader(recipe["width"], image.shape[-1])
    run = store.Run(f"attributes-{name}", recipe, "distill_lib.attributes", "distill_lib.worlds.captions")
    if not run.done:
        forward = torch.compile(net, dynamic=False) if _COMPILED else net
        trainable = SimpleNamespace(module=net, forward=forward)
        follow(train_reader(trainable, image, asked, settings_of(recipe), run), f"attributes {name}", 30)
    _ship_reader(f"attributes-{name}", run, recipe)


def make_judge(name: str) -> None:
    """Train a mini CLIP that measures, on all captions."""
    recipe = RECIPES["clips"][name]
    image, asked = captioned(recipe["world"], recipe["count"], recipe["seed"])
    _ship_reader(f"clip-{name}", make_clip(recipe, image, asked, {"world": recipe["world"]})[1], recipe)


def clip(name: str = "judge") -> Clip:
    """The shipped mini CLIP that measures; raises as `extractor`."""
    recipe = made(f"clip-{name}")["config"]
    net = build_clip(recipe, WORLDS[recipe["world"]].resolution)
    net.load_state_dict(_read_reader(f"clip-{name}"))
    return net.eval().requires_grad_(False)


def pipeline(name: str = "scenes") -> TextToImage:
    """The shipped small Stable Diffusion; raises as `pipelines.open_pipeline`."""
    return open_pipeline(PRETRAINED / f"pipeline-{name}")


def text_student(name: str, told: TextToImage) -> Network:
    """The shipped student of stage one of a pipeline, behind the adapter of its teacher; raises as `load_unet`."""
    unet = load_unet(PRETRAINED / f"textstudent-{name}").to(home()).requires_grad_(False)
    net = told.network
    return Network(unet, bf16=net.bf16, null=net.null, schedule=net.schedule, decode=net.decode)


def make_text_student(name: str) -> None:
    """Stage one in latents: the guided pair of a pipeline folded into one network that takes w."""
    recipe = RECIPES["textstudents"][name]
    source = f"pipeline-{recipe['pipeline']}"
    told, parent = pipeline(recipe["pipeline"]), made(source)["weights"]
    pictures = latent_pictures(told, key(source), recipe["world"], recipe["count"], recipe["seed"])
    student = told.network.student()
    config = recipe | {"pipeline": parent}
    run = store.Run(f"textstudent-{name}", config, _STAGE_ONE, "distill_lib.pipelines")
    if not run.done:
        training = distill_guidance(student, told.network, pictures, settings_of(recipe), run, recipe["w_max"])
        follow(training, f"stage one {name}", 30)
    ship(f"textstudent-{name}", student.module, [run], config, f"make teachers NAMES=textstudent-{name}")


def make_pipeline(name: str) -> None:
    """Train a small Stable Diffusion and ship it as a folder of diffusers."""
    recipe, folder = RECIPES["pipelines"][name], PRETRAINED / f"pipeline-{name}"
    for old in folder.rglob("*.safetensors*"):  # another number of shards would leave some behind
        old.unlink()
    runs = train_small_diffusion(recipe, folder)
    write_origin(folder, runs, recipe, f"make teachers NAMES=pipeline-{name}")


def attribute_reader(name: str = "scenes") -> AttributeReader:
    """The shipped network that reads what a picture of two objects shows; raises as `extractor`."""
    recipe = made(f"attributes-{name}")["config"]
    net = AttributeReader(recipe["width"], WORLDS[recipe["world"]].resolution)
    net.load_state_dict(_read_reader(f"attributes-{name}"))
    return net.eval().requires_grad_(False)


def _ship_reader(name: str, run: store.Run, recipe: dict[str, Any]) -> None:
    """Write a finished network of our own, which is no diffusers one, to pretrained/name in fp16."""
    folder = PRETRAINED / name
    store.save_tensors(folder / "weights.safetensors", {k: v.half() for k, v in run.weights().items()})
    write_origin(folder, [run], recipe, f"make teachers NAMES={name}")


def _read_reader(name: str) -> dict[str, torch.Tensor]:
    try:
        weights = store.load_tensors(PRETRAINED / name / "weights.safetensors")
    except ValueError as error:
        raise ValueError(f"{error}; or train it: make teachers NAMES={name}") from error
    return {k: v.float() for k, v in weights.items()}


def extractor(name: str = "scenes") -> Extractor:
    """The shipped network behind the metrics.

    Raises:
        ValueError: its file is missing or broken.
    """
    weights = _read_reader(f"extractor-{name}")
    side = 64 if name == "captioned" else 32
    net = Extractor(len(weights["classes.1.bias"]), len(weights["factors.bias"]), side=side)
    net.load_state_dict(weights)
    return net.eval().requires_grad_(False)


def geometry(name: str = "scenes") -> Geometry:
    """The shipped network that reads masks and depth; raises as `extractor`."""
    net = Geometry()
    net.load_state_dict(_read_reader(f"geometry-{name}"))
    return net.eval().requires_grad_(False)


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
    makers |= {"textstudent": make_text_student}
    makers[kind](rest)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*")
    everything = [f"{_KINDS[kind]}-{name}" for kind, recipes in RECIPES.items() if kind in _KINDS for name in recipes]
    names = parser.parse_args().names
    if unknown := set(names) - set(everything):
        parser.error(f"{', '.join(sorted(unknown))} is unknown; choose of {', '.join(everything)}")
    missing = [name for name in everything if not (PRETRAINED / name / "made.json").exists() and not _needs_files(name)]
    try:
        for name in names or missing:
            make(name)
    except ValueError as error:
        raise SystemExit(f"error: {error}") from None


if __name__ == "__main__":
    main()

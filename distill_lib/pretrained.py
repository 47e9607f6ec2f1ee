"""The shipped weights: how each is made (`profiles/pretrained.yaml`), where it lies, how it is loaded.

`python -m distill_lib.pretrained [NAME ..]` (that is `make teachers`) makes what is missing in `pretrained/`, or the
named ones anew. A folder holds a diffusers network (fp16 safetensors, config.json) or an extractor, and `made.json`
with settings, seed, data, commit, training curve and the command.
"""

import argparse
import json
import subprocess
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
import yaml
from diffusers import UNet2DConditionModel

from distill_lib import store
from distill_lib.extractor import Extractor, factors, train_extractor
from distill_lib.methods.teacher import train_teacher
from distill_lib.models import Network, build_unet, load_unet
from distill_lib.training import TrainSettings, can_compile, follow
from distill_lib.worlds.datasets import WORLDS, DatasetSpec, Pictures, load
from distill_lib.worlds.scenes import COLORS, SHAPES, TEXTURES, draw_scenes

__all__ = ["PRETRAINED", "RECIPES", "extractor", "make", "teacher"]

PRETRAINED = store.ROOT / "pretrained"
RECIPES: dict[str, dict[str, dict[str, Any]]] = yaml.safe_load(
    (Path(__file__).parent / "profiles" / "pretrained.yaml").read_text()
)
_NOT_SETTINGS = ("network", "world", "worlds", "count", "teacher", "w_max")


def teacher(name: str) -> UNet2DConditionModel:
    """The shipped teacher of a world."""
    return load_unet(PRETRAINED / f"teacher-{name}")


def settings_of(recipe: dict[str, Any]) -> TrainSettings:
    """Training settings of a recipe; long trainings are compiled where a compiler is there."""
    return TrainSettings(compiled=can_compile(), **{k: v for k, v in recipe.items() if k not in _NOT_SETTINGS})


def pictures_of(recipe: dict[str, Any]) -> Pictures:
    """The training pictures of a recipe."""
    return load(DatasetSpec(name=recipe["world"], count=recipe["count"], seed=recipe["seed"]))


def commit() -> str:
    """The commit of the working tree, with + where files differ from it."""
    result = subprocess.run(
        ["git", "describe", "--always", "--dirty=+"], cwd=store.ROOT, capture_output=True, text=True, check=False
    )
    return result.stdout.strip() or "unknown"


def ship(name: str, unet: UNet2DConditionModel, run: store.Run, command: str) -> None:
    """Write a finished network to pretrained/name, fp16, with its origin."""
    folder = PRETRAINED / name
    unet.load_state_dict(run.weights())
    unet.half().save_pretrained(folder, safe_serialization=True)
    write_origin(folder, run, command)


def write_origin(folder: Path, run: store.Run, command: str) -> None:
    """Write made.json: settings, data, commit, command and training curve (step, loss, seconds)."""
    curve = [[r["step"], round(r["loss"], 5), round(r["seconds"], 1)] for r in run.progress()]
    made = {"config": run.config, "commit": commit(), "command": command, "curve": curve}
    with store.atomic(folder / "made.json") as part:
        part.write_text(json.dumps(made))


def make_teacher(name: str) -> None:
    """Train the teacher of a world."""
    recipe = RECIPES["teachers"][name]
    settings, pictures = settings_of(recipe), pictures_of(recipe)
    torch.manual_seed(recipe["seed"])  # initial weights are diffusers' own
    resolution = WORLDS[recipe["world"]].resolution
    unet = build_unet(resolution=resolution, n_classes=len(pictures.names), **RECIPES["networks"][recipe["network"]])
    run = store.Run(f"teacher-{name}", recipe, "distill_lib.methods.teacher")
    if not run.done:
        follow(train_teacher(Network(unet, compiled=settings.compiled), pictures, settings, run), f"teacher {name}", 30)
    ship(f"teacher-{name}", unet, run, f"make teachers NAMES=teacher-{name}")


def make_extractor(name: str) -> None:
    """Train the network behind the metrics on all worlds of single objects."""
    recipe = RECIPES["extractors"][name]
    torch.manual_seed(recipe["seed"])
    worlds = [WORLDS[world] for world in recipe["worlds"]]
    settings = settings_of(recipe)
    values, _ = factors(draw_scenes(worlds[0], 0, torch.arange(1)), worlds[0])
    net = Extractor(len(SHAPES) * len(COLORS) * len(TEXTURES), values.shape[1])
    run = store.Run(f"extractor-{name}", recipe, "distill_lib.extractor")
    if not run.done:
        forward = torch.compile(net, dynamic=False) if settings.compiled else net
        trainable = SimpleNamespace(module=net, forward=forward)
        follow(train_extractor(trainable, worlds, recipe["count"], settings, run), f"extractor {name}", 30)
    folder = PRETRAINED / f"extractor-{name}"
    store.save_tensors(folder / "weights.safetensors", {k: v.half() for k, v in run.weights().items()})
    write_origin(folder, run, f"make teachers NAMES=extractor-{name}")


def extractor(name: str = "scenes") -> Extractor:
    """The shipped network behind the metrics."""
    weights = store.load_tensors(PRETRAINED / f"extractor-{name}" / "weights.safetensors")
    net = Extractor(len(weights["classes.1.bias"]), len(weights["factors.bias"]))
    net.load_state_dict({k: v.float() for k, v in weights.items()})
    return net.eval().requires_grad_(False)


def make(name: str) -> None:
    """Make one shipped folder."""
    kind, _, rest = name.partition("-")
    {"teacher": make_teacher, "extractor": make_extractor}[kind](rest)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*")
    everything = [f"{kind[:-1]}-{name}" for kind in ("extractors", "teachers") for name in RECIPES[kind]]
    names = parser.parse_args().names
    for name in names or [n for n in everything if not (PRETRAINED / n / "made.json").exists()]:
        make(name)


if __name__ == "__main__":
    main()

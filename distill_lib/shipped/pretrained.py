"""The shipped weights: where they lie, how they are loaded, and how each was made.

A folder of `pretrained/` holds a diffusers network or pipeline (fp16 safetensors, config.json), or a network of our
own, and `made.json` with settings, seed, data, commit, training curve and the command. `shipped.make` trains them, by
`shipped/recipes.yaml`.
"""

import json
import os
import shlex
from pathlib import Path
from typing import Any, TypeVar

import torch
import yaml
from diffusers import AutoencoderKL, AutoencoderTiny, ControlNetModel, UNet2DConditionModel

from distill_lib.engine.files import all_finite, folder_hash, load_tensors
from distill_lib.engine.messages import place
from distill_lib.engine.precision import default_device
from distill_lib.engine.store import note_read
from distill_lib.measure.readers.attributes import AttributeReader
from distill_lib.measure.readers.extractor import Extractor
from distill_lib.measure.readers.geometry import Geometry
from distill_lib.measure.readers.layout import Layout
from distill_lib.measure.readers.studio import StudioReader
from distill_lib.networks.adapter import Network
from distill_lib.networks.autoencoders import TinyDecode
from distill_lib.networks.controlnet import load_control
from distill_lib.networks.doors import open_part
from distill_lib.networks.lora_files import load_lora
from distill_lib.networks.pipeline import TextToImage, open_pipeline
from distill_lib.networks.unet import load_unet
from distill_lib.paths import ROOT
from distill_lib.sdxs.matchers import MATCHERS, ConvMatcher, TokenMatcher
from distill_lib.teachers.clip import Clip
from distill_lib.teachers.inpainting import inpainter
from distill_lib.teachers.latents import Pairs, phrased
from distill_lib.teachers.small_diffusion import build_clip
from distill_lib.worlds.captions import drawn_attributes, vocabulary_behind
from distill_lib.worlds.pictures import REAL, WORLDS, fingerprint
from distill_lib.worlds.studio import StudioSpec
from distill_lib.worlds.vocabulary import vocabulary_of

Reader = TypeVar("Reader", bound=torch.nn.Module)
PRETRAINED = ROOT / "pretrained"
RECIPES: dict[str, dict[str, dict[str, Any]]] = yaml.safe_load((Path(__file__).parent / "recipes.yaml").read_text())


def teacher(name: str) -> UNet2DConditionModel:
    """The shipped teacher of a world, on the device where networks live; raises as `extractor`."""
    _check_data(f"teacher-{name}", name)
    return load_unet(shipped_folder(f"teacher-{name}")).to(default_device())


def student(name: str) -> UNet2DConditionModel:
    """The shipped student of stage one: one network for the guided pair of a world's teacher; raises as `extractor`."""
    _check_data(f"student-{name}", name)
    return load_unet(shipped_folder(f"student-{name}")).to(default_device())


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


def shipped_folder(name: str) -> Path:
    """A shipped folder whose weights are those that its made.json was written of; it is then among `store.read_keys`.

    Raises:
        ValueError: they are not: a disk or a download has spoiled a file.
    """
    folder = PRETRAINED / name
    if (folder / "made.json").exists():
        if folder_hash(folder) != made(name)["weights"]:
            raise ValueError(f"the weights in {folder} are not those that shipped: fetch or train them again")
        note_read(key(name))
    return folder


def w_range(world: str) -> tuple[float, float]:
    """Strengths that the shipped student of stage one of a world was trained for; raises as `made`."""
    return 0.0, made(f"student-{world}")["config"]["w_max"]


def missing_for(dataset: str) -> list[str]:
    """Networks that the notebooks need for real data and that are not there, in the order to train them in."""
    return [name for name in _networks_of(dataset) if not (PRETRAINED / name / "made.json").exists()]


def check_networks(dataset: str, folder: str = "") -> None:
    """Refuse real data that no networks were trained on; the folder is DISTILL_FOLDER unless it is named.

    Raises:
        ValueError: networks are missing, or were trained on other pictures; says which command trains them.
    """
    if missing := missing_for(dataset):
        verb = "is" if len(missing) == 1 else "are"
        command = _command(missing, folder or os.environ.get("DISTILL_FOLDER", ""))
        raise ValueError(f"DATASET={dataset}: {', '.join(missing)} {verb} not trained yet; first run: {command}")
    for name in _networks_of(dataset):
        _check_data(name, dataset, folder)


def _networks_of(dataset: str) -> list[str]:
    return [f"{kind}-{dataset}" for kind in ("extractor", "teacher", "student")]


def _command(names: list[str], folder: str) -> str:
    return f"make teachers NAMES={shlex.quote(' '.join(names))} FOLDER={place(shlex.quote(folder))}"


def _check_data(name: str, dataset: str, folder: str = "") -> None:
    """Refuse a network that was trained on other real data; one whose made.json names no data is taken as it is."""
    folder = folder or os.environ.get("DISTILL_FOLDER", "")
    hashed = dataset in REAL and folder and (PRETRAINED / name / "made.json").exists()
    data = made(name)["config"].get("data") if hashed else None
    if data and data != (now := fingerprint(dataset, folder)):
        raise ValueError(
            f"{name} was trained on other pictures (data {data}) than {place(folder)} holds (data {now}); name their "
            f"folder, or train for these: {_command(_networks_of(dataset), folder)}"
        )


def _filled(net: Reader, name: str) -> Reader:
    """A network of our own with the weights of a shipped folder, frozen."""
    net.load_state_dict(_weights_of(name))
    return net.eval().requires_grad_(False)


def _weights_of(name: str) -> dict[str, torch.Tensor]:
    try:
        path = shipped_folder(name) / "weights.safetensors"
        weights = all_finite(load_tensors(path), path)
    except ValueError as error:
        raise ValueError(f"{error}; or train it: make teachers NAMES={name}") from error
    return {k: v.float() for k, v in weights.items()}


def extractor(name: str = "scenes") -> Extractor:
    """The shipped network behind the metrics.

    Raises:
        ValueError: its file is missing or broken, or it was trained on other real data than DISTILL_FOLDER holds.
    """
    _check_data(f"extractor-{name}", name)
    weights = _weights_of(f"extractor-{name}")
    worlds = made(f"extractor-{name}")["config"].get("worlds")  # none of real data, which is 32 pixels wide
    side = WORLDS[worlds[0]].resolution if worlds else 32
    net = Extractor(len(weights["classes.1.bias"]), len(weights["factors.bias"]), side=side)
    return _filled(net, f"extractor-{name}")


def geometry(name: str = "scenes") -> Geometry:
    """The shipped network that reads masks and depth; raises as `extractor`."""
    return _filled(Geometry(), f"geometry-{name}")


def layout(name: str = "looks") -> Layout:
    """The shipped network that reads where two solids stand, in several looks; raises as `extractor`."""
    return _filled(Layout(), f"layout-{name}")


def attribute_reader(name: str = "scenes") -> AttributeReader:
    """The shipped network that reads what a picture of two objects shows; raises as `extractor`."""
    recipe = made(f"attributes-{name}")["config"]
    world = WORLDS[recipe["world"]]
    network = StudioReader if isinstance(world, StudioSpec) else AttributeReader
    return _filled(network(recipe["width"], world.resolution), f"attributes-{name}")


def matcher(name: str) -> ConvMatcher | TokenMatcher:
    """A shipped network whose features pictures are matched by, one of `matchers.MATCHERS`; raises as `extractor`."""
    recipe = made(f"matcher-{name}")["config"]
    world, network = WORLDS[recipe["world"]], MATCHERS[recipe.get("network", name)]
    return _filled(network(recipe["width"], world.resolution, vocabulary_of(world)), f"matcher-{name}")


def clip(name: str = "judge") -> Clip:
    """The shipped mini CLIP that measures; raises as `extractor`."""
    recipe = made(f"clip-{name}")["config"]
    world = WORLDS[recipe["world"]]
    return _filled(build_clip(recipe, world.resolution, vocabulary_of(world)), f"clip-{name}")


def pipeline(name: str = "scenes") -> TextToImage:
    """The shipped small Stable Diffusion; raises as `pipeline.open_pipeline`."""
    return open_pipeline(shipped_folder(f"pipeline-{name}"))


def autoencoder(name: str) -> AutoencoderKL:
    """The shipped autoencoder of a world, before any U-Net was trained in its latents; raises as `tiny_decoder`."""
    folder = shipped_folder(f"autoencoder-{name}")
    vae = open_part(AutoencoderKL, folder, "autoencoder", f"train it: make teachers NAMES=autoencoder-{name}")
    return vae.to(default_device()).eval().requires_grad_(False)


def early_teacher(name: str, model: TextToImage) -> Network:
    """The average of a pipeline's U-Net after a fifth of its updates, behind its adapter; raises as `load_unet`."""
    return model.network.like(_unet(f"early-{name}"))


def pair_prompts(recipe: dict[str, Any], model: TextToImage) -> list[str]:
    """The prompts behind the pairs of a recipe, in a pipeline's words: evenly, in all phrasings, no pair held out."""
    words = vocabulary_behind(model.pipe.tokenizer)
    wanted = drawn_attributes(recipe["count"], recipe["seed"], vocabulary=words)
    return phrased(wanted, recipe["seed"], words)


def pairs(name: str, model: TextToImage) -> Pairs:
    """The shipped answers of a pipeline to prompts and noise, in half precision; raises as `extractor`."""
    recipe = made(f"pairs-{name}")["config"]
    parts = sorted(shipped_folder(f"pairs-{name}").glob("*.safetensors"))
    x = torch.cat([load_tensors(path)["x"] for path in parts])
    if len(x) != recipe["count"]:
        raise ValueError(f"pairs-{name} holds {len(x)} of {recipe['count']}; run make teachers NAMES=pairs-{name}")
    return Pairs(x, pair_prompts(recipe, model), model, recipe["seed"])


def tiny_decoder(name: str = "scenes") -> AutoencoderTiny:
    """The shipped tiny decoder of a pipeline's latents, on the device where networks live.

    Its encoder was not trained.

    Raises:
        ValueError: the folder is missing or broken.
    """
    return _tiny(shipped_folder(f"tinydecoder-{name}"), f"tinydecoder-{name}")


def _tiny(folder: Path, name: str) -> AutoencoderTiny:
    tiny = open_part(AutoencoderTiny, folder, "decoder", f"train it: make teachers NAMES={name}")
    return tiny.to(default_device()).eval().requires_grad_(False)


def _unet(name: str, part: str = "") -> UNet2DConditionModel:
    """A shipped U-Net, frozen, on the device where networks live; raises as `load_unet`."""
    return load_unet(shipped_folder(name) / part).to(default_device()).requires_grad_(False)


def tiny_unet(name: str, model: TextToImage) -> Network:
    """The shipped small U-Net of a pipeline, for many steps, behind its teacher's adapter; raises as `load_unet`."""
    return model.network.like(_unet(f"tinyunet-{name}"))


def one_step(name: str, model: TextToImage) -> Network:
    """The shipped student of one step with its tiny decoder; raises as `load_unet` and `tiny_decoder`."""
    tiny = _tiny(shipped_folder(f"onestep-{name}") / "vae", f"onestep-{name}")
    return model.network.like(_unet(f"onestep-{name}", "unet"), decode=TinyDecode(tiny))


def text_student(name: str, model: TextToImage) -> Network:
    """The shipped student of stage one of a pipeline, behind the adapter of its teacher; raises as `load_unet`."""
    return model.network.like(_unet(f"textstudent-{name}"), predicts="v_prediction")


def inpaint_network(kind: str, name: str, model: TextToImage) -> Network:
    """The shipped network for inpainting, `inpainter` or `inpaintstudent`, of a pipeline; raises as `load_unet`."""
    return inpainter(model, _unet(f"{kind}-{name}"))


def lora(name: str) -> dict[str, torch.Tensor]:
    """The shipped LoRA of a style, for the pipeline's U-Net.

    Raises:
        ValueError: the folder is missing or broken.
    """
    try:
        return load_lora(shipped_folder(f"lora-{name}"))
    except ValueError as error:
        raise ValueError(f"{error}; or train it: make teachers NAMES=lora-{name}") from error


def controlnet(kind: str) -> ControlNetModel:
    """The shipped ControlNet of the pipeline for a kind of map, frozen; raises as `controlnet.load_control`."""
    return load_control(shipped_folder(f"controlnet-{kind}")).to(default_device()).requires_grad_(False)


def one_control(kind: str) -> ControlNetModel:
    """The shipped ControlNet of the student of one step, frozen; raises as `controlnet.load_control`."""
    return load_control(shipped_folder(f"onecontrol-{kind}")).to(default_device()).requires_grad_(False)

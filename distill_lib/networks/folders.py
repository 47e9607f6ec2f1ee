"""A Stable Diffusion read part by part from a folder, or from the hub's cache: each part by a class that is named here.

No class, module or code that a folder names is imported; `doors` says what else is refused.
"""

import re
from pathlib import Path
from typing import Any

import diffusers
from diffusers import AutoencoderKL, AutoencoderTiny, DDIMScheduler, StableDiffusionPipeline, UNet2DConditionModel
from transformers import CLIPTextModel, CLIPTokenizer

from distill_lib.networks.doors import (
    check_files,
    check_tokenizer,
    load_part,
    naming_part,
    one_line,
    quiet,
    read_config,
)

CLASSES = {
    "tokenizer": {"CLIPTokenizer": CLIPTokenizer, "CLIPTokenizerFast": CLIPTokenizer},
    "text_encoder": {"CLIPTextModel": CLIPTextModel},
    "unet": {"UNet2DConditionModel": UNet2DConditionModel},
    "vae": {"AutoencoderKL": AutoencoderKL, "AutoencoderTiny": AutoencoderTiny},
}
"""By part, the classes that a folder may name."""
_UNCHECKED = dict.fromkeys(("safety_checker", "feature_extractor"))
_UNUSED = ("scheduler", "safety_checker", "feature_extractor", "image_encoder")


def place_of(source: str | Path) -> Path:
    """The folder of a model: itself, or where the hub's cache keeps it, fetched if it is not there.

    Raises:
        ValueError: there is none, and the hub gives none.
    """
    if Path(source).expanduser().is_dir():
        return Path(source).expanduser()
    if Path(source).exists():
        raise ValueError("it is a file; name a folder in diffusers' format, or a hub id")
    if not re.fullmatch(r"[\w-][\w.-]*(/[\w-][\w.-]*)?", str(source)):
        raise ValueError("there is no such folder, and it has not the form of a hub id, owner/name")
    try:
        with quiet():
            return Path(StableDiffusionPipeline.download(str(source), use_safetensors=True, **_UNCHECKED))
    except Exception as error:
        raise ValueError(
            "there is no such folder, it is not in the hub's cache, and the hub did not give it "
            f"({one_line(error)}); fetch it where there is a network, or name a folder"
        ) from error


def _class_of(index: dict[str, Any], name: str) -> Any:
    """The class that a part is read as: one of ours, whatever else the folder names."""
    named = index.get(name)
    if not isinstance(named, list) or len(named) != 2 or named[1] is None:
        raise ValueError(f"its model_index.json names no {name}, and a Stable Diffusion has one")
    if named[0] not in ("diffusers", "transformers") or named[1] not in CLASSES[name]:
        allowed = " or ".join(CLASSES[name])
        raise ValueError(
            f"{name}: it is {named[0]}.{named[1]}; only {allowed} can be read, and no code of a folder is run"
        )
    return CLASSES[name][named[1]]


def grid_of(folder: Path) -> DDIMScheduler:
    """The folder's grid and what its network predicts, behind the one scheduler that all share.

    Raises:
        ValueError: it names no scheduler of diffusers, or one without betas.
    """
    with naming_part("scheduler"):
        check_files(folder / "scheduler", folder)
        config = read_config(folder / "scheduler" / "scheduler_config.json")
        kind = getattr(diffusers, str(config.get("_class_name")), None)
        if not (isinstance(kind, type) and issubclass(kind, diffusers.SchedulerMixin)):
            raise ValueError(f"{config.get('_class_name')!r} is no scheduler of diffusers")
        with quiet():
            own = kind.from_config({name: value for name, value in config.items() if name != "_class_name"})
            if not hasattr(own, "alphas_cumprod"):
                raise ValueError(f"it is a {kind.__name__}, which has no betas; a scheduler of Stable Diffusion is due")
            return DDIMScheduler.from_config(own.config)


def read_pipeline(source: str | Path) -> StableDiffusionPipeline:
    """All parts of a Stable Diffusion, each by a class that is named here, whole and from inside its folder.

    Its scheduler is DDIM on the folder's own grid.

    Raises:
        ValueError: says which part is not so, and why.
    """
    folder = place_of(source)
    index = read_config(folder / "model_index.json")
    if index.get("_class_name") != "StableDiffusionPipeline":
        raise ValueError(
            f"it is a {index.get('_class_name')}; only a StableDiffusionPipeline, the shape of Stable Diffusion 1 and "
            "2 with one text encoder, can be the teacher"
        )
    more = [k for k, v in index.items() if isinstance(v, list) and any(v) and k not in (*CLASSES, *_UNUSED)]
    if more:
        raise ValueError(f"it has a part {more[0]}, which Stable Diffusion 1 and 2 have not; name a folder without it")
    kinds = {name: _class_of(index, name) for name in CLASSES}
    scheduler = grid_of(folder)
    with naming_part("tokenizer"), quiet():
        check_tokenizer(folder / "tokenizer", folder)
        parts = {"tokenizer": kinds.pop("tokenizer").from_pretrained(folder / "tokenizer", local_files_only=True)}
    for name, kind in kinds.items():
        with naming_part(name):
            parts[name] = load_part(kind, folder / name, folder)
    return plain_pipeline(**parts, scheduler=scheduler)


def plain_pipeline(**parts: Any) -> StableDiffusionPipeline:
    """A Stable Diffusion of its parts, by name, without a safety checker and what that needs."""
    return StableDiffusionPipeline(**parts, **_UNCHECKED, requires_safety_checker=False)

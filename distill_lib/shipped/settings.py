"""What a recipe says: the settings of its trainings, its pictures, and the shipped folders that it rests on."""

from collections.abc import Callable
from typing import Any

import torch
from pydantic import ValidationError

from distill_lib.engine.loop import TrainSettings
from distill_lib.networks.pipeline import Latents, TextToImage
from distill_lib.profiles.reading import sentence
from distill_lib.sdxs.scoring import Scoring, Segment
from distill_lib.shipped import pretrained
from distill_lib.teachers.latents import latent_pictures
from distill_lib.worlds.pictures import DatasetSpec, Pictures, load

COMPILED = torch.cuda.is_available()
"""On a CPU it does not pay, see `networks.adapter.Network`."""
PARENTS = {name: name for name in ("teacher", "pipeline", "inpainter", "pairs", "matcher", "controlnet")}
PARENTS |= {
    "start": "teacher",
    "decoder": "tinydecoder",
    "unet": "tinyunet",
    "student": "onestep",
    "reader": "geometry",
}
"""Fields of recipes that name a shipped folder, and the kind of the folder."""
_NOT_SETTINGS = (
    "network world worlds data count mixed start then drop teacher w_max width pipeline inpainter rank clean".split()
)


def settings_of(recipe: dict[str, Any]) -> TrainSettings:
    """Training settings of a recipe.

    Raises:
        ValueError: a setting is unknown or out of bounds.
    """
    try:
        return TrainSettings(**{k: v for k, v in recipe.items() if k not in _NOT_SETTINGS})
    except ValidationError as error:
        raise ValueError(sentence(error, "recipes.yaml")) from error


def scoring_of(recipe: dict[str, Any]) -> Scoring:
    """How a recipe sets score distillation."""
    segment = Segment(**{field: tuple(ends) for field, ends in recipe["segment"].items()})
    return Scoring(TrainSettings(**recipe["scores"]), segment=segment, **recipe["how"])


def pictures_of(recipe: dict[str, Any]) -> Pictures:
    """The training pictures of a recipe; real data is read from the folder DISTILL_FOLDER."""
    return load(DatasetSpec(name=recipe["world"], count=recipe["count"], seed=recipe["seed"]))


def data_of(recipe: dict[str, Any], make: Callable[..., Latents] = latent_pictures) -> tuple[TextToImage, Latents]:
    """The pipeline that a recipe names, and pictures of its world in the pipeline's latents, as `make` gives them."""
    model, source = pretrained.pipeline(recipe["pipeline"]), pretrained.key(f"pipeline-{recipe['pipeline']}")
    return model, make(model, source, recipe["world"], recipe["count"], recipe["seed"])


def with_parents(recipe: dict[str, Any], data: str = "") -> dict[str, Any]:
    """A recipe with the checksum of each shipped folder in the place of its name, as keys and made.json hold it.

    `data` is the fingerprint of real data, by which runs and networks of another folder are distinguishable.
    """
    named = {field: kind for field, kind in PARENTS.items() if isinstance(recipe.get(field), str)}
    weights = {field: pretrained.made(f"{kind}-{recipe[field]}")["weights"] for field, kind in named.items()}
    return recipe | weights | ({"data": data} if data else {})

"""What a recipe says: the settings of its training, and its pictures."""

from typing import Any

import torch
from pydantic import ValidationError

from distill_lib.engine.loop import TrainSettings
from distill_lib.profiles.reading import sentence
from distill_lib.worlds.pictures import DatasetSpec, Pictures, load

_COMPILED = torch.cuda.is_available()  # on a CPU it does not pay, see models.Network
_NOT_SETTINGS = "network world worlds data count start then drop teacher w_max width pipeline inpainter rank".split()


def settings_of(recipe: dict[str, Any]) -> TrainSettings:
    """Training settings of a recipe.

    Raises:
        ValueError: a setting is unknown or out of bounds.
    """
    try:
        return TrainSettings(**{k: v for k, v in recipe.items() if k not in _NOT_SETTINGS})
    except ValidationError as error:
        raise ValueError(sentence(error, "recipes.yaml")) from error


def pictures_of(recipe: dict[str, Any]) -> Pictures:
    """The training pictures of a recipe; real data is read from the folder DISTILL_FOLDER."""
    return load(DatasetSpec(name=recipe["world"], count=recipe["count"], seed=recipe["seed"]))


def _of_data(recipe: dict[str, Any], pictures: Pictures) -> dict[str, Any]:
    """A recipe with the fingerprint of real data, by which runs and networks of another folder are told apart."""
    return dict(recipe) | ({"data": pictures.fingerprint} if pictures.fingerprint else {})

"""Every recipe of the shipped weights, made small, runs from its parents to a folder that opens."""

import shutil

import pytest
import torch

from distill_lib.engine.files import folder_hash
from distill_lib.networks.pruning import Cut
from distill_lib.networks.unet import build_unet
from distill_lib.sdxs import tiny_unet
from distill_lib.shipped import make, pretrained
from distill_lib.shipped.write import write_origin
from distill_lib.worlds.pictures import Pictures

SMALL = {"steps": 2, "batch_size": 4, "warmup": 1, "count": 16, "alone": 1, "teacher_steps": 2}
SMALL |= {"width": 16, "layers": 1, "tower": 8, "blocks": 1}
MADE = {  # updates of all trainings of a recipe, in an order in which parents come first
    "attributes-scenes": 2,
    "matcher-cnn": 2,
    "clip-judge": 2,
    "geometry-captioned": 2,
    "layout-looks": 2,
    "textstudent-scenes": 2,
    "inpainter-scenes": 2,
    "inpaintstudent-scenes": 2,
    "pairs-scenes": 0,
    "tinydecoder-scenes": 2,
    "tinyunet-scenes": 2,
    "onestep-scenes": 6,  # of scores two of the online model for each of the student
    "lora-sketch": 2,
    "controlnet-edges": 2,
    "onecontrol-edges": 8,
}


def small(recipe):
    """A recipe with the sizes of SMALL, wherever they stand in it."""
    sizes = {name: SMALL[name] for name in recipe.keys() & SMALL.keys()}
    return recipe | {name: small(part) for name, part in recipe.items() if isinstance(part, dict)} | sizes


def test_what_is_made_by_the_recipes_opens_and_says_how_it_was_made(small_pipeline, runs, tmp_path, monkeypatch):
    monkeypatch.setattr(pretrained, "PRETRAINED", tmp_path / "pretrained")
    monkeypatch.setattr(tiny_unet, "CUT", Cut(middle="removed"))  # of two stages none can be spared
    for kind, recipes in pretrained.RECIPES.items():
        for name, recipe in recipes.items():
            monkeypatch.setitem(recipes, name, small(recipe) if kind != "networks" else recipe)
    folder = shutil.copytree(small_pipeline[0], tmp_path / "pretrained" / "pipeline-scenes")
    write_origin(folder, small_pipeline[1], {"a": "test"})

    for name, updates in MADE.items():
        make.make(name)
        made = pretrained.made(name)
        assert made["command"] == f"make teachers NAMES={name}"
        assert made["weights"] == folder_hash(tmp_path / "pretrained" / name)
        assert (made["curve"] or [[0]])[-1][0] == updates, name
    assert pretrained.made("onestep-scenes")["config"]["unet"] == pretrained.made("tinyunet-scenes")["weights"]
    assert pretrained.made("onecontrol-edges")["config"]["student"] == pretrained.made("onestep-scenes")["weights"]

    model = pretrained.pipeline()
    assert len(pretrained.pairs("scenes", model)) == SMALL["count"]
    for network in (pretrained.one_step, pretrained.text_student, pretrained.tiny_unet):
        assert network("scenes", model).shape == model.network.shape
    for kind in ("inpainter", "inpaintstudent"):
        assert pretrained.inpaint_network(kind, "scenes", model).module.config.in_channels > model.network.shape[0]
    pretrained.controlnet("edges"), pretrained.one_control("edges"), pretrained.lora("sketch")
    pretrained.tiny_decoder(), pretrained.clip(), pretrained.attribute_reader(), pretrained.layout()
    pretrained.geometry("captioned"), pretrained.matcher("cnn")


def test_an_unknown_setting_of_a_recipe_is_named():
    with pytest.raises(ValueError, match=r"recipes.yaml: setps=2: Unexpected keyword argument"):
        make.settings_of({"setps": 2, "steps": 2, "batch_size": 4, "lr": 1e-3})


def test_the_run_of_a_teacher_is_known_by_the_sizes_of_its_network(runs):
    """They stand in a file of settings, which no key reads, under a name."""
    pictures = Pictures(torch.zeros(4, 3, 8, 8, dtype=torch.uint8), torch.arange(4) % 2, ("a", "b"))
    recipe = {"steps": 1, "batch_size": 4, "lr": 1e-3, "warmup": 1, "network": "toy"}
    unets = [build_unet(resolution=8, n_classes=2, channels=channels) for channels in ((16, 16), (16, 32))]
    first, second = (make._train_teacher("toy", unet, pictures, recipe) for unet in unets)
    assert first.key != second.key

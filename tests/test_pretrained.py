"""What is shipped is what its recipe makes."""

import shutil
import sys

import pytest

from distill_lib.engine.files import folder_hash
from distill_lib.run.__main__ import main
from distill_lib.shipped import pretrained
from distill_lib.shipped.make import MAKERS, only_named
from distill_lib.shipped.pretrained import PRETRAINED, RECIPES, made
from distill_lib.shipped.settings import PARENTS

EVERY = {f"{kind}-{name}": recipe for kind in MAKERS for name, recipe in RECIPES[kind].items()}
NAMES = sorted(path.name for path in PRETRAINED.iterdir())


def recipe_of(name):
    kind, _, rest = name.partition("-")
    return RECIPES[kind][rest]


@pytest.mark.parametrize("name", NAMES)
def test_the_settings_of_a_shipped_folder_are_those_of_its_recipe(name):
    recipe, settings = recipe_of(name), made(name)["config"]
    parents = {key for key in PARENTS.keys() & recipe.keys() if isinstance(recipe[key], str)}
    assert {k: v for k, v in settings.items() if k not in parents} == {
        k: v for k, v in recipe.items() if k not in parents
    }
    for key in parents:
        parent = f"{PARENTS[key]}-{recipe[key]}"
        assert settings[key] == made(parent)["weights"], "made from another parent than is shipped"


@pytest.mark.parametrize("name", NAMES)
def test_the_checksum_of_a_shipped_folder_is_that_of_its_weights(name):
    assert made(name)["weights"] == folder_hash(PRETRAINED / name)


TRAINED = [name for name in NAMES if not name.startswith("pairs-")]


@pytest.mark.parametrize("name", TRAINED)
def test_a_training_curve_runs_to_the_last_step_and_falls(name):
    curve = made(name)["curve"]
    recipe = recipe_of(name)
    trainings = [recipe, *(part for part in recipe.values() if isinstance(part, dict))]
    assert curve[-1][0] >= 0.99 * sum(training.get("steps", 0) for training in trainings)
    # what follows the first of several trainings has another loss
    first = next((recipe[part]["steps"] for part in ("shrinking", "matching") if part in recipe), curve[-1][0])
    assert [loss for step, loss, _ in curve if step <= first][-1] < curve[0][1]


def test_every_kind_of_recipe_has_a_maker():
    assert set(RECIPES) == {*MAKERS, "networks"}


def test_all_of_the_embedded_world_is_shipped_and_nothing_without_a_recipe():
    embedded = {name for name in EVERY if not only_named(name)}
    assert embedded <= set(NAMES) <= set(EVERY)


def test_an_unknown_name_is_refused_with_those_that_exist(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["run", "teachers", "teacher-marble"])
    monkeypatch.setenv("DISTILL_OWNER", "")  # taken back when the test ends
    with pytest.raises(SystemExit) as ended:
        main()
    message = capsys.readouterr().err
    assert ended.value.code == 2
    assert "teacher-marble is unknown; choose of" in message and "teacher-textured" in message


def test_a_broken_metric_network_says_how_to_get_it_back(tmp_path, monkeypatch):
    (tmp_path / "extractor-scenes").mkdir()
    (tmp_path / "extractor-scenes" / "weights.safetensors").write_bytes(b"cut")
    monkeypatch.setattr(pretrained, "PRETRAINED", tmp_path)
    with pytest.raises(ValueError, match="make teachers NAMES=extractor-scenes"):
        pretrained.extractor()


def test_shipped_weights_that_a_disk_has_spoiled_are_refused(tmp_path, monkeypatch):
    shutil.copytree(PRETRAINED / "student-textured", tmp_path / "student-textured")
    monkeypatch.setattr(pretrained, "PRETRAINED", tmp_path)
    pretrained.student("textured")
    path = next((tmp_path / "student-textured").glob("*.safetensors"))
    raw = bytearray(path.read_bytes())
    raw[-5] ^= 1  # a small change of one weight, which no format notices
    path.write_bytes(raw)
    with pytest.raises(ValueError, match="are not those that shipped"):
        pretrained.student("textured")


def test_everything_shipped_opens():
    model = pretrained.pipeline()
    assert len(pretrained.pairs("scenes", model)) == RECIPES["pairs"]["scenes"]["count"]
    for network in (pretrained.one_step, pretrained.text_student, pretrained.tiny_unet):
        assert network("scenes", model).shape == model.network.shape
    for kind in ("inpainter", "inpaintstudent"):
        assert pretrained.inpaint_network(kind, "scenes", model).module.config.in_channels > model.network.shape[0]
    for kind in ("edges", "depth", "coarse"):
        pretrained.controlnet(kind), pretrained.one_control(kind)
    pretrained.tiny_decoder(), pretrained.clip(), pretrained.attribute_reader(), pretrained.layout()
    for name in RECIPES["lora"]:
        pretrained.lora(name)
    for name in RECIPES["matcher"]:
        if not only_named(f"matcher-{name}"):
            pretrained.matcher(name)

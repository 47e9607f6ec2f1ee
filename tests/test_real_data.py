"""Real data goes the way of the embedded world, from a folder to shipped networks, students and notebooks."""

import json
import os
import subprocess
import sys
from dataclasses import asdict

import pytest
import torch
from real_folders import cifar_folder, fashion_folder, picture_folder

from distill_lib.engine.loop import TrainSettings
from distill_lib.experiments import halvings, hardness
from distill_lib.guided.halving import Halving, halve_once
from distill_lib.measure.metrics import Reader
from distill_lib.networks.adapter import Keyed, Network
from distill_lib.paths import ROOT
from distill_lib.profiles import load
from distill_lib.shipped import make, pretrained
from distill_lib.worlds.pictures import DatasetSpec, data_name, fingerprint
from distill_lib.worlds.pictures import load as load_pictures

SHORT = {"steps": 2, "batch_size": 8, "lr": 1e-3, "warmup": 1, "ema": 0.9, "seed": 0, "count": 200}
KINDS = ("extractor", "teacher", "student")


@pytest.fixture
def small(tmp_path, runs, monkeypatch):
    """Recipes of real data made small, and an empty place for what they make."""
    monkeypatch.setattr(pretrained, "PRETRAINED", tmp_path / "pretrained")
    recipes = pretrained.RECIPES
    for name in ("large", "small"):
        monkeypatch.setitem(recipes["networks"], name, {"channels": [32, 32, 32], "layers": 1})
    for kind in KINDS:
        for name in ("cifar10", "folder"):
            monkeypatch.setitem(recipes[kind], name, recipes[kind][name] | SHORT)


@pytest.mark.parametrize("name, build, n_classes", [("cifar10", cifar_folder, 10), ("folder", picture_folder, 3)])
def test_a_few_steps_of_everything_on_a_folder(name, build, n_classes, tmp_path, small, monkeypatch):
    """Metric network, teacher, stage one and every halving, by the recipes of the data made small."""
    monkeypatch.setenv("DISTILL_FOLDER", str(build(tmp_path / "data")))
    assert pretrained.missing_for(name) == [f"{kind}-{name}" for kind in KINDS]
    for kind in KINDS:
        make.make(f"{kind}-{name}")
        assert pretrained.made(f"{kind}-{name}")["curve"][-1][0] == 2
    pretrained.check_networks(name)
    read = Reader(pretrained.extractor(name)).read(torch.zeros(2, 3, 32, 32, dtype=torch.uint8))
    assert read["logits"].shape == (2, n_classes)
    assert pretrained.teacher(name).config.num_class_embeds == n_classes + 1  # and one that stands for no condition
    settings = load("smoke", name)
    assert settings.sizes.samples == min(16, len(load_pictures(DatasetSpec(name=name, split="test"))) // 2)
    chain = halvings.deterministic(settings, load_pictures(DatasetSpec(name=name, count=64)), seed=0)
    assert list(chain) == [8, 4, 2, 1]
    assert all(asdict(settings.halving)["steps"] == student.curve[-1][0] for student in chain.values())


def test_missing_networks_are_named_with_the_command_that_trains_them(tmp_path, small):
    command = "make teachers NAMES='extractor-folder teacher-folder student-folder' FOLDER=/a/b"
    with pytest.raises(ValueError, match=f"teacher-folder, student-folder are not trained yet; first run: {command}$"):
        pretrained.check_networks("folder", "/a/b")


def test_networks_and_runs_of_one_folder_are_not_those_of_another(tmp_path, small, monkeypatch):
    """What was trained on the folder a is neither used with b nor found again when b is trained on."""
    a, b = (picture_folder(tmp_path / name, seed) for seed, name in enumerate("ab"))
    monkeypatch.setenv("DISTILL_FOLDER", str(a))
    for kind in KINDS:
        make.make(f"{kind}-folder")
    made = {kind: pretrained.made(f"{kind}-folder") for kind in KINDS}
    net = Keyed(Network(pretrained.student("folder").requires_grad_(False)), "parent")
    settings = TrainSettings(steps=1, batch_size=4, lr=1e-3)
    keys = [halve_once(net, load_pictures(DatasetSpec(name="folder", count=20)), Halving(4, settings)).key]
    assert made["teacher"]["config"]["data"] == fingerprint("folder")

    monkeypatch.setenv("DISTILL_FOLDER", str(b))
    for read in (pretrained.extractor, pretrained.teacher, pretrained.student, pretrained.check_networks):
        with pytest.raises(ValueError, match=f"-folder was trained on other pictures .*{b} holds .*NAMES=") as error:
            read("folder")
        assert "\n" not in str(error.value) and len(str(error.value)) < 450
    keys.append(halve_once(net, load_pictures(DatasetSpec(name="folder", count=20)), Halving(4, settings)).key)
    assert len(set(keys)) == 2
    with pytest.raises(ValueError, match="teacher-folder was trained on other pictures"):
        make.make("student-folder")
    for kind in KINDS:
        make.make(f"{kind}-folder")
        again = pretrained.made(f"{kind}-folder")
        assert again["config"]["data"] == fingerprint("folder") != made[kind]["config"]["data"]
        assert again["weights"] != made[kind]["weights"]
    pretrained.check_networks("folder", str(b))


def test_test_pictures_are_never_more_than_there_are(tmp_path, monkeypatch):
    monkeypatch.setenv("DISTILL_FOLDER", str(picture_folder(tmp_path / "data")))
    settings = load("laptop", "folder")
    assert settings.sizes.samples == settings.hardness.samples == hardness.most_held_out("folder", 9) == 33
    assert hardness.most_held_out("textured", 9) == 9
    assert settings.suffix == "-folder" and settings.data == data_name("folder") != "folder"


@pytest.mark.notebook
@pytest.mark.parametrize("name", ["01_guided_teacher", "02_guidance_distillation", "03_step_halving"])
def test_a_notebook_runs_on_a_folder_of_fashion_mnist_and_keeps_its_results_apart(name, tmp_path):
    folder = fashion_folder(tmp_path / "idx", 200, 10_000)
    command = ["notebook", name, str(tmp_path / "out.ipynb"), "--profile", "smoke", "--set", "dataset=fashion_mnist"]
    places = {"RUNS": "runs", "FIGURES": "figures"}
    environment = os.environ | {f"DISTILL_{key}": str(tmp_path / value) for key, value in places.items()}
    environment |= {"DISTILL_FOLDER": str(folder), "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "distill_lib.run", *command]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    written = sorted((tmp_path / "figures" / "smoke").glob("*.json"))
    assert written and all(path.stem.endswith("-fashion-mnist") for path in written)
    (data,) = {json.loads(path.read_text())["dataset"] for path in written}
    train, test = (fingerprint("fashion_mnist", str(folder), split) for split in ("train", "test"))
    assert data == f"fashion_mnist-{train}-{test}"

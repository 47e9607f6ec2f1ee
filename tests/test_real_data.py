"""Real data goes the way of the embedded world, from a folder to shipped networks, students and notebooks."""

import json
import os
import subprocess
import sys
from dataclasses import asdict

import pytest
import torch
from real_folders import cifar_folder, fashion_folder

from distill_lib import making, pretrained, students
from distill_lib.metrics import Reader
from distill_lib.profiles import load
from distill_lib.reach import ROOT
from distill_lib.worlds.datasets import DatasetSpec
from distill_lib.worlds.datasets import load as load_pictures

SHORT = {"steps": 2, "batch_size": 8, "lr": 1e-3, "warmup": 1, "ema": 0.9, "seed": 0, "count": 200}


def test_a_few_steps_of_everything_on_a_folder_of_cifar10(tmp_path, runs, monkeypatch):
    """Metric network, teacher, stage one and every halving, by the recipes of CIFAR-10 made small."""
    monkeypatch.setenv("DISTILL_FOLDER", str(cifar_folder(tmp_path / "cifar")))
    monkeypatch.setattr(pretrained, "PRETRAINED", tmp_path / "pretrained")
    recipes = pretrained.RECIPES
    monkeypatch.setitem(recipes["networks"], "large", {"channels": [32, 32, 32], "layers": 1})
    for kind in ("extractors", "teachers", "students"):
        monkeypatch.setitem(recipes[kind], "cifar10", recipes[kind]["cifar10"] | SHORT)
    for kind in ("extractor", "teacher", "student"):
        making.make(f"{kind}-cifar10")
        assert pretrained.made(f"{kind}-cifar10")["curve"][-1][0] == 2
    read = Reader(pretrained.extractor("cifar10")).read(torch.zeros(2, 3, 32, 32, dtype=torch.uint8))
    assert read["logits"].shape == (2, 10)
    assert pretrained.teacher("cifar10").config.num_class_embeds == 11  # and one that stands for no condition
    settings = load("smoke", "cifar10")
    chain = students.deterministic(settings, load_pictures(DatasetSpec(name="cifar10", count=64)), seed=0)
    assert list(chain) == [16, 8, 4, 2, 1]
    assert all(asdict(settings.halving)["steps"] == one.curve[-1][0] for one in chain.values())


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
    assert {json.loads(path.read_text())["dataset"] for path in written} == {"fashion_mnist"}

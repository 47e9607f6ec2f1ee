"""The studio's recipes: what the cut saves, what networks weigh, and that each part is made, found again, opened."""

import copy

import pytest
import torch
from diffusers import UNet2DConditionModel

from distill_lib.engine.loop import TrainSettings
from distill_lib.experiments import studio_gates
from distill_lib.measure import prompts
from distill_lib.measure.costs import operations
from distill_lib.measure.gates import GATES, gate_rows
from distill_lib.networks.autoencoders import build_autoencoder
from distill_lib.networks.pruning import SDXS_512, prune, pruned_config
from distill_lib.networks.unet import config_of
from distill_lib.sdxs.matchers import PlainMatcher
from distill_lib.shipped import make, pretrained
from distill_lib.shipped.pretrained import RECIPES
from distill_lib.shipped.write import FILE
from distill_lib.teachers.small_diffusion import build_text_unet, early_unet
from distill_lib.worlds.captions import LENGTH, drawn_attributes, say, vocabulary_behind
from distill_lib.worlds.vocabulary import STUDIO

NAMES = ["studio8", "studio16"]
SIDE = {"studio8": 8, "studio16": 16}
CHANNELS = {"studio8": 8, "studio16": 4}


def weights(net):
    return sum(parameter.numel() for parameter in net.parameters())


def unet_of(name):
    recipe = RECIPES["pipeline"][name]
    sizes = {key: recipe["unet"][key] for key in ("channels", "attention", "layers")}
    with torch.device("meta"):
        return build_text_unet(side=SIDE[name], width=recipe["clip"]["width"], latents=CHANNELS[name], **sizes)


def flops(name, unet):
    width = RECIPES["pipeline"][name]["clip"]["width"]
    with torch.device("meta"):
        z = torch.zeros(1, CHANNELS[name], SIDE[name], SIDE[name])
        return operations(unet, z, torch.zeros(1), torch.zeros(1, LENGTH, width))


@pytest.mark.parametrize("name", NAMES)
def test_the_papers_cut_removes_at_least_half_of_the_operations(name):
    teacher = unet_of(name)
    with torch.device("meta"):
        cut = UNet2DConditionModel(**pruned_config(config_of(teacher), SDXS_512))
    assert flops(name, teacher) >= 2 * flops(name, cut)
    assert weights(teacher) >= 2.4 * weights(cut)  # 2.7 in the paper


@pytest.mark.parametrize("name", NAMES)
def test_autoencoder_and_unet_belong_together_and_fit_into_files_of_7_mb(name):
    recipe = RECIPES["pipeline"][name]
    vae_recipe = recipe["autoencoder"]
    with torch.device("meta"):
        vae = build_autoencoder(vae_recipe["channels"], vae_recipe["latents"])
        latent = vae.encode(torch.zeros(1, 3, 64, 64)).latent_dist.mean
        assert latent.shape == (1, CHANNELS[name], SIDE[name], SIDE[name])
        assert vae.decode(latent).sample.shape == (1, 3, 64, 64)
    for net in (vae, unet_of(name)):
        assert max(2 * parameter.numel() for parameter in net.parameters()) < FILE  # no weight is split


def test_the_pipelines_differ_in_the_latents_alone():
    first, other = (RECIPES["pipeline"][name] for name in NAMES)
    assert {key for key in first if first[key] != other[key]} == {"autoencoder", "unet"}
    for recipe in (first, other):
        kept = [recipe["unet"]["steps"] * i // 5 for i in range(1, 5)]
        assert recipe["unet"]["snapshots"] == 4 and kept[0] == recipe["unet"]["steps"] / 5


def test_the_studio_is_made_only_when_it_is_named():
    named = {f"{kind}-{name}" for kind in make.MAKERS for name in RECIPES[kind] if "studio" in name}
    assert len(named) == 10 and all(map(make.only_named, named))
    assert not make.only_named("pipeline-scenes") and make.only_named("teacher-cifar10")


SHORT = {"steps": 5, "batch_size": 4, "warmup": 1, "count": 24, "alone": 1, "tower": 8, "critic": 4}


def short(recipe):
    small = {key: SHORT[key] for key in recipe.keys() & SHORT.keys()}
    return recipe | {key: short(part) for key, part in recipe.items() if isinstance(part, dict)} | small


def _check_gates(monkeypatch):
    """Every gate is measured on the shipped parts, in as many rows as `GATES` asks for."""
    for name in ("extractor", "clip"):
        monkeypatch.setitem(RECIPES[name], "studio", short(RECIPES[name]["studio"]))
    for name in ("extractor-studio", "clip-studio"):
        make.make(name)
    for name, value in {"PAIRS": 8, "_HELD": 4, "_REFERENCE": 64, "_LEVELS": (512, 1024)}.items():
        monkeypatch.setattr(studio_gates, name, value)
    monkeypatch.setattr(studio_gates, "SQUARES", TrainSettings(steps=2, batch_size=4, lr=1e-3, warmup=1))
    monkeypatch.setattr(prompts, "FEWEST", 8)
    measured = studio_gates.StudioGates("studio8", n=8, n_steps=2)
    parts = (measured.autoencoder, measured.prompts, measured.one_step, measured.cut, measured.ddim)
    rows = [row for part in parts for row in part()]
    judged = gate_rows(rows)
    assert len(judged) == len(GATES) and all(torch.tensor(row["value"]).isfinite() for row in judged)
    assert {row["n"] for row in rows} == {4, 8} and {row["seed"] for row in rows} == {0}


def test_every_part_is_made_in_its_order_and_the_second_finds_the_runs_of_the_first(runs, tmp_path, monkeypatch):
    monkeypatch.setattr(pretrained, "PRETRAINED", tmp_path / "pretrained")
    recipe = short(copy.deepcopy(RECIPES["pipeline"]["studio8"]))
    recipe["clip"] |= {"width": 16, "layers": 1}
    recipe["autoencoder"] |= {"channels": [16, 16, 16, 16]}
    recipe["unet"] |= {"channels": [16, 32, 32]}
    monkeypatch.setitem(RECIPES["pipeline"], "studio8", recipe)
    monkeypatch.setitem(RECIPES["attributes"], "studio", short(RECIPES["attributes"]["studio"]) | {"width": 8})
    for name in ("attributes-studio", "autoencoder-studio8", "pipeline-studio8", "early-studio8"):
        make.make(name)
        assert pretrained.made(name)["command"] == f"make teachers NAMES={name}"
    assert {path.name.split("-")[0] for path in runs.iterdir() if (path / "done").exists()} == {
        "attributes", "clip", "autoencoder", "text"
    }  # fmt: skip
    assert sum((path / "done").exists() for path in runs.iterdir()) == 5  # two of the autoencoder
    model, vae = pretrained.pipeline("studio8"), pretrained.autoencoder("studio8")
    assert all(torch.equal(a, b) for a, b in zip(vae.parameters(), model.pipe.vae.parameters(), strict=True))
    assert vae.config.scaling_factor == model.pipe.vae.config.scaling_factor != 1
    early, last = pretrained.early_teacher("studio8", model), model.network
    assert any(not torch.equal(a, b) for a, b in zip(early.module.parameters(), last.module.parameters(), strict=True))
    assert vocabulary_behind(model.pipe.tokenizer) is STUDIO
    captions = say(drawn_attributes(3, 0, vocabulary=STUDIO), None, STUDIO)
    with torch.no_grad():
        answer = prune(last.module, SDXS_512)(torch.zeros(3, 8, 8, 8), torch.ones(3), model.states(captions)).sample
    assert answer.shape == (3, 8, 8, 8) and pretrained.attribute_reader("studio").detail[2].out_features == 14
    with pytest.raises(ValueError, match="never seen: 'gray'"):
        model.states(["a gray cube left of a red cone"])
    _check_gates(monkeypatch)
    monkeypatch.setitem(recipe["unet"], "snapshots", 0)
    with pytest.raises(ValueError, match="keeps no average"):
        early_unet(recipe)
    monkeypatch.setitem(RECIPES["matcher"], "studio", short(RECIPES["matcher"]["studio"]) | {"width": 8})
    make.make("matcher-studio")
    matcher = pretrained.matcher("studio")
    assert isinstance(matcher, PlainMatcher) and matcher.read.out_features == 2 * STUDIO.logits
    assert all(path.stat().st_size < 7.2e6 for path in (tmp_path / "pretrained").rglob("*.safetensors"))

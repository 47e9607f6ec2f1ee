"""Making the shipped parts of SDXS: the teacher's pairs, a tiny decoder, a small U-Net, and the one-step student.

Nothing here draws a picture of the world: what is trained on is the teacher's own answers to prompts.
"""

from dataclasses import replace
from functools import partial
from typing import Any

import torch

from distill_lib.engine.files import save_tensors
from distill_lib.engine.loop import TrainSettings
from distill_lib.networks.autoencoders import TinyDecode
from distill_lib.sdxs.critics import PatchCritic
from distill_lib.sdxs.feature_matching import ByMatcher, one_step_loss
from distill_lib.sdxs.one_step import fit_on_pairs
from distill_lib.sdxs.score_distillation import fit_by_scores
from distill_lib.sdxs.tiny_decoder import tiny_decoder
from distill_lib.sdxs.tiny_unet import cut_network, small_unet
from distill_lib.shipped import pretrained
from distill_lib.shipped.export import export_one_step
from distill_lib.shipped.pretrained import RECIPES, key, pipeline
from distill_lib.shipped.settings import scoring_of, with_parents
from distill_lib.shipped.write import FILE, ship, write_origin
from distill_lib.teachers.latents import Pairs, Remembered, teacher_pairs


def make_pairs(name: str) -> None:
    """Let a pipeline answer prompts from noise, and ship its latents."""
    recipe = RECIPES["pairs"][name]
    source, folder = key(f"pipeline-{recipe['pipeline']}"), pretrained.PRETRAINED / f"pairs-{name}"
    arguments = recipe["teacher_steps"], recipe["w"], recipe["seed"], source, recipe["solver"]
    model = pipeline(recipe["pipeline"])
    x = teacher_pairs(model, pretrained.pair_prompts(recipe, model), *arguments).x.half()
    for number, part in enumerate(x.split(FILE // (2 * x[0].numel()))):
        save_tensors(folder / f"{number}.safetensors", {"x": part})
    write_origin(folder, [], with_parents(recipe))


def _pairs_of(recipe: dict[str, Any]) -> Pairs:
    """The pairs that a recipe names, with the prompts that it draws for scores beside them (`more`: count and seed)."""
    model = pipeline(RECIPES["pairs"][recipe["pairs"]]["pipeline"])
    more = pretrained.pair_prompts(recipe["more"], model) if "more" in recipe else []
    return replace(pretrained.pairs(recipe["pairs"], model), more=more)


def make_tiny_decoder(name: str) -> None:
    """Train a tiny decoder on the teacher's latents, and ship it as diffusers' tiny autoencoder."""
    recipe = RECIPES["tinydecoder"][name]
    settings, matcher = TrainSettings(**recipe["training"]), pretrained.matcher(recipe["matcher"])
    options = dict(recipe["how"])
    options["critic_start"] = options.pop("alone")  # the key that made.json of shipped weights holds
    options["critic"] = PatchCritic(**options.get("critic", {}))
    tiny, _, run = tiny_decoder(_pairs_of(recipe), {}, settings, **options, matcher=matcher)
    folder = pretrained.PRETRAINED / f"tinydecoder-{name}"
    tiny.half().save_pretrained(folder, safe_serialization=True)
    write_origin(folder, [run], with_parents(recipe))


def make_tiny_unet(name: str) -> None:
    """Cut the teacher's U-Net and teach it by the whole one."""
    recipe = RECIPES["tinyunet"][name]
    pairs, settings = _pairs_of(recipe), TrainSettings(**recipe["training"])
    trained = small_unet(cut_network(pairs.model.network, seed=settings.seed), pairs, settings)
    ship(f"tinyunet-{name}", trained.net.module, [trained.run], with_parents(recipe))


def make_one_step(name: str) -> None:
    """Train the small U-Net to one step, and ship it with the tiny decoder as a pipeline of diffusers."""
    recipe = RECIPES["onestep"][name]
    pairs, tiny = _pairs_of(recipe), pretrained.tiny_decoder(recipe["decoder"])
    model = pairs.model
    student = model.network.like(pretrained.tiny_unet(recipe["unet"], model).module.requires_grad_(True))
    decode = {"tiny": TinyDecode(tiny), "large": model.network.decode}[recipe["seen_through"]]
    see = partial(ByMatcher, pretrained.matcher(recipe["matcher"]), picture=recipe.get("picture", False))
    known, weights = Remembered(pairs), recipe.get("weights")
    cost = one_step_loss("matching", see(decode), see(known), recipe["window"], weights)
    warm = fit_on_pairs(student, pairs, cost, TrainSettings(**recipe["matching"]))
    done = fit_by_scores(student, pairs, cost, scoring_of(recipe))
    folder = pretrained.PRETRAINED / f"onestep-{name}"
    source = RECIPES["pairs"][recipe["pairs"]]["pipeline"]
    provenance = f"A small U-Net and a tiny decoder, distilled from `pipeline-{source}` by `make teachers`."
    parts = model.pipe.to(dtype=torch.float16), student.module.half(), tiny.half()
    for part in parts[1:]:
        part.register_to_config(_name_or_path=f"onestep-{name}")  # diffusers keeps the folder that it was loaded from
    export_one_step(folder, *parts, provenance, pairs.prompts[0])
    write_origin(folder, [warm.run, done.run], with_parents(recipe))

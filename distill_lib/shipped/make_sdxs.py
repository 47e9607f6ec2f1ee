"""Making the shipped parts of SDXS: the teacher's pairs, a tiny decoder, a small U-Net, and the one-step student.

Nothing here draws a picture of the world: what is trained on is the teacher's own answers to prompts.
"""

from typing import Any

import torch

from distill_lib.engine.files import save_tensors
from distill_lib.engine.loop import TrainSettings
from distill_lib.networks.autoencoders import TinyDecode
from distill_lib.sdxs.feature_matching import one_step_loss, views
from distill_lib.sdxs.one_step import regressed
from distill_lib.sdxs.score_distillation import Segment, scored
from distill_lib.sdxs.tiny_decoder import tiny_decoder
from distill_lib.sdxs.tiny_unet import small_unet
from distill_lib.shipped import pretrained
from distill_lib.shipped.export import export_one_step
from distill_lib.shipped.pretrained import RECIPES, key, made, pipeline
from distill_lib.shipped.write import FILE, ship, write_origin
from distill_lib.teachers.latents import Pairs, teacher_pairs


def make_pairs(name: str) -> None:
    """Let a pipeline answer prompts from noise, and ship its latents."""
    recipe = RECIPES["pairs"][name]
    source, folder = f"pipeline-{recipe['pipeline']}", pretrained.PRETRAINED / f"pairs-{name}"
    how = recipe["teacher_steps"], recipe["w"], recipe["seed"], key(source), recipe["solver"]
    x = teacher_pairs(pipeline(recipe["pipeline"]), pretrained.pair_prompts(recipe), *how).x.half()
    for number, part in enumerate(x.split(FILE // (2 * x[0].numel()))):
        save_tensors(folder / f"{number}.safetensors", {"x": part})
    write_origin(folder, [], recipe | {"pipeline": made(source)["weights"]}, f"make teachers NAMES=pairs-{name}")


def _given(recipe: dict[str, Any]) -> tuple[Pairs, dict[str, str]]:
    """Pairs of a recipe, and the checksums of all that it names."""
    kinds = {"pairs": "pairs", "matcher": "matcher", "decoder": "tinydecoder", "unet": "tinyunet"}
    parents = {what: made(f"{kind}-{recipe[what]}")["weights"] for what, kind in kinds.items() if what in recipe}
    source = RECIPES["pairs"][recipe["pairs"]]["pipeline"]
    return pretrained.pairs(recipe["pairs"], pipeline(source)), parents


def make_tiny_decoder(name: str) -> None:
    """Train a tiny decoder on the teacher's latents, and ship it as diffusers' tiny autoencoder."""
    recipe = RECIPES["tinydecoders"][name]
    pairs, parents = _given(recipe)
    settings, how = TrainSettings(**recipe["training"]), recipe["how"]
    matcher = pretrained.matcher(recipe["matcher"])
    tiny, _, run = tiny_decoder(pairs, parents, settings, **how, matcher=matcher)
    folder = pretrained.PRETRAINED / f"tinydecoder-{name}"
    tiny.half().save_pretrained(folder, safe_serialization=True)
    write_origin(folder, [run], recipe | parents, f"make teachers NAMES=tinydecoder-{name}")


def make_tiny_unet(name: str) -> None:
    """Cut the teacher's U-Net and teach it by the whole one."""
    recipe = RECIPES["tinyunets"][name]
    pairs, parents = _given(recipe)
    trained = small_unet(pairs, parents, TrainSettings(**recipe["training"]))
    command = f"make teachers NAMES=tinyunet-{name}"
    ship(f"tinyunet-{name}", trained.net.module, [trained.run], recipe | parents, command)


def make_one_step(name: str) -> None:
    """Train the small U-Net to one step, and ship it with the tiny decoder as a pipeline of diffusers."""
    recipe = RECIPES["onesteps"][name]
    pairs, parents = _given(recipe)
    told, tiny = pairs.told, pretrained.tiny_decoder(recipe["decoder"])
    student = told.network.like(pretrained.tiny_unet(recipe["unet"], told).module.requires_grad_(True))
    decode = {"tiny": TinyDecode(tiny), "large": told.network.decode}[recipe["seen_through"]]
    matcher = pretrained.matcher(recipe["matcher"])
    see, wanted = (views(recipe["matcher"], matcher, told.network, by) for by in (decode, told.network.decode))
    cost = one_step_loss("matching", see, wanted, recipe["window"])
    about = parents | {"loss": "matching", "window": recipe["window"], "seen_through": recipe["seen_through"]}
    warm = regressed(student, pairs, cost, about, TrainSettings(**recipe["matching"]))
    segment = Segment(**{field: tuple(ends) for field, ends in recipe["segment"].items()})
    how = recipe["how"] | {"segment": segment}
    settings = TrainSettings(**recipe["scores"])
    done = scored(student, pairs, cost, about | {"warm": warm.key}, settings, **how)
    folder = pretrained.PRETRAINED / f"onestep-{name}"
    source = RECIPES["pairs"][recipe["pairs"]]["pipeline"]
    told_of = f"A small U-Net and a tiny decoder, distilled from `pipeline-{source}` by `make teachers`."
    parts = told.pipe.to(dtype=torch.float16), student.module.half(), tiny.half()
    for part in parts[1:]:
        part.register_to_config(_name_or_path=f"onestep-{name}")  # diffusers keeps the folder that it was loaded from
    export_one_step(folder, *parts, told_of, pairs.prompts[0], "7MB")
    write_origin(folder, [warm.run, done.run], recipe | parents, f"make teachers NAMES=onestep-{name}")

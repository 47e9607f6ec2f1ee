"""Making the shipped style LoRAs: a low-rank change of the teacher's U-Net, learned from pictures of a look."""

from distill_lib.engine.loop import TrainSettings, finish
from distill_lib.engine.store import Run
from distill_lib.networks.lora import lora_of, with_adapter
from distill_lib.networks.lora_files import save_lora
from distill_lib.shipped import pretrained
from distill_lib.shipped.pretrained import RECIPES, key, made, pipeline
from distill_lib.shipped.write import write_origin
from distill_lib.teachers.denoising import train_teacher
from distill_lib.teachers.latents import latent_pictures

_SETTINGS = ("steps", "batch_size", "lr", "warmup", "ema", "seed")


def make_lora(name: str) -> None:
    """Train a LoRA of a look on captioned pictures, by the denoising loss that the U-Net was trained by, and ship it.

    The network's own weights stand still. Attention layers alone do not reach a look: what they leave is a photo's
    light. So convolutions of the residual units change too.
    """
    recipe = RECIPES["loras"][name]
    source = f"pipeline-{recipe['pipeline']}"
    told = pipeline(recipe["pipeline"])
    pictures = latent_pictures(told, key(source), recipe["world"], recipe["count"], recipe["seed"])
    settings = TrainSettings(**{field: recipe[field] for field in _SETTINGS})
    net = with_adapter(told.network, recipe["rank"], recipe["seed"])
    config = recipe | {"pipeline": made(source)["weights"]}
    run = Run(f"lora-{name}", config, train_teacher, with_adapter)
    finish(net, train_teacher(net, pictures, settings, run, recipe["drop"]), run, f"LoRA {name}")
    folder = pretrained.PRETRAINED / f"lora-{name}"
    save_lora(folder, lora_of(net.module))
    write_origin(folder, [run], config, f"make teachers NAMES=lora-{name}")

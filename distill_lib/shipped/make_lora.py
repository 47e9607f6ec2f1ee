"""Making the shipped style LoRAs: a low-rank change of the teacher's U-Net, learned from pictures of a look."""

from distill_lib.engine.loop import finish
from distill_lib.engine.store import Run
from distill_lib.networks.lora import lora_of, with_adapter
from distill_lib.networks.lora_files import save_lora
from distill_lib.shipped import pretrained
from distill_lib.shipped.pretrained import RECIPES
from distill_lib.shipped.settings import data_of, settings_of, with_parents
from distill_lib.shipped.write import write_origin
from distill_lib.teachers.denoising import train_teacher


def make_lora(name: str) -> None:
    """Train a LoRA of a look on captioned pictures, by the denoising loss that the U-Net was trained by, and ship it.

    The network's own weights stand still. Attention layers alone do not reach a look: what they leave is a photo's
    light. So convolutions of the residual units change too.
    """
    recipe = RECIPES["lora"][name]
    model, pictures = data_of(recipe)
    net, config = with_adapter(model.network, recipe["rank"], recipe["seed"]), with_parents(recipe)
    run = Run(f"lora-{name}", config | {"pictures": pictures}, train_teacher, with_adapter)
    finish(net, train_teacher(net, pictures, settings_of(recipe), run, recipe["drop"]), run, f"LoRA {name}")
    folder = pretrained.PRETRAINED / f"lora-{name}"
    save_lora(folder, lora_of(net.module))
    write_origin(folder, [run], config)

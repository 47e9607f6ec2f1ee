"""What notebooks 09 and 10 measure on: latents from noise that no pair was shipped of."""

from distill_lib.networks.pipeline import TextToImage
from distill_lib.shipped import pretrained
from distill_lib.teachers.latents import Pairs, teacher_pairs
from distill_lib.worlds.seeds import held_out_seed


def held_out_pairs(name: str, model: TextToImage, prompts: list[str], seed: int = 0) -> Pairs:
    """Latents that a teacher makes of prompts, made as the shipped pairs `name` were but of other noise.

    Raises:
        ValueError: no pairs of this name are shipped.
    """
    made = pretrained.made(f"pairs-{name}")["config"]
    arguments = made["teacher_steps"], made["w"], held_out_seed("pairs", seed), model.fingerprint, made["solver"]
    return teacher_pairs(model, prompts, *arguments)

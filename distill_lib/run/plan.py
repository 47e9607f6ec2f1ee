"""`plan`: what a training of a teacher's student needs, and which cards have that much, before a weight is loaded.

python -m distill_lib.run plan sd-2.1 --method halving --pixels 512 --batch 64 --slices 16 --checkpointing

A teacher is one of `ARCHITECTURES` or a folder in diffusers' format, of which the configurations alone are read.
Bytes are counted (`measure.plan`); seconds are an estimate: operations of an update over what a card's maker names, a
share of which is reached.
"""

import argparse
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from distill_lib.engine.savings import Savings
from distill_lib.experiments.fitting import fitted, has_eight_bits, trainings_of
from distill_lib.measure.plan import GB, OPTIMIZERS, Needed, Plan, memory_here, needed
from distill_lib.measure.roles import METHODS, Architecture
from distill_lib.networks.doors import read_config
from distill_lib.profiles import Small, Text
from distill_lib.profiles.reading import read_yaml
from distill_lib.report.tables import markdown_table
from distill_lib.run.true_scale import SD_21, SDXL

_SIZES = read_yaml(Path(__file__).parent / "true_sizes.yaml")
_TEXTS = _SIZES["text encoders"]
_SD_15 = SD_21 | {"cross_attention_dim": 768, "attention_head_dim": 8, "use_linear_projection": False}
ARCHITECTURES = {
    "sd-1.5": Architecture(unet=_SD_15, texts=_TEXTS["SDXL"][:1], vae=_SIZES["vae"]),
    "sd-2.1": Architecture(unet=SD_21, texts=_TEXTS["SD 2.1"], vae=_SIZES["vae"]),
    "sdxl": Architecture(unet=SDXL, texts=_TEXTS["SDXL"], vae=_SIZES["vae"]),
}
"""Stable Diffusion by name."""


@dataclass(frozen=True)
class Card:
    """A GPU: its memory in units of 2^30 bytes, TFLOP/s of dense matrices in bfloat16 and in float32."""

    memory: float
    bf16: float
    fp32: float


CARDS = {
    "RTX 3090": Card(24, 71, 36),
    "RTX 4090": Card(24, 165, 83),
    "L4": Card(22.5, 121, 30),  # sold as 24: its error correction takes the rest
    "A100 40": Card(40, 312, 19.5),
    "A100 80": Card(80, 312, 19.5),
    "H100": Card(80, 989, 67),
    "H200": Card(141, 989, 67),
}
"""By name. Memory as `nvidia-smi` shows it, to within half of a hundredth; speed as the makers print it."""
_REACHED = 0.35  # of a maker's number, by a convolutional U-Net: our estimate
GIB = 2**30


def architecture(teacher: str) -> Architecture:
    """Of a name, or of a folder by its configurations.

    Raises:
        ValueError: it is neither, or a configuration is missing or no JSON.
    """
    if teacher in ARCHITECTURES:
        return ARCHITECTURES[teacher]
    folder = Path(teacher).expanduser()
    if not (folder / "model_index.json").exists():
        known = ", ".join(ARCHITECTURES)
        raise ValueError(f"teacher={teacher[:60]!r} is no folder with a model_index.json; name one, or one of {known}")
    texts = [part for part in ("text_encoder", "text_encoder_2") if part == "text_encoder" or (folder / part).is_dir()]
    unet, vae, *texts = (_config(folder / part) for part in ("unet", "vae", *texts))
    return Architecture(unet=unet, texts=texts, vae=vae)


def _config(folder: Path) -> dict[str, Any]:
    try:
        config = read_config(folder / "config.json")
    except ValueError as error:
        raise ValueError(f"{folder.name}: {error}") from error
    return {name: value for name, value in config.items() if not name.startswith("_")}


def check_fits(need: Needed, plan: Plan, where: str, memory: int) -> None:
    """Refuse what cannot fit.

    Raises:
        ValueError: names the bytes that are needed and those that are there, and what would help.
    """
    if need.whole <= memory:
        return
    saving = plan.savings
    cures = [f"more slices than {saving.slices}"] if saving.slices < plan.batch else ["a smaller batch"]
    for name, used in (("checkpointing", saving.checkpointing), ("frozen-bf16", saving.frozen_bf16 or not plan.bf16)):
        cures += [] if used else [name]
    cures += [] if saving.offload else ["offload"]
    cures += ["adamw8bit" + " (bitsandbytes is not installed)" * (not has_eight_bits())] * (saving.optimizer == "adamw")
    cures = ["fewer pixels"] if need.bytes["drawing"] == need.most else cures
    raise ValueError(
        f"{plan.method} of {plan.batch} samples at {plan.pixels} pixels needs {need.whole / GB:.1f} GB, and {where} "
        f"has {memory / GB:.1f}: take {', '.join(cures)}, or a larger card"
    )


def trainings(teacher: str, part: Text | Small, memory: int) -> list[tuple[Plan, Needed]]:
    """What the trainings of a part of a profile need, at the teacher's own size of pictures (`fitting.fitted`).

    Raises:
        ValueError: as `architecture` and `needed`.
    """
    model = architecture(teacher)
    return [fitted(model, method, settings, memory) for _, method, settings in trainings_of(part)]


def seconds(need: Needed, plan: Plan, card: Card) -> float:
    """Of an update on a card, an estimate."""
    return need.flops / (1e12 * _REACHED * (card.bf16 if plan.bf16 else card.fp32))


def table(need: Needed, plan: Plan) -> str:
    """What is needed by role, and which cards it fits, in Markdown."""
    roles = []
    for name, size in need.bytes.items():
        weights = f"{need.weights[name] / 1e6:.1f}" if name in need.weights else ""
        roles.append([{"drawing": "drawing the teacher's pictures"}.get(name, name), weights, f"{size / GB:.2f}"])
    roles.append(["reserve (estimated)", "", f"{need.reserve / GB:.2f}"])
    cards = []
    for name, card in CARDS.items():
        fits = "yes" if need.whole <= card.memory * GIB else "no"
        cards.append([name, str(card.memory), fits, f"{seconds(need, plan, card):.2f}"])
    parts = [markdown_table(["role", "weights, millions", "GB"], roles)]
    parts.append(markdown_table(["card", "memory, GiB", "fits", "seconds an update (estimated)"], cards))
    return "\n".join(parts)


def add_options(parser: argparse.ArgumentParser) -> None:
    """The options of a plan."""
    parser.add_argument("--method", default="halving", choices=METHODS)
    parser.add_argument("--pixels", type=int, default=512)
    parser.add_argument("--batch", type=int, default=4, help="samples an update and a process")
    parser.add_argument("--processes", type=int, default=1)
    parser.add_argument("--resting", type=int, default=0, help="finished students that stay on the card")
    parser.add_argument("--fp32", action="store_true", help="compute in float32, not in bfloat16")
    parser.add_argument("--slices", type=int, default=1)
    for name in ("--checkpointing", "--frozen-bf16", "--offload"):
        parser.add_argument(name, action="store_true")
    parser.add_argument("--optimizer", default="adamw", choices=OPTIMIZERS)


def plan_of(args: argparse.Namespace) -> Plan:
    """The plan that options ask for.

    Raises:
        ValueError: a number below 1, or pixels that make no latents.
    """
    for name in ("pixels", "batch", "processes", "slices"):
        if getattr(args, name) < 1:
            raise ValueError(f"--{name}={getattr(args, name)} should be 1 or more")
    names = ("slices", "checkpointing", "frozen_bf16", "offload", "optimizer")
    savings = Savings(**{name: getattr(args, name) for name in names})
    plan = Plan(method=args.method, pixels=args.pixels, batch=args.batch, bf16=not args.fp32, savings=savings)
    return replace(plan, processes=args.processes, resting=max(0, args.resting))


def main(arguments: list[str] | None = None) -> None:
    """Command line: print a plan; refuse it where a card is named that it does not fit."""
    parser = argparse.ArgumentParser(prog="distill_lib.run plan", description=__doc__.splitlines()[0])
    parser.add_argument("teacher", help=f"a folder, or one of {', '.join(ARCHITECTURES)}")
    parser.add_argument("--card", default=None, choices=[*CARDS, "here"], help="refuse what does not fit it")
    add_options(parser)
    args = parser.parse_args(arguments)
    model, plan = architecture(args.teacher), plan_of(args)
    need = needed(model, plan)
    print(table(need, plan))
    if args.card:
        where, memory = memory_here() if args.card == "here" else (args.card, CARDS[args.card].memory * GIB)
        check_fits(need, plan, where, memory)

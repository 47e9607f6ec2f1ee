"""The networks of Stable Diffusion and SDXS at their true sizes, with random weights: what a picture costs.

Latency does not depend on weights. Each network is built, timed at batch 1 and freed before the next, so that 16 GB are
enough; operations are counted on tensors without memory. Tables 1 and 2 of SDXS (Song et al. 2024, arXiv 2403.16627);
sums, shares and ratios are those of `costs`.

A guided pair evaluates U-Net and text encoder twice a step; the paper counts 32 evaluations of the U-Net, 16 guided
steps.

`make true-scale` measures all four systems, each seed once, into figures/laptop. It wants the machine
for itself, for ten minutes or so on two cores.
"""

import argparse
import gc
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL, AutoencoderTiny, UNet2DConditionModel
from torch import Tensor, nn
from transformers import CLIPTextConfig, CLIPTextModel

from distill_lib.engine.precision import default_device
from distill_lib.measure.costs import fast_dtype, module_rows, operations, summed
from distill_lib.measure.metrics import median_seconds
from distill_lib.measure.rows import SEEDS, Row
from distill_lib.networks.pruning import SDXS_512, SDXS_1024, pruned_config
from distill_lib.papers.manifest import load_paper
from distill_lib.paths import COMMITTED
from distill_lib.profiles.reading import read_yaml
from distill_lib.report.record import Recorder
from distill_lib.report.speed import Paper, cost_table, ratio_table
from distill_lib.report.tables import markdown_table

_SIZES = read_yaml(Path(__file__).parent / "true_sizes.yaml")
SD_21: dict[str, Any] = _SIZES["unet"]["SD 2.1"]
"""U-Net of Stable Diffusion 2.1 base."""
SDXL: dict[str, Any] = _SIZES["unet"]["SDXL"]
"""U-Net of Stable Diffusion XL base."""


@dataclass(frozen=True)
class Part:
    """One module of a system: its network, what it is given on a device and in a precision, how often it is
    evaluated."""

    build: Callable[[], nn.Module]
    given: Callable[[torch.device, torch.dtype], tuple[tuple[Tensor, ...], dict[str, Any]]]
    nfe: int


class _Texts(nn.Module):
    """One text encoder or two, one after the other."""

    def __init__(self, configs: list[dict[str, int]]) -> None:
        super().__init__()
        self.encoders = nn.ModuleList(CLIPTextModel(CLIPTextConfig(**config)) for config in configs)

    def forward(self, ids: Tensor) -> list[Tensor]:
        return [encoder(ids).last_hidden_state for encoder in self.encoders]


def _text(configs: list[dict[str, int]], nfe: int) -> Part:
    given = lambda device, _: ((torch.ones(1, 77, dtype=torch.long, device=device),), {})  # noqa: E731
    return Part(lambda: _Texts(configs), given, nfe)


def _unet(config: dict[str, Any], nfe: int) -> Part:
    side, width = config["sample_size"], config["cross_attention_dim"]

    def given(device: torch.device, dtype: torch.dtype) -> tuple[tuple[Tensor, ...], dict[str, Any]]:
        empty = lambda *shape: torch.zeros(*shape, device=device, dtype=dtype)  # noqa: E731
        extra = {}
        if config.get("addition_embed_type"):
            extra = {"added_cond_kwargs": {"text_embeds": empty(1, 1280), "time_ids": empty(1, 6)}}
        return (empty(1, 4, side, side), torch.tensor(999, device=device), empty(1, 77, width)), extra

    return Part(lambda: UNet2DConditionModel(**config), given, nfe)


def _decoder(build: Callable[[], nn.Module], side: int) -> Part:
    return Part(build, lambda device, dtype: ((torch.zeros(1, 4, side, side, device=device, dtype=dtype),), {}), 1)


def _system(text: str, unet: dict[str, Any], decoder: Callable[[], nn.Module], guided: int, steps: int) -> dict:
    parts = {"text encoder": _text(_SIZES["text encoders"][text], guided), "U-Net": _unet(unet, guided * steps)}
    return parts | {"decoder": _decoder(decoder, unet["sample_size"])}


SYSTEMS: dict[str, dict[str, Part]] = {
    "SD 2.1 base": _system("SD 2.1", SD_21, lambda: AutoencoderKL(**_SIZES["vae"]).decoder, 2, 16),
    "SDXS-512": _system("SD 2.1", pruned_config(SD_21, SDXS_512), lambda: AutoencoderTiny().decoder, 1, 1),
    "SDXL": _system("SDXL", SDXL, lambda: AutoencoderKL(**_SIZES["vae"]).decoder, 2, 16),
    "SDXS-1024": _system("SDXL", pruned_config(SDXL, SDXS_1024), lambda: AutoencoderTiny().decoder, 1, 1),
}
"""Modules by system; text encoders without their projections, which no U-Net of these reads."""
TABLES = {"s-tab1-true": ("tab-1", "SD 2.1 base", "SDXS-512"), "s-tab2": ("tab-2", "SDXL", "SDXS-1024")}
"""Artefact -> item of the paper, and the systems before and after."""
_PRINTED = {"SD v2.1 base": "SD 2.1 base"}


def counted(part: Part) -> dict[str, int]:
    """Weights of a part, and floating-point operations of one evaluation (a multiply and an add are two)."""
    meta = torch.device("meta")
    with meta:
        module = part.build().eval()
    given, named = part.given(meta, torch.float32)
    return {"params": sum(p.numel() for p in module.parameters()), "flops": operations(module, *given, **named)}


def measured(part: Part, device: torch.device, dtype: torch.dtype = torch.bfloat16, repeats: int = 5) -> float:
    """Median seconds of one evaluation at batch 1, with small random weights."""
    with torch.device("meta"):
        module = part.build().eval().to(dtype)
    module = module.to_empty(device=device)
    with torch.no_grad():
        for tensor in (*module.parameters(), *module.buffers()):
            if tensor.is_floating_point():
                tensor.normal_(0, 0.02)
            else:  # positions
                tensor.copy_(torch.arange(tensor.numel(), device=device).reshape(tensor.shape))
        given, named = part.given(device, dtype)
        return median_seconds(partial(module, *given, **named), repeats)


def measure(
    systems: Mapping[str, Mapping[str, Part]], before: str, after: str, seed: int, device: torch.device, repeats: int
) -> list[Row]:
    """Rows of a table: weights, operations and seconds of the modules of two systems, one by one, and their sums."""
    rows: list[Row] = []
    dtype = fast_dtype()
    for system in (before, after):
        for kind, part in systems[system].items():
            seconds = measured(part, device, dtype, repeats)
            gc.collect()  # a module may hold itself; the next one needs its memory
            rows += module_rows(system, kind, **counted(part), seconds=seconds, nfe=part.nfe, seed=seed)
            print(f"seed {seed}, {system}, {kind}: {seconds:.3g} s at batch 1, {dtype}", flush=True)
    return rows + summed(rows, before, after)


def reported(item: str) -> Paper:
    """The paper's numbers of a table by system, as it is called here, and module."""
    modules = {}
    for entry in load_paper("sdxs").reported:
        if entry.item == item:
            system, _, kind = entry.row.partition(", ")
            modules[_PRINTED.get(system, system), kind] = entry.values
    return modules


def tabulated(rows: list[Row], item: str, before: str, after: str) -> str:
    """The table of a pair in Markdown, beside the paper's numbers: modules, then what they differ by."""
    paper = reported(item)
    parts = [cost_table(rows, paper), ratio_table(rows, before, after, paper)]
    return "\n".join(markdown_table(*part) for part in parts)


def main(arguments: list[str] | None = None) -> None:
    """Command line: measure what is asked for and write it to the committed figures."""
    parser = argparse.ArgumentParser(prog="distill_lib.run.true_scale", description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=SEEDS, help="how often all is measured, a seed each")
    parser.add_argument("--repeats", type=int, default=1, help="evaluations of a module a seed; the median counts")
    parser.add_argument("--id", choices=TABLES, default=None, help="one table alone")
    args = parser.parse_args(arguments)
    if args.seeds < 1 or args.repeats < 1:
        raise ValueError(f"--seeds={args.seeds} and --repeats={args.repeats} should be 1 or more")
    for artefact, (item, before, after) in TABLES.items():
        if args.id not in (None, artefact):
            continue
        recorder, rows = Recorder(COMMITTED, f"random weights in {fast_dtype()}", []), []
        for seed in range(args.seeds):
            rows += measure(SYSTEMS, before, after, seed, default_device(), args.repeats)
        rows = recorder.rows(artefact, rows)
        print(recorder.table(artefact, tabulated(rows, item, before, after)))

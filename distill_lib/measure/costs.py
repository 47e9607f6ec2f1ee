"""Counting and timing what a picture costs, module by module, and what two systems differ by.

    total    = evaluations x seconds of one evaluation            of text encoder, U-Net and decoder               (1)
    sum      = their totals, added up;   share = total / sum                                                       (2)
    ratio    = before / after                                     of totals, of sums, of seconds an evaluation     (3)
    pictures = sum before, with `BUDGET` evaluations of its U-Net / sum after                                      (4)
    gain     = sum / (sum - total of the text encoder)            what a text encoder for nothing would win        (5)

Tables 1 and 2 and Fig. 1 of SDXS (Song et al. 2024, arXiv 2403.16627). As there, a guided step counts as two
evaluations of the U-Net at batch 1, and guidance as two of the text encoder.
"""

import time
from collections.abc import Callable, Hashable, Mapping
from statistics import median
from typing import Any, TypeVar

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from distill_lib.engine.precision import current

Row = dict[str, Any]
Key = TypeVar("Key", bound=Hashable)
MODULES = ("text encoder", "U-Net", "decoder")
"""In the order in which a pipeline asks them."""
BUDGET = 16
"""Evaluations that Fig. 1 of the paper leaves its teacher, of the 32 that it would need."""


def fast_dtype() -> torch.dtype:
    """In which of bfloat16 and float32 networks compute here, by `precision.current`."""
    return torch.bfloat16 if current() == "bf16" else torch.float32


def operations(module: nn.Module, *given: Any, **named: Any) -> int:
    """Floating-point operations of one call (a multiply and an add are two), as torch counts them."""
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        module(*given, **named)
    return counter.get_total_flops()


def _now() -> float:
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter()


@torch.no_grad()
def in_turn(works: Mapping[Key, Callable[[], object]], rounds: int) -> dict[Key, float]:
    """Median seconds of each piece of work over rounds in which all have their turn.

    What slows the machine for a while slows all of them, so that their ratios stay. Each is called twice in its turn,
    and the second call counts: the first finds the caches as the others left them.
    """
    times: dict[Key, list[float]] = {key: [] for key in works}
    for _ in range(rounds):
        for key, work in works.items():
            work()
            start = _now()
            work()
            times[key].append(_now() - start)
    return {key: median(found) for key, found in times.items()}


def module_rows(method: str, kind: str, params: int, flops: int, seconds: float, nfe: int, seed: int) -> list[Row]:
    """Rows of (1) for a module: its weights, and operations and seconds of an evaluation and of `nfe` of them."""
    values = {"params": params, "flops": flops, "seconds": seconds}
    values |= {"total": nfe * seconds, "total_flops": nfe * flops}
    about = {"method": method, "kind": kind, "nfe": nfe, "seed": seed}
    return [about | {"metric": metric, "value": value} for metric, value in values.items()]


def summed(rows: list[Row], before: str, after: str) -> list[Row]:
    """Rows of (2) to (5) from those of the modules of two systems, all of one seed; sums have no `kind`."""
    value = {(row["method"], row["kind"], row["metric"]): row["value"] for row in rows}
    (asked,) = {row["nfe"] for row in rows if (row["method"], row["kind"]) == (before, "U-Net")}
    total = {method: sum(value[method, kind, "total"] for kind in MODULES) for method in (before, after)}
    found: list[Row] = []

    def tell(method: str, metric: str, number: float, **kind: str) -> None:
        found.append({"method": method, **kind, "metric": metric, "value": number, "seed": rows[0]["seed"]})

    for method in (before, after):
        tell(method, "sum", total[method])
        for metric in ("params", "total_flops"):
            part = sum(value[method, kind, metric] for kind in MODULES)
            tell(method, f"sum_{metric.removeprefix('total_')}", part)
        for kind in MODULES:
            tell(method, "share", value[method, kind, "total"] / total[method], kind=kind)
        tell(method, "gain", total[method] / (total[method] - value[method, "text encoder", "total"]))
    for kind in MODULES:
        tell(after, "ratio", value[before, kind, "total"] / value[after, kind, "total"], kind=kind)
    for kind in MODULES[1:]:  # the text encoder is the same in both
        tell(after, "seconds_ratio", value[before, kind, "seconds"] / value[after, kind, "seconds"], kind=kind)
    tell(after, "sum_ratio", total[before] / total[after])
    flops = [sum(value[method, kind, "total_flops"] for kind in MODULES) for method in (before, after)]
    tell(after, "sum_ratio_flops", flops[0] / flops[1])
    left_out = max(0, asked - BUDGET) * value[before, "U-Net", "seconds"]
    tell(after, "pictures", (total[before] - left_out) / total[after])
    return found

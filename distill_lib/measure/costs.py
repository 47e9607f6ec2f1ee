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
from itertools import product
from statistics import median
from typing import Any, TypeVar

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from distill_lib.engine.measuring import measuring_time
from distill_lib.engine.precision import current
from distill_lib.measure.rows import Row, tidy

Key = TypeVar("Key", bound=Hashable)
MODULES = ("text encoder", "U-Net", "decoder")
"""In the order in which a pipeline evaluates them."""
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
def time_interleaved(works: Mapping[Key, Callable[[], object]], rounds: int) -> dict[Key, float]:
    """Median seconds of each piece of work over rounds in which all have their turn.

    What slows the machine for a while slows all of them, so that their ratios stay; no other notebook does so
    (`engine.measuring`). Each is called twice in its turn, and the second call counts: the first finds the caches as
    the others left them.
    """
    times: dict[Key, list[float]] = {key: [] for key in works}
    with measuring_time():
        for _, (key, work) in product(range(rounds), works.items()):
            work()
            start = _now()
            work()
            times[key].append(_now() - start)
    return {key: median(laps) for key, laps in times.items()}


def module_rows(method: str, kind: str, params: int, flops: int, seconds: float, nfe: int, seed: int) -> list[Row]:
    """Rows of (1) for a module: its weights, and operations and seconds of an evaluation and of `nfe` of them."""
    values = {"params": params, "flops": flops, "seconds": seconds}
    values |= {"total": nfe * seconds, "total_flops": nfe * flops}
    return tidy(values, method=method, kind=kind, nfe=nfe, seed=seed)


def summed(rows: list[Row], before: str, after: str) -> list[Row]:
    """Rows of (2) to (5) from those of the modules of two systems, all of one seed; sums have no `kind`."""
    value = {(row["method"], row["kind"], row["metric"]): row["value"] for row in rows}
    (evaluations,) = {row["nfe"] for row in rows if (row["method"], row["kind"]) == (before, "U-Net")}
    seed = rows[0]["seed"]
    sums = {
        (method, metric): sum(value[method, kind, metric] for kind in MODULES)
        for method in (before, after)
        for metric in ("total", "params", "total_flops")
    }
    totals: list[Row] = []
    for method in (before, after):
        total, text = sums[method, "total"], value[method, "text encoder", "total"]
        of_all = {"sum": total, "sum_params": sums[method, "params"], "sum_flops": sums[method, "total_flops"]}
        totals += tidy(of_all | {"gain": total / (total - text)}, method=method, seed=seed)
        for kind in MODULES:
            totals += tidy({"share": value[method, kind, "total"] / total}, method=method, kind=kind, seed=seed)
    for kind in MODULES:
        ratios = {"ratio": value[before, kind, "total"] / value[after, kind, "total"]}
        if kind != "text encoder":  # which is the same in both
            ratios["seconds_ratio"] = value[before, kind, "seconds"] / value[after, kind, "seconds"]
        totals += tidy(ratios, method=after, kind=kind, seed=seed)
    left_out = max(0, evaluations - BUDGET) * value[before, "U-Net", "seconds"]
    of_both = {
        "sum_ratio": sums[before, "total"] / sums[after, "total"],
        "sum_ratio_flops": sums[before, "total_flops"] / sums[after, "total_flops"],
        "pictures": (sums[before, "total"] - left_out) / sums[after, "total"],
    }
    return totals + tidy(of_both, method=after, seed=seed)

"""How a case is timed: our way in both precisions and the plain way, in turn."""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from itertools import product
from statistics import median
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import conv2d
from torch.utils.flop_counter import FlopCounterMode

from distill_lib.engine import precision
from distill_lib.engine.measuring import measuring_time
from distill_lib.engine.store import PRECISIONS

Way = Callable[[], object]
"""One update of a training, or one drawing of a batch."""
_ROUNDS, _LONG = 7, 10


@dataclass(frozen=True)
class Case:
    """A training or a sampler that is timed.

    ours: what makes our way, called once for each precision.
    plain: what makes the plain way.
    images: of one call of a way.
    setting: what it is run with, in words.
    calls: of our way, in one round; a halving has as many as a span of its bank of targets.
    """

    name: str
    ours: Callable[[], Way]
    plain: Callable[[], Way]
    images: int
    setting: str
    calls: int = 1


def step_of(training: Iterator[Any]) -> Way:
    """One update of a training generator."""
    return lambda: next(training)


def conv_peak(rounds: int = _ROUNDS) -> dict[str, float]:
    """FLOP/s of a 3 x 3 convolution, 128 channels, there and back, in each precision: the better of two layouts."""
    best = {}
    for name, kind in zip(PRECISIONS, (torch.bfloat16, torch.float32), strict=True):
        seconds = []
        for layout in (torch.contiguous_format, torch.channels_last):
            x = torch.randn(64, 128, 32, 32).to(kind).contiguous(memory_format=layout).requires_grad_()
            weight = torch.randn(128, 128, 3, 3).to(kind).contiguous(memory_format=layout).requires_grad_()
            both_ways = partial(_forth_and_back, x, weight)
            _seconds(both_ways, 1)  # does not count
            seconds.append(median(_seconds(both_ways, 1) for _ in range(rounds)))
        best[name] = 3 * 2 * 64 * 128 * 128 * 9 * 32 * 32 / min(seconds)
    return best


def _forth_and_back(x: Tensor, weight: Tensor) -> None:
    conv2d(x, weight, padding=1).sum().backward()


def timed(case: Case, peak: dict[str, float]) -> dict[str, Any]:
    """The row of a case: images a second of each way, the median over rounds in which each has its turn.

    Before the first round each way has two that are not timed: one that sets up, and one in which its FLOPs
    are counted, backward included.
    """
    chosen, calls_of, times = precision.choose(), {}, {}
    for name in PRECISIONS:
        with precision.held(name):
            calls_of[name] = case.ours()
    calls_of["plain"] = case.plain()
    few = case.calls if case.calls < _LONG else 1  # the plain way has no bank
    calls = {"plain": few} | dict.fromkeys(PRECISIONS, case.calls)
    for name, way in calls_of.items():
        with precision.held(name if name in PRECISIONS else "fp32"):
            _seconds(way, calls[name])
            with FlopCounterMode(display=False) as counter:
                _seconds(way, calls[name])
        if name == chosen:
            flops = counter.get_total_flops() / (case.calls * case.images)
    rounds = _ROUNDS if case.calls < _LONG else 2
    with measuring_time():
        for _, (name, way) in product(range(rounds), calls_of.items()):
            with precision.held(name if name in PRECISIONS else "fp32"):
                times.setdefault(name, []).append(_seconds(way, calls[name]) / calls[name])
    rates = {name: case.images / median(seconds) for name, seconds in times.items()}
    ours, plain = rates[chosen], rates["plain"]
    row = {"what": case.name, "unit": "images/s", **rates, "chosen": chosen, "ratio": ours / plain}
    return row | {"peak_share": ours * flops / max(peak.values()), "setting": case.setting}


def _seconds(way: Way, calls: int) -> float:
    start = time.perf_counter()
    for _ in range(calls):
        way()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter() - start

"""In which numbers networks compute, bfloat16 autocast or float32: what a machine is faster in, by measurement.

Processors that list bfloat16 are not all faster in it: with AVX-512 alone some are, and some take half as long again.
So both are timed once for a machine, and the answer is kept in `runs/machine.json`. PRECISION=bf16 or fp32 overrides
it. A training that goes on keeps the numbers that it was begun in (`held`).
"""

import contextlib
import functools
import json
import os
import platform
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import torch
from accelerate.utils import parse_flag_from_env
from torch import Tensor
from torch.nn.functional import conv2d, group_norm, silu

from distill_lib.engine import store
from distill_lib.engine.files import atomic, locked

_LEAST = 0.95
"""bfloat16 is coarser: it has to take less than this share of the time of float32."""
_held: dict[object, str] = {}


def default_device() -> torch.device:
    """Where networks live: this process's GPU if there is one, else the CPU; ACCELERATE_USE_CPU=1 forces the CPU.

    Not Apple's mps, which lacks the float64 of the schedule.
    """
    if torch.cuda.is_available() and not parse_flag_from_env("ACCELERATE_USE_CPU"):
        return torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))
    return torch.device("cpu")


def current() -> str:
    """The numbers of here and now, "bf16" or "fp32": those of a training that is in a step, else what PRECISION asks
    for, else what is faster here.

    Raises:
        ValueError: PRECISION is set to something else.
    """
    if _held:
        return next(reversed(_held.values()))
    wanted = store.wanted_precision()
    return choose() if wanted == "auto" else wanted


def resolved(bf16: bool | None) -> bool:
    """Whether to compute in bfloat16: as given, or by `current`."""
    return current() == "bf16" if bf16 is None else bf16


def autocast(device: torch.device, bf16: bool | None) -> torch.autocast:
    """A block in which networks compute in these numbers."""
    return torch.autocast(device.type, torch.bfloat16, enabled=resolved(bf16))


@contextlib.contextmanager
def held(precision: str) -> Iterator[None]:
    """A block in which `current` is this one."""
    token = object()  # blocks of generators need not end in the order in which they began
    _held[token] = precision
    try:
        yield
    finally:
        del _held[token]


@functools.cache  # never twice in a process, whatever becomes of the file
def choose() -> str:
    """What is faster here, "bf16" or "fp32": measured once for a processor and this torch."""
    if default_device().type == "cuda":
        return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp32"
    name = f"{_processor()}, torch {torch.__version__}, cpu"
    path = store.RUNS / "machine.json"
    try:
        with locked(path.with_suffix(".lock")):
            known = _known(path)
            if name not in known:
                known[name] = _measured(name)
                with atomic(path) as part:
                    part.write_text(json.dumps(known, indent=1))
            return known[name]["precision"]
    except ValueError:  # nothing can be written there, which those say who have something to keep
        return _measured(name)["precision"]


def _known(path: Path) -> dict[str, dict]:
    with contextlib.suppress(OSError, ValueError):
        measured = json.loads(path.read_bytes())
        if isinstance(measured, dict):
            return {
                name: choice
                for name, choice in measured.items()
                if isinstance(choice, dict) and choice.get("precision") in store.PRECISIONS
            }
    return {}


def _processor() -> str:
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return " ".join(line.partition(":")[2].split())
    return platform.processor() or platform.machine()


def _measured(name: str) -> dict[str, str | float]:
    seconds = timed()
    precision = "bf16" if seconds["bf16"] < _LEAST * seconds["fp32"] else "fp32"
    taken = {f"{key}_ms": round(1e3 * value, 2) for key, value in seconds.items()}
    message = f"bf16 takes {taken['bf16_ms']} ms a training step of a small network, fp32 {taken['fp32_ms']}"
    print(f"{message}: {precision} it is ({name}; PRECISION=.. overrides it)", file=sys.stderr, flush=True)
    return {"precision": precision} | taken


def timed(budget: float = 0.8) -> dict[str, float]:
    """Seconds of a training step of a small network in each precision, in turn for `budget` seconds; the best of each.

    The network is a stage of ours: convolutions, group normalisation and SiLU of 128 channels at 8 x 8 pixels. Whatever
    else the machine does only adds, so the best tells the two apart where a median does not. On one thread, for the
    same reason: on a busy machine the ratio of the two was found anywhere from 0.07 to 7.6 on two threads, which wait
    for each other, and from 0.25 to 0.75 on one.
    """
    source, threads = torch.Generator().manual_seed(0), torch.get_num_threads()  # the global numbers are left alone
    best = dict.fromkeys(store.PRECISIONS, float("inf"))
    torch.set_num_threads(1)
    try:
        with torch.inference_mode(False), torch.enable_grad():
            x = torch.randn(8, 128, 8, 8, generator=source)
            weights = [torch.randn(128, 128, 3, 3, generator=source).div_(34).requires_grad_() for _ in range(2)]
            for name in best:
                _step(x, weights, name == "bf16")  # does not count
            end = time.perf_counter() + budget
            while max(best.values()) == float("inf") or time.perf_counter() < end:
                for name in best:
                    start = time.perf_counter()
                    _step(x, weights, name == "bf16")
                    best[name] = min(best[name], time.perf_counter() - start)
    finally:
        torch.set_num_threads(threads)
    return best


def _step(x: Tensor, weights: list[Tensor], bf16: bool) -> None:
    with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
        for weight in weights:
            x = x + conv2d(silu(group_norm(x, 16)), weight, padding=1)
    torch.autograd.grad(x.float().square().mean(), weights)

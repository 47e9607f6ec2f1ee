"""`gpu-check`: what has never run on a GPU, in one command of some ten minutes on one card.

    tests       of devices, precision, savings and plans, on this card
    updates     two of each method at the size of Stable Diffusion 2.1, random weights; memory beside the plan's
    pictures    one of the teacher, of a halved student and of one of one step, at that size
    tables      1 and 2 of SDXS at their true sizes (`true_scale`)
    14_speed    the notebook, at the profile quick

A part that fails is named and the others go on. All goes to runs/gpu-check/: report.md is what to send.
"""

import argparse
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import torch

from distill_lib.engine.messages import line
from distill_lib.engine.origin import origin
from distill_lib.engine.precision import default_device
from distill_lib.engine.savings import Savings
from distill_lib.measure.plan import Plan
from distill_lib.measure.roles import METHODS, Architecture
from distill_lib.paths import ROOT, runs_folder
from distill_lib.run import trial
from distill_lib.run.plan import ARCHITECTURES
from distill_lib.run.true_scale import SYSTEMS, TABLES, measure, tabulated

Part = Callable[[], Iterator[str]]
_TESTS = ("test_gpu", "test_gpu_check", "test_savings", "test_precision", "test_samplers", "test_training")
_LONGEST = 240  # seconds of a part that another process does
LEAN = Savings(slices=2, checkpointing=True, frozen_bf16=True, offload=True)
"""What the second update of each method saves by."""


def updates(model: Architecture, pixels: int, device: torch.device) -> Iterator[str]:
    """Each method as it is and with savings: seconds, and memory beside the plan's."""
    for method in METHODS:
        for savings in (Savings(), LEAN):
            plan = Plan(method=method, pixels=pixels, batch=2, savings=savings)
            planned = trial.counted(model, plan)
            yield trial.update(model, plan, device).line(planned) + (", with savings" if savings == LEAN else "")


def tables(device: torch.device) -> Iterator[str]:
    """Tables 1 and 2 beside the paper's numbers."""
    for item, before, after in TABLES.values():
        yield "\n" + tabulated(measure(SYSTEMS, before, after, 0, device, 5), item, before, after)


def called(*arguments: str, folder: Path) -> Iterator[str]:
    """The last line of a command of this environment, whose results go to a folder.

    Raises:
        ValueError: it fails, or takes too long.
    """
    environment = os.environ | {"DISTILL_FIGURES": str(folder / "figures"), "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", *arguments]
    try:
        done = subprocess.run(
            command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=_LONGEST, check=False
        )
    except subprocess.TimeoutExpired as error:
        raise ValueError(f"{' '.join(arguments[:2])} took more than {_LONGEST} s, and was ended") from error
    last = ["no word", *filter(str.strip, (done.stdout + done.stderr).splitlines())][-1]
    if done.returncode:
        raise ValueError(f"{' '.join(arguments[:2])} ended with status {done.returncode}: {line(last)}")
    yield line(last)


def run_parts(parts: dict[str, Part], report: Path) -> bool:
    """Run parts one by one, each to its end or its failure, and keep the report up to date; whether all went well."""
    report.parent.mkdir(parents=True, exist_ok=True)
    lines = ["# GPU check", "", *(f"- {name}: {value}" for name, value in origin().items())]
    well = True
    for name, part in parts.items():
        start = time.perf_counter()
        lines += ["", f"## {name}", ""]
        try:
            for words in part():
                print(f"{name}: {words}", flush=True)
                lines.append(f"- {words}" if not words.startswith("\n") else words)
        except Exception as error:  # a report of what fails is what this is for
            well = False
            lines.append(f"- FAILED, {type(error).__name__}: {line(error, 400)}")
            print(f"{name} {lines[-1][2:]}", file=sys.stderr, flush=True)
        lines.append(f"- {time.perf_counter() - start:.0f} s")
        report.write_text("\n".join(lines) + "\n")
    return well


def main(arguments: list[str] | None = None) -> None:
    """Command line: all parts, or those that are named."""
    parser = argparse.ArgumentParser(prog="distill_lib.run gpu-check", description=__doc__.splitlines()[0])
    parser.add_argument("--pixels", type=int, default=512)
    device, folder = default_device(), runs_folder() / "gpu-check"
    model = ARCHITECTURES["sd-2.1"]
    pytest = ("pytest", "-q", "-p", "no:cacheprovider", *(f"tests/{name}.py" for name in _TESTS))
    drawing = ("distill_lib.run", "figures", "--id", "s-tab1")
    parts: dict[str, Part] = {
        "tests": lambda: called(*pytest, folder=folder),
        "updates": lambda: updates(model, args.pixels, device),
        "pictures": lambda: trial.pictures(model, args.pixels, device),
        "tables": lambda: tables(device),
        "14_speed": lambda: called(*drawing, folder=folder),
    }
    parser.add_argument("parts", nargs="*", help=f"some of {', '.join(parts)}; all of them unless named")
    args = parser.parse_args(arguments)
    if unknown := {*args.parts} - parts.keys():
        raise ValueError(f"part={min(unknown)[:60]!r} is unknown; choose of {', '.join(parts)}")
    if device.type != "cuda":
        raise ValueError(
            "gpu-check needs a GPU that PyTorch sees, and there is none here: `nvidia-smi` says whether the machine "
            "has one, and ACCELERATE_USE_CPU hides it"
        )
    chosen = {name: part for name, part in parts.items() if not args.parts or name in args.parts}
    well = run_parts(chosen, folder / "report.md")
    print(f"report: {folder / 'report.md'}")
    if not well:
        raise SystemExit(1)

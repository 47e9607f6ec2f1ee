"""Two processes of one thread each against one of two threads: the same halving of the latent U-Net, the same batch.

All three processes live for as long as the measurement; those whose turn it is not wait for a line and take no time.
"""

import os
import socket
import subprocess
import sys
import time
from contextlib import ExitStack
from pathlib import Path
from statistics import median
from typing import Any

import torch

from bench import latents
from bench.pixels import settings
from bench.rates import step_of
from distill_lib import profiles
from distill_lib.engine import precision
from distill_lib.engine.measuring import measuring_time
from distill_lib.engine.store import Run
from distill_lib.guided.halving import Halving, halve_steps
from distill_lib.networks.pipeline import Latents
from distill_lib.paths import COMMITTED, ROOT
from distill_lib.shipped import pretrained

ROUNDS, UPDATES = 7, 10
"""Rounds in which each way has its turn, and updates of a turn."""


def _batch() -> int:
    return profiles.load(COMMITTED).latent.halving.batch_size


def work(threads: int, at: str) -> None:
    """Make as many updates as each line of standard input says, and answer each line; `at` names the run."""
    torch.set_num_threads(threads)
    model = pretrained.pipeline("scenes")
    pairs, frozen = latents.white_pairs(model), pretrained.text_student("scenes", model)
    student = frozen.like(pretrained.text_student("scenes", model).module.requires_grad_(True))
    data = Latents(pairs.x, pairs.prompts, model)
    run = Run("bench-processes", {"at": at}, Run)
    way = step_of(halve_steps(student, frozen, data, Halving(8, settings(_batch())), run))
    for line in sys.stdin:
        for _ in range(int(line)):
            way()
        print("done", flush=True)


class Team:
    """Processes that train together and wait for what they are told."""

    def __init__(self, processes: int, threads: int, held: ExitStack) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        path = os.pathsep.join((str(ROOT), str(Path(__file__).parent.parent)))
        common = os.environ | {"PYTHONPATH": path, "PRECISION": precision.choose(), "OMP_NUM_THREADS": str(threads)}
        common |= {"WORLD_SIZE": str(processes), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
        command = [sys.executable, "-m", "bench.processes", str(threads), str(time.time_ns())]
        self.running = []
        for rank in range(processes):
            shared = {"RANK": str(rank), "LOCAL_RANK": str(rank)} if processes > 1 else {}
            each = subprocess.Popen(
                command, env=common | shared, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
            )
            held.callback(each.wait)
            held.callback(each.stdin.close)
            self.running.append(each)

    def seconds(self, updates: int) -> float:
        """How long so many updates take.

        Raises:
            ValueError: a process has ended.
        """
        start = time.perf_counter()
        for each in self.running:
            each.stdin.write(f"{updates}\n")
            each.stdin.flush()
        if any(each.stdout.readline() != "done\n" for each in self.running):
            raise ValueError("a process of the bench has ended; what it said stands above")
        return time.perf_counter() - start


def timed() -> dict[str, Any]:
    """Images a second of one process of two threads and of two of one thread, in turn; medians over rounds."""
    with ExitStack() as held, measuring_time():
        teams = {"one": Team(1, 2, held), "two": Team(2, 1, held)}
        for team in teams.values():
            team.seconds(2)  # sets up, and does not count
        taken = {name: [] for name in teams}
        for _ in range(ROUNDS):
            for name, team in teams.items():
                taken[name].append(team.seconds(UPDATES))
    rates = {name: UPDATES * _batch() / median(seconds) for name, seconds in taken.items()}
    return rates | {"ratio": rates["two"] / rates["one"], "batch": _batch(), "precision": precision.choose()}


if __name__ == "__main__":
    work(int(sys.argv[1]), sys.argv[2])

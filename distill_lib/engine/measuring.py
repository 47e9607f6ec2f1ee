"""The machine for one notebook alone, for as long as it measures time. No torch until something is measured.

`make figures` runs notebooks side by side, each on a part of the cores. What is timed must not share the machine: while
one notebook measures, the others are stopped, and it has all cores.

    turn.lock    held by the process that measures; the file holds its number
    busy.lock    held, shared, for every notebook that may run; free when all others are stopped (`run.turns`)

Both fall with the process that holds them, however that ends. Who has to wait for something that another one makes lets
it go on meanwhile (`others_go_on`). Outside of such a run (in Jupyter, in a test) nobody is stopped.
"""

import contextlib
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path
from typing import TextIO

from distill_lib.paths import CORES, runs_folder

_held: list[TextIO] = []  # turn and busy, while this process measures


def lock_paths() -> tuple[Path, Path]:
    """The files of the two locks: turn, busy."""
    return runs_folder() / "turn.lock", runs_folder() / "busy.lock"


@contextlib.contextmanager
def measuring_time() -> Iterator[None]:
    """Within the block no other notebook of the run computes, and this one has as many threads as CORES says."""
    cores = os.environ.get(CORES, "")
    if _held or not cores:
        yield
        return
    import torch

    threads = torch.get_num_threads()
    with contextlib.ExitStack() as stack:
        files = [stack.enter_context(path.open("a+")) for path in lock_paths()]
        _take(*files)
        _held.extend(files)
        try:
            torch.set_num_threads(int(cores))
            yield
        finally:
            torch.set_num_threads(threads)
            _held.clear()
            _give_back(*files)


@contextlib.contextmanager
def others_go_on() -> Iterator[None]:
    """Within the block a process that measures lets the others go on: it waits for something that one of them makes."""
    if not _held:
        yield
        return
    _give_back(*_held)
    try:
        yield
    finally:
        _take(*_held)


def _take(turn: TextIO, busy: TextIO) -> None:
    fcntl.flock(turn, fcntl.LOCK_EX)
    turn.truncate(0)  # of what a process that was killed has left
    turn.write(str(os.getpid()))
    turn.flush()
    fcntl.flock(busy, fcntl.LOCK_EX)


def _give_back(turn: TextIO, busy: TextIO) -> None:
    fcntl.flock(busy, fcntl.LOCK_UN)
    turn.truncate(0)  # or whoever is next would be taken for this one
    fcntl.flock(turn, fcntl.LOCK_UN)

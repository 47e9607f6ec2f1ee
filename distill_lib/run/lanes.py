"""How many notebooks run side by side, with how many threads each, and in which order.

Two notebooks of one thread each get 1.4 times as much done on two cores as one of two threads: an operator of these
small networks is over before a second thread has done half of it. Two of two threads each are many times slower, since
threads of OpenMP wait for each other in a spin. So a notebook has one thread on up to `MOST` cores, and more of them on
more cores: with more than `MOST` notebooks at a time the longest alone would last longer than all others together.
"""

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import psutil

from distill_lib.paths import CORES

MOST = 4
"""Notebooks side by side at most."""
MEMORY = 4 * 2**30
"""Bytes that a notebook may take at quick, and that are left to each of those that run side by side."""


@dataclass(frozen=True)
class Lanes:
    """`count` notebooks side by side, of `threads` threads each; `timed` threads for one that measures time alone."""

    count: int
    threads: int
    timed: int

    @property
    def environment(self) -> dict[str, str]:
        """What tells notebooks that others run beside them (`engine.measuring`)."""
        return {CORES: str(self.timed)} if self.count > 1 else {}


def lanes(jobs: int, cores: int, given: str = "", memory: int = 2**50, serial: bool = False) -> Lanes:
    """Lanes for so many notebooks.

    Args:
        jobs, cores: notebooks that are to be run, and cores of the machine.
        given: OMP_NUM_THREADS as the user has set it, which then holds for all notebooks, whatever they measure.
        memory: bytes of the machine.
        serial: whether notebooks run one after the other, as those that share a GPU, or train in several processes.
    """
    wanted = given.partition(",")[0].strip()
    threads = min(int(wanted), cores) if wanted.isdecimal() else 0
    most = 1 if serial else max(1, min(jobs, MOST, memory // MEMORY, cores // (threads or 1)))
    return Lanes(most, threads or cores // most, threads or cores)


def cores() -> int:
    """Cores that this process may use."""
    affinity = getattr(os, "sched_getaffinity", None)  # of Linux alone; it knows of taskset and of most containers
    return len(affinity(0)) if affinity else os.cpu_count() or 1


def gpus() -> int:
    """GPUs that this process may use."""
    import torch  # takes seconds, and is not needed where nothing is stale

    return torch.cuda.device_count() if torch.cuda.is_available() else 0


def of_this_machine(jobs: int, processes: int = 1) -> Lanes:
    """`lanes` by what this process may use; notebooks that train in several processes have the machine alone."""
    memory, serial = psutil.virtual_memory().total, processes > 1 or gpus() > 0
    return lanes(jobs, cores(), os.environ.get("OMP_NUM_THREADS", ""), memory, serial)


def in_order(names: Iterable[str], seconds: Mapping[str, float], last: Iterable[str] = ()) -> list[str]:
    """The order in which notebooks begin: the first one, then the longest, so that lanes end together; then `last`.

    Those of which nobody knows how long they take come before the others, in reading order.
    """
    names, behind = sorted(names), set(last)
    key = {name: (name in behind, name != names[0], -seconds.get(name, float("inf")), name) for name in names}
    return sorted(names, key=key.__getitem__)

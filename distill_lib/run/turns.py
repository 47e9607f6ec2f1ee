"""Stopping a notebook for as long as another one measures time: the other half of `engine.measuring`."""

import contextlib
import fcntl
import os
import threading
from collections.abc import Callable
from typing import TextIO

import psutil

from distill_lib.engine.measuring import lock_paths
from distill_lib.paths import CORES

_EVERY = 0.2  # seconds between two looks


def _try(file: TextIO, kind: int) -> bool:
    try:
        fcntl.flock(file, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


class GivingWay:
    """While the block lasts, the kernel below this process is stopped whenever another process measures time.

    It takes part in `busy.lock` for as long as its kernel may run. Nothing is done where notebooks run one by one.

    Args:
        say: is told, once each time, that the notebook waits.
    """

    def __init__(self, say: Callable[[str], None]) -> None:
        self._say, self._over, self._stopped = say, threading.Event(), False
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> "GivingWay":
        self._on = bool(os.environ.get(CORES))
        if self._on:
            turn_path, busy_path = lock_paths()
            turn_path.parent.mkdir(parents=True, exist_ok=True)
            self._turn, self._busy = turn_path.open("a+"), busy_path.open("a+")
            fcntl.flock(self._busy, fcntl.LOCK_SH)  # waits for one that is measuring
            self._held = True
            self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._on:
            self._over.set()
            self._thread.join()
            self._resume()
            self._turn.close(), self._busy.close()

    def _watch(self) -> None:
        while not self._over.wait(_EVERY):
            self.look()

    def look(self) -> None:
        """Stop the kernel, or let it go on, as the locks say now."""
        if _try(self._turn, fcntl.LOCK_SH):
            fcntl.flock(self._turn, fcntl.LOCK_UN)
            if not self._held and _try(self._busy, fcntl.LOCK_SH):
                self._held = True
                self._resume()
        elif holder := self._holder():
            kernel = psutil.Process().children(recursive=True)
            if any(process.pid == holder for process in kernel):
                self._resume()  # it is ours that measures
            else:
                self._stop(kernel)
            fcntl.flock(self._busy, fcntl.LOCK_UN)
            self._held = False

    def _holder(self) -> int:
        """The process that measures; 0 where it has not written its number yet."""
        self._turn.seek(0)
        text = self._turn.read()
        return int(text) if text.isdecimal() and psutil.pid_exists(int(text)) else 0

    def _stop(self, kernel: list[psutil.Process]) -> None:
        for process in kernel:
            with contextlib.suppress(psutil.Error):
                process.suspend()
        if not self._stopped:
            self._say("waits, since another notebook measures time")
        self._stopped = True

    def _resume(self) -> None:
        if self._stopped:
            for process in psutil.Process().children(recursive=True):
                with contextlib.suppress(psutil.Error):
                    process.resume()
        self._stopped = False

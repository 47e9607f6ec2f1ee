"""The processes of a run: one run a checkout, orphans ended, and the whole tree ended when the head is.

Every process of a run inherits DISTILL_OWNER, the folder of runs: so kernels are found after their parents are gone.
"""

import contextlib
import fcntl
import os
import signal
from collections.abc import Callable, Iterator
from types import FrameType

import psutil

from distill_lib.paths import figures_folder, runs_folder

_GRACE = 4.0  # seconds for a training to save its state


@contextlib.contextmanager
def exclusive() -> Iterator[None]:
    """Hold the locks of the folders of runs and figures, and end what a killed run has left.

    The locks fall with the process.

    Raises:
        ValueError: another run holds one of them.
    """
    with contextlib.ExitStack() as stack:
        for folder, name in ((runs_folder(), "figures.lock"), (figures_folder(""), ".figures.lock")):
            folder.mkdir(parents=True, exist_ok=True)
            file = stack.enter_context((folder / name).open("a+"))
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise ValueError(f"another `make figures` is running in {folder}; wait for it or end it") from None
        os.environ["DISTILL_OWNER"] = str(runs_folder())
        _end(owned(), 0)
        yield


def owned() -> list[psutil.Process]:
    """The running processes that belong to this folder of runs, without this process and its ancestors."""
    pids, above = [], {os.getpid(), *(process.pid for process in psutil.Process().parents())}
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            if process.pid not in above and process.status() != psutil.STATUS_ZOMBIE:
                if process.environ().get("DISTILL_OWNER") == str(runs_folder()):
                    pids.append(process)
    return pids


def end_tree() -> None:
    """End all that this process has started: a training first saves its state; what is left after that is killed."""
    _end([*psutil.Process().children(recursive=True), *owned()], _GRACE)
    _end(owned(), 0)


def _end(processes: list[psutil.Process], grace: float) -> None:
    processes = list({process.pid: process for process in processes}.values())
    for process in processes:
        with contextlib.suppress(psutil.Error):
            process.terminate() if grace else process.kill()
            process.resume()  # one that is stopped (`turns`) hears nothing before
    _, left = psutil.wait_procs(processes, timeout=grace or 2)
    for process in left if grace else []:
        with contextlib.suppress(psutil.Error):
            process.kill()
    psutil.wait_procs(left, timeout=0.5)


@contextlib.contextmanager
def ending_well() -> Iterator[list[Callable[[], None]]]:
    """Within the block SIGTERM, SIGHUP and SIGINT end the whole tree, and then this process with 128 + the signal.

    What the block puts into the list is called before: it ends what is no process of this machine.
    """
    first: list[Callable[[], None]] = []

    def end(number: int, _: FrameType | None) -> None:
        for other in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT):
            signal.signal(other, signal.SIG_IGN)  # once is enough
        for call in first:
            call()
        end_tree()
        os.write(2, f"ended by {signal.Signals(number).name}; the same command goes on from here\n".encode())
        os._exit(128 + number)

    before = {number: signal.signal(number, end) for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT)}
    try:
        yield first
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)

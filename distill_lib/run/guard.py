"""One sentence for what is nobody's bug, with the traceback in a log file; a bug of ours shows its traceback.

A ValueError that the library itself raises is such a sentence already. One that comes out of another package is a bug,
and so is any other exception that the list below does not name.
"""

import contextlib
import errno
import os
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from pathlib import Path

from distill_lib.paths import ROOT, runs_folder

FAILED = 2
"""Exit status of a call that ends in a sentence."""
_LOGS = 20  # kept
_DISK = {errno.ENOSPC: "the disk is full", errno.EDQUOT: "the quota of the disk is used up"}
_DISK |= {errno.EFBIG: "a file may not grow so large here"}
_REFUSED = {errno.EACCES: "no permission", errno.EPERM: "no permission", errno.EROFS: "the disk is read-only"}
_NETWORK = ("URLError", "HTTPError", "ConnectionError", "ConnectError", "LocalEntryNotFoundError", "ConnectTimeout")
_NETWORK += ("OfflineModeIsEnabled", "ReadTimeout", "NewConnectionError", "gaierror")


class Failure(Exception):
    """A sentence for the user that an inner process has found; `log` holds its traceback."""

    def __init__(self, sentence: str, log: str = "") -> None:
        super().__init__(sentence)
        self.log = log


def surroundings(kind: str, message: str) -> str | None:
    """A sentence about the machine for an exception told by its type's name and message, or None: it may be a bug."""
    message = " ".join(message.split())[:200]
    if kind in _NETWORK:
        return f"the network does not answer, and what is needed is not on this machine: {message}"
    if kind in ("MemoryError", "OutOfMemoryError"):
        return f"the memory does not suffice: {message or 'no block could be had'}; take a smaller profile or machine"
    for number, words in (_DISK | _REFUSED).items():
        if f"[Errno {number}]" in message or f"os error {number})" in message:
            return f"{words}: {message}; free it, or move runs and figures by DISTILL_RUNS and DISTILL_FIGURES"
    return None


def sentence_of(error: BaseException) -> str | None:
    """The sentence for an exception, or None if it is a bug."""
    if isinstance(error, Failure):
        return str(error)
    if isinstance(error, ValueError) and _ours(error):
        return str(error)
    return surroundings(type(error).__name__, str(error))


def _ours(error: BaseException) -> bool:
    """Whether the innermost line of a traceback is one of the library."""
    frames = traceback.extract_tb(error.__traceback__)
    return bool(frames) and Path(frames[-1].filename).is_relative_to(ROOT / "distill_lib")


def kept_log(name: str, text: str) -> Path:
    """Write a log, in runs/logs or, where that cannot be, in the machine's folder for temporary files."""
    folders = [Path(tempfile.gettempdir()) / "distill-logs"]
    with contextlib.suppress(ValueError):  # DISTILL_RUNS may be what is wrong
        folders.insert(0, runs_folder() / "logs")
    for folder in folders:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            path = folder / f"{time.strftime('%Y%m%d-%H%M%S')}-{name}-{os.getpid()}.log"
            path.write_text(text, errors="replace")
        except OSError:
            continue
        for old in sorted(folder.glob("*.log"))[:-_LOGS]:
            old.unlink(missing_ok=True)
        return path
    return Path(os.devnull)


def guarded(command: Callable[[], None], name: str) -> None:
    """Run a command; what is nobody's bug ends in its sentence on stderr, with exit status 2.

    Raises:
        SystemExit: with status 2, or as the command itself.
    """
    try:
        command()
    except KeyboardInterrupt:
        raise SystemExit(130) from None
    except BrokenPipeError:  # the reader of our output has gone
        with contextlib.suppress(OSError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise SystemExit(141) from None
    except Exception as error:
        sentence = sentence_of(error)
        if sentence is None:
            raise
        log = getattr(error, "log", "") or kept_log(name, traceback.format_exc())
        print(f"error: {' '.join(sentence.split())} (log: {log})", file=sys.stderr, flush=True)
        raise SystemExit(FAILED) from None

"""Files that are whole or absent, and of which nothing that a disk has spoiled is read as sound.

A file is written beside its place, brought to the disk and moved there, so that a kill leaves the old one or the new
one. Tensors carry a checksum of themselves.
"""

import contextlib
import errno
import fcntl
import glob
import hashlib
import os
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from distill_lib.engine.measuring import others_go_on

_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def _failed(path: Path, error: OSError) -> ValueError:
    if error.errno in _FULL:
        reason = f"no space left on its disk ({error.strerror}); free some and run again, what was there before is kept"
    else:
        reason = f"{error.strerror}; free the folder or choose another"
    return ValueError(f"cannot write {path}: {reason}")


def _alive(pid: str) -> bool:
    with contextlib.suppress(PermissionError, OverflowError):  # somebody else's, or no number of a process
        try:
            os.kill(int(pid), 0)
        except ProcessLookupError:
            return False
    return True


@contextlib.contextmanager
def atomic(path: Path, keep: Path | None = None) -> Iterator[Path]:
    """A path to write to, which replaces `path` when the block ends well; what stood there before moves to `keep`.

    What a process that was killed has left half written of the same file goes first.

    Raises:
        ValueError: the folder cannot be written to, or its disk is full; `path` is as it was.
    """
    start = f".{path.name}."
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        for left in path.parent.glob(f"{glob.escape(start)}*"):
            if (pid := left.name.removeprefix(start)).isdigit() and not _alive(pid):
                left.unlink(missing_ok=True)
        part = path.with_name(f"{start}{os.getpid()}")
        part.touch()
    except OSError as error:
        raise _failed(path, error) from error
    try:
        yield part
        with part.open("rb") as file:
            os.fsync(file.fileno())
        if keep and path.exists():
            path.replace(keep)
        part.replace(path)
    except OSError as error:
        if error.errno not in _FULL:
            raise
        raise _failed(path, error) from error
    finally:
        part.unlink(missing_ok=True)


def appended(path: Path, text: str) -> None:
    """Write text behind what a file holds.

    Raises:
        ValueError: the file cannot be written to, or its disk is full.
    """
    try:
        with path.open("a") as file:
            file.write(text)
    except OSError as error:
        raise _failed(path, error) from error


@contextlib.contextmanager
def locked(path: Path, waiting: str = "") -> Iterator[None]:
    """Hold an exclusive lock on a file; it falls with the process, however that ends.

    Where another process holds it, `waiting` is said, if it says anything, and then waited.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        file = path.open("w")
    except OSError as error:
        raise _failed(path, error) from error
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if waiting:
                print(waiting, file=sys.stderr, flush=True)
            with others_go_on():
                fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _checksum(tensors: dict[str, Tensor]) -> str:
    digest = hashlib.sha256()
    for name, tensor in sorted(tensors.items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)} ".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy())
    return digest.hexdigest()


def save_tensors(path: Path, tensors: dict[str, Tensor], keep: Path | None = None) -> str:
    """Write safetensors that hold a checksum, atomically (`keep` as there); returns the checksum of the file."""
    on_cpu = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    with atomic(path, keep) as part:
        try:
            save_file(on_cpu, part, {"checksum": _checksum(on_cpu)})
        except SafetensorError as error:
            if number := re.search(r"\(os error (\d+)\)", str(error)):
                raise OSError(int(number[1]), os.strerror(int(number[1]))) from error
            raise
        checksum = hashlib.sha256(part.read_bytes()).hexdigest()
    return checksum


def load_tensors(
    path: Path, checksum: str | None = None, folder: Path | None = None, strict: bool = False
) -> dict[str, Tensor]:
    """Read safetensors.

    Args:
        path: the file.
        checksum: that the file must have.
        folder: what is to be deleted if it has another; where the file lies, unless given.
        strict: refuse a file that does not hold a checksum of its tensors, as those of other programs do not.

    Raises:
        ValueError: the file is missing, truncated, or is not the one that a checksum was taken of.
    """
    try:
        if checksum and hashlib.sha256(path.read_bytes()).hexdigest() != checksum:
            raise ValueError("its checksum differs from the one written with it")
        with safe_open(path, "pt") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}
            held = (file.metadata() or {}).get("checksum", "none" if strict else None)
        if held is not None and held != _checksum(tensors):
            raise ValueError("its checksum differs from the one inside it")
        return tensors
    except Exception as error:
        reason = " ".join(str(getattr(error, "strerror", None) or error).split())
        raise ValueError(
            f"{path} cannot be used: {reason}; delete the folder {folder or path.parent} and run again"
        ) from error


def folder_hash(folder: Path) -> str:
    """Checksum of all safetensors of a folder and of the folders in it."""
    digest = hashlib.sha256()
    for path in sorted(folder.rglob("*.safetensors")):
        digest.update(path.read_bytes())
    return digest.hexdigest()


def all_finite(tensors: dict[str, Tensor], where: object) -> dict[str, Tensor]:
    """The tensors as they are.

    Raises:
        ValueError: one of them holds a number that is not finite.
    """
    # a finite sum says it at once, a sum that overflows says nothing
    bad = [
        name
        for name, x in tensors.items()
        if x.is_floating_point() and not x.sum().isfinite() and not x.isfinite().all()
    ]
    if bad:
        raise ValueError(
            f"{where} holds weights that are not finite, in {len(bad)} of {len(tensors)} tensors, first in {bad[0]}; "
            "take another network, or train this one again with a smaller learning rate"
        )
    return tensors

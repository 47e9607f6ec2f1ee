"""Run folders and caches, keyed by content: the same settings, data, code and parents find the same folder again.

A key is a hash of a configuration and of the source of every module of the library that the maker reaches by import.
A maker is a function or class of the library, passed as it is, so that no renaming leaves a key blind to code.
A folder is trusted only when it has its `done` mark, which holds the checksum of its weights; without it, it is
resumed. Every file is written beside its place and moved there, so that a kill leaves the old one or the new one.
"""

import contextlib
import fcntl
import hashlib
import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from safetensors.torch import load_file, save_file
from torch import Tensor

from distill_lib.paths import runs_folder
from distill_lib.reach import code_files, module_of
from distill_lib.specs import spec_of

__all__ = ["RUNS", "Run", "atomic", "cached", "content_key", "load_tensors", "locked", "save_tensors"]

RUNS = runs_folder()
"""Where run folders and caches live; DISTILL_RUNS moves it (to a scratch disk, to a test's folder)."""


Maker = Callable[..., Any]
"""A function or class of the library, whose module and all that it reaches belong to a key."""


def content_key(config: dict[str, Any], *makers: Maker) -> str:
    """Hash of a configuration and of the code that `makers` reach, 12 hexadecimal digits.

    Raises:
        ValueError: there is no maker, or as `reach.module_of` and `specs.spec_of`.
    """
    if not makers:
        raise ValueError("a key without a maker holds no code; pass the function that makes the result")
    digest = hashlib.sha256(json.dumps(spec_of(config), sort_keys=True).encode())
    for path in sorted({path for maker in makers for path in code_files(module_of(maker))}):
        digest.update(path.read_bytes())
    return digest.hexdigest()[:12]


@contextlib.contextmanager
def atomic(path: Path) -> Iterator[Path]:
    """A path to write to, which replaces `path` when the block ends well.

    Raises:
        ValueError: the folder cannot be written to.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.with_name(f".{path.name}.{os.getpid()}")
        part.touch()
    except OSError as error:
        raise ValueError(f"cannot write {path}: {error.strerror}; free the folder or choose another") from error
    try:
        yield part
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


@contextlib.contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold an exclusive lock on a file; it falls with the process, however that ends."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        file = path.open("w")
    except OSError as error:
        raise ValueError(f"cannot write {path}: {error.strerror}; free the folder or choose another") from error
    with file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def save_tensors(path: Path, tensors: dict[str, Tensor]) -> str:
    """Write safetensors atomically; returns the checksum of the file."""
    with atomic(path) as part:
        save_file({name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}, part)
        checksum = hashlib.sha256(part.read_bytes()).hexdigest()
    return checksum


def load_tensors(path: Path, checksum: str | None = None) -> dict[str, Tensor]:
    """Read safetensors.

    Raises:
        ValueError: the file is missing, truncated, or is not the one that the checksum was taken of.
    """
    try:
        if checksum and hashlib.sha256(path.read_bytes()).hexdigest() != checksum:
            raise ValueError("its checksum differs from the one written with it")
        return load_file(path)
    except Exception as error:
        raise ValueError(f"{path} cannot be used: {error}; delete its folder and run again") from error


class Run:
    """One run folder: `config.json`, `weights.safetensors`, `state/` while unfinished, `progress.jsonl`, `done`;
    `snapshots/` holds weights that were kept on the way.

    Args:
        kind: what is made, the start of the folder's name.
        config: everything that the result depends on besides code, parents' keys included; losses, networks and data
            may stand in it as they are, and `specs.spec_of` says what the key holds of them.
        makers: the functions whose reach of code belongs to the key; raises as `content_key`.
    """

    def __init__(self, kind: str, config: dict[str, Any], *makers: Maker) -> None:
        self.key = f"{kind}-{content_key(config, *makers)}"
        self.folder = RUNS / self.key
        self.config = config

    @property
    def done(self) -> bool:
        """Whether the result is complete."""
        return (self.folder / "done").exists()

    def start(self) -> None:
        """Write the configuration of a run that begins or goes on, and end a line of progress that a kill has torn."""
        with atomic(self.folder / "config.json") as part:
            part.write_text(json.dumps(spec_of(self.config), indent=1))
        path = self.folder / "progress.jsonl"
        if path.exists() and not path.read_bytes().endswith(b"\n"):
            self._append("\n")

    def save_state(self, tensors: dict[str, Tensor]) -> None:
        """Keep what is needed to go on."""
        save_tensors(self.folder / "state" / "state.safetensors", tensors)

    def state(self) -> dict[str, Tensor] | None:
        """What an interrupted run left, if anything."""
        path = self.folder / "state" / "state.safetensors"
        return load_tensors(path) if path.exists() else None

    def save_snapshot(self, step: int, tensors: dict[str, Tensor]) -> None:
        """Keep the weights as they are after a step."""
        save_tensors(self._snapshot(step), tensors)

    def snapshots(self) -> dict[int, dict[str, Tensor]]:
        """The kept weights by step, in order."""
        steps = sorted(int(path.stem) for path in (self.folder / "snapshots").glob("*.safetensors"))
        return {step: load_tensors(self._snapshot(step)) for step in steps}

    def _snapshot(self, step: int) -> Path:
        return self.folder / "snapshots" / f"{step}.safetensors"

    def log(self, record: dict[str, Any]) -> None:
        """Add a line to progress.jsonl."""
        self._append(json.dumps(record) + "\n")

    def _append(self, text: str) -> None:
        with (self.folder / "progress.jsonl").open("a") as file:
            file.write(text)

    def progress(self) -> list[dict[str, Any]]:
        """The records of progress.jsonl; a step that was done twice across a kill counts once, the last time."""
        path = self.folder / "progress.jsonl"
        records = {}
        for line in path.read_text().splitlines() if path.exists() else []:
            with contextlib.suppress(json.JSONDecodeError):  # a kill may have torn a line
                record = json.loads(line)
                records[record["step"]] = record
        return list(records.values())

    def finish(self, weights: dict[str, Tensor]) -> None:
        """Write the result, mark it done and drop the state."""
        checksum = save_tensors(self.folder / "weights.safetensors", weights)
        with atomic(self.folder / "done") as part:
            part.write_text(checksum)
        (self.folder / "state" / "state.safetensors").unlink(missing_ok=True)

    def weights(self) -> dict[str, Tensor]:
        """The finished weights, checked."""
        return load_tensors(self.folder / "weights.safetensors", (self.folder / "done").read_text())


def cached(kind: str, config: dict[str, Any], make: Callable[[], dict[str, Tensor]], maker: Maker) -> dict[str, Tensor]:
    """Tensors that `make` returns, computed once for a configuration and the code that `maker` reaches.

    `make` is often a closure over what the configuration names; `maker` is the function of the library behind it.
    """
    path = RUNS / "cache" / f"{kind}-{content_key(config, maker)}.safetensors"
    with locked(path.with_suffix(".lock")):
        if not path.exists():
            save_tensors(path, make())
        return load_tensors(path)

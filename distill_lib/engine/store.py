"""Run folders and caches, keyed by content: the same settings, data, code and parents find the same folder again.

A key is a hash of a configuration and of the source of every module of the library that the maker reaches by import, or
that a function or class in the configuration does: a loss, a network, a kind of data.
A maker is a function or class of the library. It is passed as an object and not by its name, so that its code stays a
part of the key when it is renamed or moved.
A folder is trusted only when it has its `done` mark, which holds the checksum of its weights; without it, it is
resumed. Every file is whole or absent (`files`); a spoiled one is found by its checksum, and named or made again.
"""

import contextlib
import hashlib
import json
import os
import sys
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from distill_lib.engine.files import all_finite, appended, atomic, load_tensors, locked, save_tensors
from distill_lib.engine.reach import code_files, module_of, modules_in
from distill_lib.engine.specs import spec_of
from distill_lib.paths import PRECISIONS, runs_folder, wanted_precision

RUNS = runs_folder()
"""Where run folders and caches live; DISTILL_RUNS moves it (to a scratch disk, to a test's folder)."""


_read: dict[str, None] = {}


def note_read(key: str) -> None:
    """Keep the key of weights that this process has read."""
    _read[key] = None


def read_keys() -> list[str]:
    """Keys of all weights that this process has read, of shipped folders and of runs, in order, each once.

    What it computes can rest on no others.
    """
    return list(_read)


Maker = Callable[..., Any]
"""A function or class of the library, whose module and all that it reaches belong to a key."""


def content_key(config: dict[str, Any], *makers: Maker) -> str:
    """Hash of a configuration and of the code that `makers` and all functions and classes in it reach, 12 digits.

    Raises:
        ValueError: there is no maker, or as `reach.module_of` and `specs.spec_of`.
    """
    if not makers:
        raise ValueError("a key without a maker holds no code; pass the function that makes the result")
    spec = json.dumps(spec_of(config), sort_keys=True)
    digest = hashlib.sha256(spec.encode())
    modules = {module_of(maker) for maker in makers} | modules_in(spec)
    for path in sorted({path for module in modules for path in code_files(module)}):
        digest.update(path.read_bytes())
    return digest.hexdigest()[:12]


class Run:
    """One run folder: `config.json`, `weights.safetensors`, `state/` while unfinished, `progress.jsonl`, `done`;
    `snapshots/` holds weights that were kept on the way; `training.lock` is held while it is trained.

    Its key holds what PRECISION asks for, and not what a machine makes of "auto": that stands in `config.json`.

    Args:
        kind: what is made, the start of the folder's name.
        config: everything that the result depends on besides code, parents' keys included; losses, networks and data
            may stand in it as they are, and `specs.spec_of` says what the key holds of them.
        makers: the functions whose reach of code belongs to the key; raises as `content_key`.
    """

    def __init__(self, kind: str, config: dict[str, Any], *makers: Maker) -> None:
        self.config = config | {"precision": wanted_precision()}
        self.key = f"{kind}-{content_key(self.config, *makers)}"
        self.folder = RUNS / self.key

    @property
    def done(self) -> bool:
        """Whether the result is complete."""
        return (self.folder / "done").exists()

    @contextlib.contextmanager
    def training_lock(self) -> Iterator[None]:
        """Within the block no other process trains this run: of two that need it one waits, says so, and then reads.

        Of processes that were launched together (torchrun, accelerate), which share one training, the first holds it.
        """
        if int(os.environ.get("RANK") or 0) > 0:
            yield
            return
        message = f"{self.key} is being trained by another process; waiting for it"
        with locked(self.folder / "training.lock", message):
            yield

    @property
    def precision(self) -> str | None:
        """In which numbers it was begun; None if it has not been.

        Raises:
            ValueError: the file that says so is broken, and there is a state to go on from.
        """
        path = self.folder / "config.json"
        with contextlib.suppress(FileNotFoundError, ValueError, TypeError, KeyError):
            if (recorded := json.loads(path.read_bytes())["precision"]) in PRECISIONS:
                return recorded
        if path.exists() and any(state.exists() for state in self._states()):
            raise ValueError(
                f"{path} cannot be used: it does not say in which numbers it was begun; delete the folder "
                f"{self.folder} and run again"
            )
        return None

    def start(self, **resolved: str) -> None:
        """Write the configuration of a run that begins or goes on, and end a line of progress that a kill has torn.

        `resolved` is what its settings came to on this machine.
        """
        with atomic(self.folder / "config.json") as part:
            part.write_text(json.dumps(spec_of(self.config | resolved), indent=1))
        path = self.folder / "progress.jsonl"
        if path.exists() and not path.read_bytes().endswith(b"\n"):
            self._append("\n")

    def save_state(self, tensors: dict[str, Tensor]) -> None:
        """Keep what is needed to go on; the state before it is kept too, in case the new file cannot be read."""
        state, previous = self._states()
        save_tensors(state, tensors, keep=previous)

    def state(self) -> dict[str, Tensor] | None:
        """What an interrupted run left, if anything: the last state, or the one before it if that one is broken.

        Raises:
            ValueError: all that there is is broken.
        """
        present = [path for path in self._states() if path.exists()]
        for path, other in zip(present, [*present, None][1:], strict=True):
            try:
                return load_tensors(path, strict=True)
            except ValueError as error:
                if other is None:
                    raise
                reason = str(error).partition("; delete")[0]
                print(
                    f"{reason}; {self.key} goes on from {other.name}, the state before it", file=sys.stderr, flush=True
                )
                path.unlink(missing_ok=True)  # or it would take the place of the good one
        return None

    def _states(self) -> tuple[Path, Path]:
        return self.folder / "state" / "state.safetensors", self.folder / "state" / "previous.safetensors"

    def save_snapshot(self, step: int, tensors: dict[str, Tensor]) -> None:
        """Keep the weights as they are after a step."""
        save_tensors(self._snapshot(step), tensors)

    def snapshots(self) -> dict[int, dict[str, Tensor]]:
        """The kept weights by step, in order."""
        steps = sorted(int(path.stem) for path in (self.folder / "snapshots").glob("*.safetensors"))
        return {step: load_tensors(self._snapshot(step), None, self.folder, strict=True) for step in steps}

    def _snapshot(self, step: int) -> Path:
        return self.folder / "snapshots" / f"{step}.safetensors"

    def log(self, record: dict[str, Any]) -> None:
        """Add a line to progress.jsonl, with a checksum of its own."""
        self._append(json.dumps(record | {"check": _check(record)}) + "\n")

    def _append(self, text: str) -> None:
        appended(self.folder / "progress.jsonl", text)

    def progress(self) -> list[dict[str, Any]]:
        """The records of progress.jsonl; a step that was done twice across a kill counts once, the last time."""
        path = self.folder / "progress.jsonl"
        records = {}
        for line in path.read_bytes().splitlines() if path.exists() else []:
            with contextlib.suppress(ValueError, TypeError, KeyError):  # torn by a kill, or spoiled by a disk
                record = json.loads(line)
                if record["check"] == _check(record := {k: v for k, v in record.items() if k != "check"}):
                    records[record["step"]] = record
        return list(records.values())

    def finish(self, weights: dict[str, Tensor]) -> None:
        """Write the result, mark it done and drop the state."""
        checksum = save_tensors(self.folder / "weights.safetensors", weights)
        with atomic(self.folder / "done") as part:
            part.write_text(checksum)
        for path in self._states():
            path.unlink(missing_ok=True)

    def weights(self) -> dict[str, Tensor]:
        """The finished weights, checked; the run is then among `read_keys`.

        Raises:
            ValueError: they are not those that were written, or are not finite.
        """
        mark = (self.folder / "done").read_bytes().decode(errors="replace")
        path = self.folder / "weights.safetensors"
        weights = all_finite(load_tensors(path, mark, self.folder), path)
        note_read(self.key)
        return weights


def _check(record: dict[str, Any]) -> str:
    return f"{zlib.crc32(json.dumps(record).encode()):08x}"


def cached(kind: str, config: dict[str, Any], make: Callable[[], dict[str, Tensor]], maker: Maker) -> dict[str, Tensor]:
    """Tensors that `make` returns, computed once for a configuration and the code of its `content_key`.

    `make` is often a closure over what the configuration names; `maker` is the function of the library behind it.
    """
    path = RUNS / "cache" / f"{kind}-{content_key(config, maker)}.safetensors"
    with locked(path.with_suffix(".lock"), f"{path.stem} is being made by another process; waiting for it"):
        if path.exists():
            try:
                return load_tensors(path, strict=True)
            except ValueError as error:
                print(f"{str(error).partition('; delete')[0]}; it is computed anew", file=sys.stderr, flush=True)
        save_tensors(path, make())
        return load_tensors(path, strict=True)


def weights_hash(net: nn.Module, stem: str) -> str:
    """`stem` and a hash of the weights."""
    digest = hashlib.sha256()
    for name, value in sorted(net.state_dict().items()):
        digest.update(name.encode() + value.detach().cpu().numpy().tobytes())
    return f"{stem}-{digest.hexdigest()[:10]}"

"""What a call of `figures` asks for: its settings, read once, and a hash of all that they depend on.

The hash belongs to the place of an executed notebook, runs/notebooks/<profile>[-<hash>]/seed<k>/, so that no run finds
the result of another. Values count, the bytes of a file of prompts, and the names, sizes and times of a folder's files.
"""

import hashlib
import json
import os
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from distill_lib.run.notebooks import parameters_of

_PATHS = ("teacher", "prompts", "judges", "lora", "control")  # parameters that may name a file or folder
_FOLDERS = ("DISTILL_FOLDER", "DISTILL_JUDGES")  # variables that name one
_INSIDE = ("model_index.json", "clip", "config.json", "pytorch_lora_weights.safetensors")  # of what folders hold
_NAME = re.compile(r"[a-z_][a-z0-9_]*")


@dataclass(frozen=True, kw_only=True)
class Settings:
    """One call: profile, seed, kind of real data, and the other parameters of notebooks."""

    profile: str
    seed: int = 0
    dataset: str = ""
    extra: dict[str, Any] = field(default_factory=dict)

    @property
    def parameters(self) -> dict[str, Any]:
        """What the notebooks get."""
        real = {"dataset": self.dataset} if self.dataset else {}
        return {"profile": self.profile, "seed": self.seed} | real | self.extra

    @property
    def place(self) -> str:
        """Folder of the executed notebooks below runs/notebooks: the profile alone for a plain run."""
        inputs = self.inputs()
        if not inputs:
            return self.profile
        digest = hashlib.sha256(json.dumps(inputs, sort_keys=True).encode()).hexdigest()
        return f"{self.profile}-{digest[:10]}"

    def inputs(self) -> dict[str, Any]:
        """All that tells this run from a plain one: parameters but the seed, and the content that they point to."""
        inputs: dict[str, Any] = dict(self.extra)
        inputs |= {name: _named(Path(inputs[name])) or inputs[name] for name in _PATHS if inputs.get(name)}
        if self.dataset:
            inputs["dataset"] = self.dataset
        if self.dataset or "teacher" in self.extra or "prompts" in self.extra:
            inputs |= {name: _content(Path(os.environ[name])) for name in _FOLDERS if os.environ.get(name)}
        if os.environ.get("PRECISION"):
            inputs["PRECISION"] = os.environ["PRECISION"]
        return inputs


def _named(path: Path) -> str | None:
    """The content of a file or of a model's folder; of any other folder, which will be refused, nothing is read."""
    try:
        return _content(path) if path.is_file() or any((path / name).exists() for name in _INSIDE) else None
    except OSError:
        return None


def _content(path: Path) -> str | None:
    """A hash of a file's bytes, or of the names, sizes and times of a folder's files; None where nothing is."""
    try:
        path.stat()
    except OSError:  # nothing is there, or the name is longer than any path
        return None
    if path.is_file():
        return hashlib.sha256(path.read_bytes()).hexdigest()
    digest = hashlib.sha256()
    for file in sorted(path.rglob("*")):
        if file.is_file():
            stat = file.stat()
            digest.update(f"{file.relative_to(path)}\0{stat.st_size}\0{stat.st_mtime_ns}\0".encode(errors="replace"))
    return digest.hexdigest()


def read_settings(items: Iterable[str], notebooks: Iterable[str]) -> dict[str, Any]:
    """Parameters from NAME=VALUE, each VALUE read by the type that the notebooks give NAME.

    A text stays as it is written; a number or a list of numbers is JSON, where 010 is no number and not 8. A path
    counts from the folder that the command is given in.

    Raises:
        ValueError: no NAME=VALUE, a name given twice with two values, or a value that cannot be read.
    """
    defaults = {key: value for name in notebooks for key, value in parameters_of(name).items()}
    values: dict[str, Any] = {}
    for item in items:
        key, equals, text = item.partition("=")
        if not equals or not _NAME.fullmatch(key):
            raise ValueError(f"--set {item[:60]!r} should be NAME=VALUE, as in --set seed=1")
        value = _value(key, text, defaults.get(key))
        if values.get(key, value) != value:
            raise ValueError(f"--set {key} is given twice, as {str(values[key])[:60]} and {text[:60]}; keep one")
        values[key] = value
    return values


def _value(key: str, text: str, default: object) -> Any:
    if isinstance(default, str):
        if any(ord(c) < 32 or 0xD800 <= ord(c) < 0xE000 for c in text):
            raise ValueError(f"--set {key}= holds characters that no name or path has: {text[:60]!r}")
        path = Path(text).expanduser() if key in _PATHS and text else None
        try:
            return str(path.absolute()) if path and path.exists() else text
        except OSError:  # longer than any path
            return text
    try:
        value = json.loads(text, parse_constant=_refuse)
    except (ValueError, RecursionError) as error:
        reason = " ".join(str(error).split())[:80]
        raise ValueError(
            f"--set {key}={text[:60]!r} cannot be read as a value, like [0.5, 2.0] or 3: {reason}"
        ) from error
    if isinstance(value, list) and not all(type(part) in (int, float) for part in value):
        raise ValueError(f"--set {key}={text[:60]!r} should be a list of numbers, like [0.5, 2.0]")
    return value


def _refuse(name: str) -> None:
    raise ValueError(f"{name} is not finite")

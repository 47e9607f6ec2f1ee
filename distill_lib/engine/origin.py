"""Where a result comes from: commit, versions and device of this process."""

import os
import platform
import subprocess
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from distill_lib.engine.precision import current
from distill_lib.paths import COMMITTED, ROOT

_PACKAGES = ("torch", "diffusers", "torch-fidelity", "accelerate", "papermill")


class _NoGit(Exception):
    """Git cannot tell; the message says why."""


def _git(*command: str) -> str:
    """What a command of git says about this checkout, and about no repository that it happens to lie in."""
    if not (ROOT / ".git").exists():
        raise _NoGit("not a git checkout")
    elsewhere = ("GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE", "GIT_COMMON_DIR")  # set in a hook, of another repository
    surroundings = {name: value for name, value in os.environ.items() if name not in elsewhere}
    # a question takes no lock: a commit may be made at the same time
    words = ["git", "--no-optional-locks", *command]
    try:
        git = subprocess.run(words, cwd=ROOT, env=surroundings, capture_output=True, text=True, check=False)
    except (FileNotFoundError, PermissionError) as error:
        raise _NoGit("git is not installed") from error
    if git.returncode:
        reason = " ".join(git.stderr.partition("\n")[0].split())  # the lines after it tell what to type
        raise _NoGit(reason.removeprefix("fatal: ") or "git failed")
    return git.stdout.strip("\n")


def uncommitted() -> list[str]:
    """Files that differ from the commit of this checkout: those under version control, and new ones of the library.

    `figures/` is left out: results that were just drawn are no other code. Empty where git cannot tell.
    """
    try:
        differing = _git("status", "--porcelain", "--untracked-files=no", "--", ".", ":(exclude)figures")
        new = _git("ls-files", "--others", "--exclude-standard", "--", "distill_lib")
    except _NoGit:
        return []
    return [line[3:] for line in differing.splitlines()] + new.splitlines()


def commit() -> str:
    """The commit of this checkout, with a + where `uncommitted` names files; "unknown: why" where git cannot tell."""
    try:
        if Path(_git("rev-parse", "--show-toplevel")).resolve() != ROOT.resolve():
            return "unknown: not a git checkout"
        return _git("describe", "--always") + "+" * bool(uncommitted())
    except _NoGit as reason:
        return f"unknown: {reason}"


def check_committed(folder: Path) -> None:
    """Refuse to draw committed rows by code that no commit holds.

    Args:
        folder: where the rows go; only `figures/laptop` of this checkout is asked about.

    Raises:
        ValueError: files differ from the commit.
    """
    files = uncommitted() if folder.resolve() == (ROOT / "figures" / COMMITTED).resolve() else []
    if files:
        rest = f" and {len(files) - 3} more" if len(files) > 3 else ""
        raise ValueError(
            f"{', '.join(files[:3])}{rest} differ from the commit, and rows of {COMMITTED} are drawn by committed code "
            "alone; commit or put them back first, or draw elsewhere by DISTILL_FIGURES"
        )


def origin() -> dict[str, Any]:
    """Commit, versions, device and numbers (`precision`) of this process."""
    device = (
        torch.cuda.get_device_name() if torch.cuda.is_available() else f"{os.cpu_count()} cores, {platform.machine()}"
    )
    versions = {"python": platform.python_version()} | {name: version(name) for name in _PACKAGES}
    return {"commit": commit(), "versions": versions, "device": device, "precision": current()}

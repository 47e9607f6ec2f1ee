"""Where a result comes from: commit, versions and device of this process."""

import os
import platform
import subprocess
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from distill_lib.engine.precision import current
from distill_lib.paths import ROOT

_PACKAGES = ("torch", "diffusers", "torch-fidelity", "accelerate", "papermill")


def commit() -> str:
    """The commit of this checkout, with a + where files differ from it; "unknown: why" where git cannot tell."""
    if not (ROOT / ".git").exists():  # git would go on to a repository that this folder happens to lie in
        return "unknown: not a git checkout"
    elsewhere = ("GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE", "GIT_COMMON_DIR")  # set in a hook, of another repository
    surroundings = {name: value for name, value in os.environ.items() if name not in elsewhere}
    answers = []
    for command in (("rev-parse", "--show-toplevel"), ("describe", "--always", "--dirty=+")):
        try:
            git = subprocess.run(
                ["git", *command], cwd=ROOT, env=surroundings, capture_output=True, text=True, check=False
            )
        except (FileNotFoundError, PermissionError):
            return "unknown: git is not installed"
        if git.returncode:
            reason = " ".join(git.stderr.partition("\n")[0].split())  # the lines after it tell what to type
            return f"unknown: {reason.removeprefix('fatal: ') or 'git failed'}"
        answers.append(git.stdout.strip())
    if Path(answers[0]).resolve() != ROOT.resolve():
        return "unknown: not a git checkout"
    return answers[1]


def origin() -> dict[str, Any]:
    """Commit, versions, device and numbers (`precision`) of this process."""
    device = (
        torch.cuda.get_device_name() if torch.cuda.is_available() else f"{os.cpu_count()} cores, {platform.machine()}"
    )
    versions = {"python": platform.python_version()} | {name: version(name) for name in _PACKAGES}
    return {"commit": commit(), "versions": versions, "device": device, "precision": current()}

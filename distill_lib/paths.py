"""The folders of the project and the environment variables that move them. No torch.

    DISTILL_RUNS     run folders, caches, executed notebooks, logs            (runs/)
    DISTILL_FIGURES  results: DISTILL_FIGURES/<profile>/<artefact>.json ..    (figures/)

A relative path counts from the folder of the command that was given, and `~` is the home folder. `settle` writes the
absolute path back into the environment, so that a notebook, which runs in another folder, finds the same place.
"""

import os
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
COMMITTED = "laptop"
"""The profile whose figures the repository holds."""
PRECISIONS = ("bf16", "fp32")
"""The numbers that networks compute in: bfloat16 autocast, or float32."""
CORES = "DISTILL_CORES"
"""Set where notebooks run side by side: threads of one that measures time, while the others are stopped."""
_DEFAULTS = {"DISTILL_RUNS": ROOT / "runs", "DISTILL_FIGURES": ROOT / "figures"}


def _place(variable: str) -> Path:
    given = os.environ.get(variable, "")
    return _absolute(variable, given) if given else _DEFAULTS[variable]


def _absolute(variable: str, given: str) -> Path:
    try:
        return Path(given).expanduser().absolute()
    except RuntimeError as error:
        raise ValueError(f"{variable}={given!r} names a home folder that is not there; write the whole path") from error


def wanted_precision() -> str:
    """What PRECISION asks for, one of PRECISIONS; "auto" unless it is set, which leaves it to `engine.precision`.

    Raises:
        ValueError: PRECISION is set to something else.
    """
    wanted = os.environ.get("PRECISION", "") or "auto"
    if wanted not in ("auto", *PRECISIONS):
        raise ValueError(
            f"PRECISION={wanted} is unknown; choose one of {', '.join(PRECISIONS)}, or leave it unset to take "
            "what is faster here"
        )
    return wanted


def runs_folder() -> Path:
    """Where run folders, caches and logs lie, absolute."""
    return _place("DISTILL_RUNS")


def figures_folder(profile: str) -> Path:
    """Where a profile's artefacts lie, absolute."""
    return _place("DISTILL_FIGURES") / profile


def suffix_of(dataset: str) -> str:
    """What the names of artefacts of real data end in."""
    return f"-{dataset.replace('_', '-')}" if dataset else ""


def settle() -> None:
    """Write the absolute places back into the environment of this process and of all that it starts."""
    for variable in _DEFAULTS:
        os.environ[variable] = str(_place(variable))
    for variable in ("DISTILL_FOLDER", "DISTILL_JUDGES"):
        if os.environ.get(variable):
            os.environ[variable] = str(_absolute(variable, os.environ[variable]))

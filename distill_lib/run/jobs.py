"""What Snakemake is given: the jobs of a run, and where they run: here, side by side, or on a cluster by a profile.

A profile is a folder with `config.yaml`, which names an executor plugin (docs/cluster/slurm, for SLURM); the jobs then
find runs and figures in the same folders, on a file system that all machines share. A job that its scheduler ends is
started again (`retries`) and goes on where its training stopped.
"""

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import yaml

from distill_lib.paths import CORES, ROOT, runs_folder
from distill_lib.run.lanes import Lanes, of_this_machine
from distill_lib.run.stale import judges

_CANCELLING = 20.0  # seconds for a cluster's jobs to be cancelled


def name_of(label: str) -> str:
    """The notebook of a job, whose label is the notebook's name alone or with a seed behind it."""
    return label.partition(" ")[0]


def planned(outputs: Mapping[str, str]) -> list[dict[str, Any]]:
    """The jobs of a run, by notebook, in the order in which they begin.

    A job has the file that it makes (`{seed}` stands for a seed), a priority, and the files that come before it. What
    judges comes after all whose rows it reads. No other notebook reads what another one writes.

    Args:
        outputs: files of executed notebooks, below the folder of runs, by label.
    """
    read = [output for label, output in outputs.items() if not judges(name_of(label))]
    jobs: dict[str, dict[str, Any]] = {}
    for number, (label, output) in enumerate(outputs.items()):
        name, path = name_of(label), Path(output)
        after = read if judges(name) else []
        pattern = str(path.parent.parent / "seed{seed}" / path.name)
        jobs.setdefault(name, {"name": name, "output": pattern, "priority": len(outputs) - number, "after": after})
    return list(jobs.values())


def read_profile(folder: str) -> dict[str, Any]:
    """The settings of a cluster's profile.

    Raises:
        ValueError: there is no such profile, it is no YAML, it names no executor, or the executor is not installed.
    """
    path = Path(folder).expanduser().absolute() / "config.yaml"
    ours = "docs/cluster/slurm is ours to copy"
    try:
        profile = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, yaml.YAMLError, UnicodeDecodeError) as error:
        reason = " ".join(str(getattr(error, "strerror", None) or error).split())[:120]
        raise ValueError(f"CLUSTER={folder[:60]} is no profile of Snakemake: {path}: {reason}; {ours}") from None
    executor = profile.get("executor") if isinstance(profile, dict) else None
    if not isinstance(executor, str):
        raise ValueError(f"CLUSTER={folder[:60]}: {path} names no executor, as in `executor: slurm`; {ours}")
    if executor != "local" and find_spec(f"snakemake_executor_plugin_{executor.replace('-', '_')}") is None:
        plugin = f"snakemake-executor-plugin-{executor[:40]}"
        raise ValueError(f"CLUSTER={folder[:60]} needs {plugin}; install it: `.venv/bin/pip install {plugin}`")
    return profile


@dataclass(frozen=True)
class Place:
    """Where jobs run, and how each trains: `cluster` is the folder of a profile, empty for this machine; `processes`
    train together (`together`)."""

    cluster: str = ""
    processes: int = 1

    def lanes(self, jobs: int) -> Lanes:
        """How many jobs there are at once, and how many threads each has; on a cluster as many jobs as its profile
        submits, and one thread for each process, unless OMP_NUM_THREADS says more."""
        if not self.cluster:
            return of_this_machine(jobs, self.processes)
        given = os.environ.get("OMP_NUM_THREADS", "").partition(",")[0].strip()
        threads = max(self.processes, int(given) if given.isdecimal() else 1)
        most = read_profile(self.cluster).get("jobs", jobs)
        return Lanes(min(jobs, most) if isinstance(most, int) else jobs, threads, threads)

    def command(self, targets: list[str], lanes: Lanes) -> list[str]:
        """The call of Snakemake that makes `targets`, files below the folder of runs."""
        where = ["--cores", str(lanes.count * lanes.threads), "--scheduler", "greedy"]
        if self.cluster:
            where = ["--profile", str(Path(self.cluster).expanduser().absolute())]
        return [
            sys.executable, "-m", "snakemake", "--snakefile", str(ROOT / "Snakefile"),
            "--directory", str(runs_folder()), *where,
            "--nolock", "--rerun-incomplete", "--quiet", "rules", "progress",
            "--rerun-triggers", "params", "--forcerun", *targets, "--", *targets,
        ]  # fmt: skip


def environment() -> dict[str, str]:
    """Of all processes of a run: absolute places, this interpreter, and caches that can be written."""
    values = os.environ | {"PYTHONPATH": str(ROOT), "DISTILL_PYTHON": sys.executable}
    for variable in ("SNAKEMAKE_PROFILE", CORES):  # what a cluster's profile sets is not ours, nor an outer run's lanes
        values.pop(variable, None)
    try:
        (Path.home() / ".cache").mkdir(exist_ok=True)
    except (OSError, RuntimeError):  # there is no home, or it cannot be written to
        caches = runs_folder() / "home"
        caches.mkdir(parents=True, exist_ok=True)
        values |= {"XDG_CACHE_HOME": str(caches), "MPLCONFIGDIR": str(caches), "HOME": str(caches)}
    return values


def cancel(running: subprocess.Popen[bytes]) -> None:
    """Let Snakemake cancel what it has submitted to a cluster, as Ctrl-C does, and end."""
    running.send_signal(signal.SIGINT)
    with contextlib.suppress(subprocess.TimeoutExpired):
        running.wait(timeout=_CANCELLING)

"""`figures`: bring the artefacts of a profile up to date, by Snakemake and papermill."""

import contextlib
import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from distill_lib.paths import COMMITTED, ROOT, figures_folder, runs_folder, suffix_of, wanted_precision
from distill_lib.run import jobs, notebooks
from distill_lib.run.executing import failure_path
from distill_lib.run.guard import Failure, kept_log
from distill_lib.run.jobs import name_of
from distill_lib.run.lanes import in_order
from distill_lib.run.pace import Progress, expected, keep_whole, summary
from distill_lib.run.processes import ending_well, exclusive
from distill_lib.run.settings import Settings
from distill_lib.run.stale import digest, is_stale, judges, read_stamp
from distill_lib.run.together import check_room

_PROFILES = ROOT / "distill_lib" / "profiles"


def check_profile(profile: str) -> None:
    """Refuse an unknown profile."""
    profiles = sorted(path.stem for path in _PROFILES.glob("*.yaml") if path.stem != "pretrained")
    if profile not in profiles:
        raise ValueError(f"PROFILE={profile[:60]} is unknown; choose one of {', '.join(profiles)}")


def executed_path(settings: Settings, name: str, seed: int) -> Path:
    """Where the executed notebook lies."""
    return runs_folder() / "notebooks" / settings.place / f"seed{seed}" / f"{name}.ipynb"


def _check_dataset(dataset: str) -> None:
    """Refuse real data that cannot be read, or that no networks were trained on, before a notebook runs into it."""
    from distill_lib.shipped.pretrained import check_networks  # both load torch
    from distill_lib.worlds.pictures import check_real

    check_real(dataset, os.environ.get("DISTILL_FOLDER", ""))
    check_networks(dataset)


def _chosen(artefact: str | None, settings: Settings) -> list[str]:
    """The notebooks that make an artefact, or all; for real data, those that take it."""
    taking = [n for n in notebooks.names() if not settings.dataset or "dataset" in notebooks.parameters_of(n)]
    if artefact is None:
        return taking
    written = {name: notebooks.artefacts_of(name) for name in taking}
    wanted = artefact.removesuffix(suffix_of(settings.dataset))
    if fitting := [name for name in taking if wanted in written[name]]:
        return fitting
    known = ", ".join(sorted(a + suffix_of(settings.dataset) for names in written.values() for a in names))
    raise ValueError(f"ID={artefact[:60]} is unknown; choose one of {known}")


def _check_writable(folder: Path, variable: str) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / ".writable").touch()
        (folder / ".writable").unlink()
    except OSError as error:
        raise ValueError(f"cannot write to {folder}: {error.strerror}; free it or set {variable}") from None


_SMALL = ("10_", "11_", "12_", "13_", "14_")
"""Notebooks that train the small U-Net of another teacher; 07 halves, and 09 needs little."""


def _check_memory(teacher: str, profile: str, names: list[str]) -> None:
    """Refuse another teacher that is not there, or whose trainings do not fit; say it where they cannot be planned."""
    from distill_lib import profiles  # these load torch
    from distill_lib.networks.doors import one_line
    from distill_lib.networks.folders import place_of
    from distill_lib.run.plan import check_fits, memory_here, trainings

    try:
        folder = place_of(teacher)
    except ValueError as error:
        raise ValueError(f"teacher={teacher[:60]!r}: {error}") from error
    settings, (where, memory) = profiles.load(profile), memory_here()
    parts = [settings.other or settings.latent] * any(name.startswith("07_") for name in names)
    parts += [(settings.other or settings).small] * any(name.startswith(_SMALL) for name in names)
    try:
        needs = [need for part in parts for need in trainings(str(folder), part, memory)]
    except Exception as error:  # of any kind: a configuration that no class takes; the notebook that opens it says more
        print(f"memory is not planned: {one_line(error)}")
        return
    for plan, need in needs:
        check_fits(need, plan, where, memory)


def figures(
    artefact: str | None, settings: Settings, seeds: Sequence[int] = (), cluster: str = "", processes: int = 1
) -> None:
    """Bring the artefacts of a profile up to date; for real data, those of the notebooks that take it.

    Args:
        artefact: whose notebook alone is drawn; None for all.
        settings: of the call.
        seeds: to draw in one go, in the place of the settings' own; seed 0 then shows the rows of all of them.
        cluster: folder of a Snakemake profile (`jobs`); the notebooks run here if it is empty.
        processes: that train together what a notebook trains (`together`).

    Raises:
        ValueError: unknown profile, artefact or parameter, a teacher whose trainings do not fit into memory, a folder
            that cannot be written to, committed rows that code which no commit holds would draw, no such cluster, or
            more processes than there is room for.
        Failure: a notebook ended in a sentence.
    """
    check_profile(settings.profile)
    wanted_precision()
    seeds = sorted({*(seeds or [settings.seed])})
    for seed in seeds:
        if not 0 <= seed < 2**31:
            raise ValueError(f"SEED={seed} should be a whole number from 0 to {2**31 - 1}")
    if settings.dataset:
        _check_dataset(settings.dataset)
    names = _chosen(artefact, settings)
    for name in names:
        notebooks.check_parameters(name, settings.parameters)
    if cluster:
        jobs.read_profile(cluster)
    else:
        check_room(processes)
        if settings.extra.get("teacher"):
            _check_memory(settings.extra["teacher"], settings.profile, names)
    folder = figures_folder(settings.profile)
    _check_writable(folder, "DISTILL_FIGURES")
    _check_writable(runs_folder(), "DISTILL_RUNS")
    with exclusive(), ending_well() as ending:
        outs = {_label(name, seed, seeds): executed_path(settings, name, seed) for seed in seeds for name in names}
        for _ in range(1 + (len(seeds) > 1)):  # seed 0 is drawn again where rows of others came after its own
            stale = _stale(settings, seeds, names)
            if not stale:
                break
            if not settings.extra:  # which draws into a folder of its own
                from distill_lib.engine.origin import check_committed  # loads torch

                check_committed(folder)
                if folder == ROOT / "figures" / COMMITTED:  # rows that some read are about to change
                    stale += [label for label in outs if label not in stale and judges(name_of(label))]
            _snakemake(settings, {label: outs[label] for label in stale}, jobs.Place(cluster, processes), ending)
        if not settings.extra:
            _judge(settings.profile, folder)
    if memory := summary(outs):
        print(memory)
    written = {path for out in outs.values() for path in _written(out)}
    for place in sorted({path.parent for path in written} or {folder}):
        print(f"figures: {place}")


def _label(name: str, seed: int, seeds: Sequence[int]) -> str:
    return name if len(seeds) == 1 else f"{name} seed {seed}"


def _stale(settings: Settings, seeds: Sequence[int], names: Sequence[str]) -> list[str]:
    """Labels of the notebooks that have to run."""
    made_of = {name: digest(name, settings.profile) for name in names}
    each = [(name, seed, executed_path(settings, name, seed)) for seed in seeds for name in names]
    return [_label(name, seed, seeds) for name, seed, out in each if is_stale(out, made_of[name], seed)]


def _written(out: Path) -> list[Path]:
    return [Path(path) for path in read_stamp(out).get("written", [])]


def _snakemake(settings: Settings, outs: dict[str, Path], where: jobs.Place, ending: list[Any]) -> None:
    """Run notebooks; what Snakemake itself says goes to a log, what cells print to the user."""
    place = runs_folder() / "notebooks" / settings.place
    place.mkdir(parents=True, exist_ok=True)
    lanes, seconds = where.lanes(len(outs)), expected(outs, settings.profile)
    outs = {label: outs[label] for label in in_order(outs, seconds, [x for x in outs if judges(name_of(x))])}
    for out in outs.values():
        failure_path(out).unlink(missing_ok=True)
    outputs = {label: str(out.relative_to(runs_folder())) for label, out in outs.items()}
    plan = {"parameters": settings.parameters, "depends on": settings.inputs(), "threads": lanes.threads}
    plan |= {"processes": where.processes, "jobs": jobs.planned(outputs)}
    (place / "plan.json").write_text(json.dumps(plan, indent=1, default=str))
    command = where.command(list(outputs.values()), lanes)
    environment = jobs.environment() | {"DISTILL_PLAN": str(place / "plan.json")}
    if not where.cluster:  # whose machines are not shared with other notebooks
        environment |= lanes.environment
    log, progress = kept_log("snakemake", ""), Progress(outs, seconds, lanes)
    with log.open("wb") as file, subprocess.Popen(command, cwd=ROOT, env=environment, stderr=file) as running:
        if where.cluster:
            ending.append(lambda: jobs.cancel(running))
        while running.poll() is None:
            with contextlib.suppress(subprocess.TimeoutExpired):
                running.wait(timeout=1)
            progress.look()
        ending.clear()
    if running.returncode:
        _explain(outs, log)
    if not settings.inputs() and outs.keys() == {*notebooks.names()} and where == jobs.Place():
        keep_whole(settings.place, progress)


def _explain(outs: dict[str, Path], log: Path) -> None:
    """End as the notebook that failed did: by its sentence, or by the traceback of a bug."""
    for out in outs.values():
        if failure_path(out).exists():
            failure: dict[str, Any] = json.loads(failure_path(out).read_text())
            if failure["sentence"]:
                raise Failure(failure["sentence"], failure["log"])
            print(Path(failure["log"]).read_text(), f"(log: {failure['log']})", sep="\n", file=sys.stderr)
            raise SystemExit(1)
    undone = next((name for name, out in outs.items() if not out.exists()), "a notebook")
    raise Failure(f"the process of {undone} was ended from outside, or never began; the same command goes on", str(log))


def _judge(profile: str, folder: Path) -> None:
    """Compute the verdicts anew where rows, claims or verdicts have changed, by content."""
    stamp = runs_folder() / "notebooks" / profile / ".claims"
    if stamp.exists() and stamp.read_text() == _state_of_claims(folder):
        return
    command = [sys.executable, "-m", "distill_lib.papers.claims", profile]
    if code := subprocess.run(command, cwd=ROOT, check=False).returncode:
        raise SystemExit(code)
    stamp.parent.mkdir(parents=True, exist_ok=True)
    stamp.write_text(_state_of_claims(folder))


def _state_of_claims(folder: Path) -> str:
    whole = hashlib.sha256()
    papers = ROOT / "distill_lib" / "papers"
    rows = [*folder.glob("[gsx]-*.json"), *folder.glob("claims*.json")]
    for path in sorted([*rows, *papers.glob("*.*"), *papers.glob("v*/*.yaml")]):
        whole.update(path.name.encode() + path.read_bytes())
    return whole.hexdigest()

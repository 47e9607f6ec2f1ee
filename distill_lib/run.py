"""The commands behind the Makefile: draw figures by Snakemake and papermill, verify and publish them.

    python -m distill_lib.run figures  [--profile quick] [--id g-tab1] [--seed 0] [--set ws=[0.0,2.0]]
    python -m distill_lib.run verify            redraw the laptop figures apart and compare them with the committed ones
    python -m distill_lib.run publish           put the executed laptop notebooks back into notebooks/
    python -m distill_lib.run notebook NAME OUT one notebook by papermill (what the Snakefile calls)

This module stays light: a call that finds nothing to do must not wait for torch to load.
"""

import argparse
import contextlib
import fcntl
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import nbformat
import psutil
import yaml

from distill_lib.reach import COMMITTED, ROOT

__all__ = ["artefacts_of", "check_parameters", "differences", "main", "notebook_names"]

_NOTEBOOKS = ROOT / "notebooks"
_PROFILES = ROOT / "distill_lib" / "profiles"
_RUNS = Path(os.environ.get("DISTILL_RUNS", ROOT / "runs")).resolve()
_ARTEFACT = re.compile(r'recorder\.rows\(\s*"([gs]-[\w-]+)"')
_TOLERANCE = {"fid": 0.1, "fid_teacher": 0.1, "kid": 0.2, "is": 0.03, "seconds": 1.0, "images_per_second": 1.0}
_TOLERANCE |= {"fid_target": 0.1, "fid_look": 0.1, "training_seconds": 1.0}
# what rests on seconds, which are the machine's
_TIMED = ("total", "sum", "share", "gain", "ratio", "seconds_ratio", "sum_ratio", "pictures", "speedup", "speedup_best")
_TOLERANCE |= dict.fromkeys(_TIMED, 1.0)


def notebook_names() -> list[str]:
    """The notebooks that exist, in order."""
    return sorted(path.stem for path in _NOTEBOOKS.glob("*.ipynb"))


def artefacts_of(name: str) -> list[str]:
    """The artefacts that a notebook writes, read off its cells."""
    cells = json.loads((_NOTEBOOKS / f"{name}.ipynb").read_text())["cells"]
    return sorted(set(_ARTEFACT.findall("".join("".join(cell["source"]) for cell in cells))))


def _parameters(name: str) -> dict[str, Any]:
    """The parameters of a notebook with their values."""
    cells = nbformat.read(_NOTEBOOKS / f"{name}.ipynb", as_version=4).cells
    (cell,) = [c for c in cells if "parameters" in c.metadata.get("tags", [])]
    known: dict[str, Any] = {}
    exec(cell.source, {}, known)
    return known


def check_parameters(name: str, wanted: dict[str, Any]) -> None:
    """Refuse parameters that a notebook does not have, or of another type than its own.

    Raises:
        ValueError: names the parameter, what is allowed and the type.
    """
    known = _parameters(name)
    for key, value in wanted.items():
        if key not in known:
            raise ValueError(f"{name} has no parameter {key!r}; it has {', '.join(known)}")
        number = isinstance(known[key], float) and isinstance(value, int)
        if not isinstance(value, type(known[key])) and not number:
            kind = type(known[key]).__name__
            raise ValueError(f"{name}: parameter {key}={value!r} should be of type {kind}, like {known[key]!r}")


def execute(name: str, out: Path, parameters: dict[str, Any]) -> None:
    """Run one notebook by papermill into `out`, saying what its cells print."""
    import papermill

    check_parameters(name, parameters)
    out.parent.mkdir(parents=True, exist_ok=True)
    os.environ["DISTILL_OWNER"] = str(_RUNS)  # by which an orphaned kernel is found
    os.environ["PYTHONWARNINGS"] = "ignore:IProgress not found"  # a headless run has no widgets
    os.environ.pop("DISTILL_PROFILE", None)
    print(f"{name}: running", flush=True)
    try:
        papermill.execute_notebook(
            _NOTEBOOKS / f"{name}.ipynb",
            out,
            parameters,
            cwd=str(_NOTEBOOKS),
            progress_bar=False,
            stdout_file=sys.stdout,
            stderr_file=sys.stderr,
        )
    except papermill.PapermillExecutionError as error:
        if error.ename != "ValueError":
            raise
        raise ValueError(f"{name}: {error.evalue}") from None  # bad input: the sentence is enough
    print(f"{name}: done", flush=True)


def _end_orphans() -> None:
    """End kernels that outlived a killed run; the lock on the same folder is held, so no live run owns them."""
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            mine = process.environ().get("DISTILL_OWNER") == str(_RUNS)
            if mine and process.pid not in {os.getpid(), os.getppid()}:
                process.kill()


@contextlib.contextmanager
def _alone() -> Iterator[None]:
    """Hold the one lock of this checkout; it falls with the process, unlike Snakemake's own."""
    _RUNS.mkdir(parents=True, exist_ok=True)
    with (_RUNS / "figures.lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ValueError(f"another `make figures` is running in {ROOT}; wait for it or end it") from None
        yield


def _check_profile(profile: str) -> None:
    profiles = sorted(path.stem for path in _PROFILES.glob("*.yaml") if path.stem != "pretrained")
    if profile not in profiles:
        raise ValueError(f"PROFILE={profile} is unknown; choose one of {', '.join(profiles)}")


def _real() -> tuple[str, ...]:
    """The kinds of real data."""
    from distill_lib.worlds.datasets import REAL  # loads torch

    return REAL


def _suffix(dataset: str) -> str:
    """What the names of artefacts of real data end in."""
    return f"-{dataset.replace('_', '-')}"


def _check_dataset(dataset: str) -> None:
    """Refuse real data that is unknown or has no folder, before a notebook runs into it."""
    if dataset not in _real():
        raise ValueError(f"DATASET={dataset} is unknown; choose one of {', '.join(_real())}")
    folder = os.environ.get("DISTILL_FOLDER", "")
    if not folder or not Path(folder).is_dir():
        raise ValueError(f"DATASET={dataset} needs FOLDER=, the folder of its files; {folder!r} is not a folder")


def figures(profile: str, artefact: str | None, seed: int, extra: dict[str, Any], dataset: str = "") -> None:
    """Bring the artefacts of a profile up to date; for real data, those of the notebooks that take it.

    Raises:
        ValueError: unknown profile, artefact or parameter, or a folder that cannot be written to.
    """
    _check_profile(profile)
    if dataset:
        _check_dataset(dataset)
        artefact = artefact and artefact.removesuffix(_suffix(dataset)) + _suffix(dataset)
    if os.environ.get("DISTILL_FOLDER"):  # notebooks run in a folder of their own
        os.environ["DISTILL_FOLDER"] = str(Path(os.environ["DISTILL_FOLDER"]).resolve())
    notebooks = [name for name in notebook_names() if not dataset or "dataset" in _parameters(name)]
    suffix = _suffix(dataset) if dataset else ""
    written = {name: [found + suffix for found in artefacts_of(name)] for name in notebooks}
    real = {"dataset": dataset} if dataset else {}
    names = [name for name in written if artefact is None or artefact in written[name]]
    if not names:
        known = ", ".join(sorted(a for found in written.values() for a in found))
        raise ValueError(f"ID={artefact} is unknown; choose one of {known}")
    folder = Path(os.environ.get("DISTILL_FIGURES", ROOT / "figures")) / profile
    try:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / ".writable").touch()
        (folder / ".writable").unlink()
    except OSError as error:
        raise ValueError(f"cannot write to {folder}: {error.strerror}; free it or set DISTILL_FIGURES") from None
    for name in names:
        check_parameters(name, {"profile": profile, "seed": seed} | real | extra)
    with _alone():
        _end_orphans()
        missing = (
            [] if extra else [name for name in names if not all(_complete(folder, a, seed) for a in written[name])]
        )
        config = {"profile": profile, "seed": seed, "extra": json.dumps(real | extra), "runs": str(_RUNS)}
        command = [
            sys.executable, "-m", "snakemake", "--snakefile", str(ROOT / "Snakefile"), "--directory", str(_RUNS),
            "--cores", str(os.cpu_count()), "--nolock", "--rerun-incomplete", "--quiet", "rules", "progress",
            "--config", *(f"{key}={value}" for key, value in config.items()),
        ]  # fmt: skip
        targets = [f"notebooks/{profile}{suffix}/seed{seed}/{name}.ipynb" for name in names]
        published = {name: _RUNS / f"notebooks/{profile}{suffix}/seed0/{name}.ipynb" for name in names}
        files = {name: [folder / f"{artefact}.json" for artefact in written[name]] for name in names}
        outdone = [] if seed or extra else [name for name in names if _outdone(published[name], files[name])]
        forced = [t for t in targets if Path(t).stem in {*missing, *outdone}]
        command += ["--forcerun", *forced] if forced else []
        environment = os.environ | {"PYTHONPATH": str(ROOT), "DISTILL_FIGURES": str(folder.parent)}
        code = subprocess.run([*command, "--", *targets], cwd=ROOT, env=environment, check=False).returncode
        if code:
            raise SystemExit(code)
    claims = folder / "claims.json"
    read = [*folder.glob("[gs]-*.json"), *(ROOT / "distill_lib" / "papers").iterdir()]
    newest = max(path.stat().st_mtime for path in read if path.is_file())
    if not claims.exists() or claims.stat().st_mtime < newest:
        judge = [sys.executable, "-m", "distill_lib.papers.claims", profile]
        subprocess.run(judge, cwd=ROOT, env=environment, check=True)
    print(f"figures: {folder}")


def verify() -> None:
    """Draw the laptop figures again, from nothing and in folders of their own, and compare with the committed ones.

    Every committed seed is drawn; a row that is gone or new counts as moved. A run that was cut off is resumed. Real
    data is left aside: its files are not here. So are networks of true size, which are only timed.
    """
    from distill_lib.true_scale import TABLES  # with torch, which the other commands do without

    real = tuple(_suffix(name) for name in _real())
    files = sorted((ROOT / "figures" / COMMITTED).glob("[gs]-*.json"))
    committed = {path.stem: _rows(path) for path in files if not path.stem.endswith(real) and path.stem not in TABLES}
    seeds = sorted({row.get("seed", 0) for rows in committed.values() for row in rows})
    folder = _RUNS / "verify"
    environment = os.environ | {"DISTILL_RUNS": str(folder / "runs"), "DISTILL_FIGURES": str(folder / "figures")}
    for seed in seeds:
        command = [sys.executable, "-m", "distill_lib.run", "figures", "--profile", COMMITTED, "--seed", str(seed)]
        if code := subprocess.run(command, cwd=ROOT, env=environment, check=False).returncode:
            raise SystemExit(code)
    found = {name: _rows(folder / "figures" / COMMITTED / f"{name}.json") for name in committed}
    moved = [line for name, rows in committed.items() for line in differences(name, rows, found[name])]
    print("\n".join(moved))
    print(f"{len(moved)} values moved by more than the tolerance of their metric; remove {folder} to draw anew")
    raise SystemExit(bool(moved))


def _outdone(executed: Path, files: list[Path]) -> bool:
    """Whether rows of other seeds came after seed 0's notebook, the one that is published and shows them all."""
    return executed.exists() and any(f.exists() and f.stat().st_mtime > executed.stat().st_mtime for f in files)


def _complete(folder: Path, artefact: str, seed: int) -> bool:
    """Whether an artefact holds rows of this seed, and every file that goes with its rows."""
    there = {suffix: (folder / f"{artefact}.{suffix}").exists() for suffix in ("csv", "png", "svg", "md")}
    drawn = there["csv"] and there["png"] == there["svg"] and (there["png"] or there["md"])
    return drawn and any(row.get("seed", seed) == seed for row in _rows(folder / f"{artefact}.json"))


def _rows(path: Path) -> list[dict[str, Any]]:
    """The rows of a file of results, none where there is no file."""
    return json.loads(path.read_text())["rows"] if path.exists() else []


def differences(name: str, old: list[dict[str, Any]], new: list[dict[str, Any]]) -> list[str]:
    """A line for each row of `old` that `new` lacks, or has moved by more than its metric's tolerance, or adds."""
    was, now = ({_key(row): row for row in rows} for rows in (old, new))
    lines = [f"{name}: {key} is gone" for key in was.keys() - now.keys()]
    lines += [f"{name}: {key} is new" for key in now.keys() - was.keys()]
    for key in was.keys() & now.keys():
        a, b, near = was[key]["value"], now[key]["value"], _TOLERANCE.get(was[key]["metric"], 0.05)
        if abs(b - a) > near * max(abs(a), 1e-3):
            lines.append(f"{name}: {key} was {a:.4g}, is {b:.4g}")
    return sorted(lines)


def _key(row: dict[str, Any]) -> str:
    return json.dumps({key: value for key, value in row.items() if key != "value"}, sort_keys=True)


def publish(profile: str) -> None:
    """Put the outputs of a profile's run into notebooks/, without papermill's injected cell and without stderr.

    Raises:
        ValueError: the profile is unknown.
    """
    _check_profile(profile)
    for name in notebook_names():
        done = _RUNS / "notebooks" / profile / "seed0" / f"{name}.ipynb"
        if not done.exists():
            print(f"{name}: no run at {profile}; run `make figures PROFILE={profile}` first")
            continue
        executed = nbformat.read(done, as_version=4)
        by_id = {cell.id: cell for cell in executed.cells if "injected-parameters" not in cell.metadata.get("tags", [])}
        notebook = nbformat.read(_NOTEBOOKS / f"{name}.ipynb", as_version=4)
        code = [cell for cell in notebook.cells if cell.cell_type == "code"]
        if not all(cell.id in by_id for cell in code):
            print(f"{name}: its run at {profile} is of an older notebook; run `make figures PROFILE={profile}` again")
            continue
        for number, cell in enumerate(code, 1):
            cell.outputs = [o for o in by_id[cell.id].outputs if o.get("name") != "stderr"]
            cell.execution_count = number  # nbval takes a cell without one as never run
            for output in cell.outputs:
                if "execution_count" in output:
                    output["execution_count"] = number
        part = _NOTEBOOKS / f".{name}.part"
        nbformat.write(notebook, part)
        part.replace(_NOTEBOOKS / f"{name}.ipynb")
        print(f"{name}: published")


def main() -> None:
    """Command line; a ValueError is the user's and ends in its sentence."""
    parser = argparse.ArgumentParser(prog="distill_lib.run", description=__doc__.splitlines()[0])
    commands = parser.add_subparsers(dest="command", required=True)
    drawing = commands.add_parser("figures")
    drawing.add_argument("--profile", default="quick")
    drawing.add_argument("--id", default=None)
    drawing.add_argument("--dataset", default="", help="real data, read from the folder DISTILL_FOLDER")
    one = commands.add_parser("notebook")
    one.add_argument("name")
    one.add_argument("out", type=Path)
    one.add_argument("--profile", default="quick")
    for sub in (drawing, one):
        sub.add_argument("--seed", type=int, default=0)
        sub.add_argument("--set", action="append", default=[], metavar="NAME=VALUE")
    commands.add_parser("verify")
    commands.add_parser("publish").add_argument("--profile", default=COMMITTED)
    args = parser.parse_args()
    try:
        extra = {}
        for item in getattr(args, "set", []):
            key, _, value = item.partition("=")
            # notebooks run in a folder of their own
            extra[key] = str(Path(value).resolve()) if value and Path(value).exists() else yaml.safe_load(value)
        if args.command == "figures":
            figures(args.profile, args.id, args.seed, extra, args.dataset)
        elif args.command == "notebook":
            execute(args.name, args.out, {"profile": args.profile, "seed": args.seed} | extra)
        else:
            verify() if args.command == "verify" else publish(args.profile)
    except ValueError as error:
        raise SystemExit(f"error: {error}") from None


if __name__ == "__main__":
    main()

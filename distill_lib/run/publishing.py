"""`publish`: the outputs of a plain run put back into notebooks/, and what follows from committed rows made anew."""

import nbformat
from nbformat import NotebookNode

from distill_lib.paths import COMMITTED
from distill_lib.run import notebooks
from distill_lib.run.drawing import check_profile, executed_path
from distill_lib.run.renewing import renew
from distill_lib.run.settings import Settings
from distill_lib.run.stale import digest, is_stale
from distill_lib.run.weight import light


def publish(profile: str) -> None:
    """Put the outputs of a profile's plain run into notebooks/, without papermill's injected cell and without stderr.

    A run with settings of its own lies elsewhere and is never taken. Then the cells that follow from
    committed rows (`renewing`) are made anew in all notebooks, those without a run too: at the committed profile alone,
    since other notebooks keep outputs of that one.

    Raises:
        ValueError: the profile is unknown, or a notebook is not readable.
    """
    check_profile(profile)
    for name in notebooks.names():
        done = executed_path(Settings(profile=profile), name, 0)
        again = f"run `make figures PROFILE={profile}`"
        if not done.exists():
            print(f"{name}: no run at {profile}; {again} first")
            continue
        try:
            executed = nbformat.from_dict(nbformat.read(done, as_version=4))
            notebook = with_outputs(notebooks.read(name), executed)
        except (ValueError, AttributeError, KeyError, TypeError):
            print(f"{name}: its run at {profile} is no readable notebook; {again} again")
            continue
        if notebook is None:
            print(f"{name}: its run at {profile} is of an older notebook; {again} again")
            continue
        if is_stale(done, digest(name, profile), 0):
            print(f"{name}: the library or the rows have changed since its run at {profile}; {again} to renew it")
        _write(name, notebook)
        print(f"{name}: published")
    if profile == COMMITTED:
        renew_all()


def renew_all() -> None:
    """Make anew in all notebooks of the repository the outputs that follow from committed files (`renewing`)."""
    for name in notebooks.names():
        _write(name, renew(nbformat.from_dict(notebooks.read(name)), name, COMMITTED))


def _write(name: str, notebook: NotebookNode) -> None:
    part = notebooks.NOTEBOOKS / f".{name}.part"
    nbformat.write(light(notebook), part)
    part.replace(notebooks.NOTEBOOKS / f"{name}.ipynb")
    notebooks.read.cache_clear()


def with_outputs(notebook: NotebookNode, executed: NotebookNode) -> NotebookNode | None:
    """A notebook with the outputs of its run, matched by the source of cells; None if the run had other cells."""
    notebook = nbformat.from_dict(notebook)
    code, ran = notebooks.code_cells(notebook), notebooks.code_cells(executed)
    if [cell.source for cell in code] != [cell.source for cell in ran]:
        return None
    for number, (cell, run) in enumerate(zip(code, ran, strict=True), 1):
        cell.outputs = [output for output in run.outputs if output.get("name") != "stderr"]
        cell.execution_count = number  # nbval takes a cell without one as never run
        for output in cell.outputs:
            if "execution_count" in output:
                output["execution_count"] = number
    return notebook

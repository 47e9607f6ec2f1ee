"""`exercises`: the notebooks in notebooks/exercises and explore.ipynb, run in this process, and their outputs kept.

A cell with the tag `needs-kernel` is left alone: its widgets live in a kernel. Any other ends in the one value that it
shows; it prints, and calls no `display`. Networks run in float32, so that the numbers are those of every machine but
for rounding.
"""

import argparse
import ast
import contextlib
import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import nbformat
from nbformat import NotebookNode

from distill_lib.engine.files import atomic
from distill_lib.engine.precision import held
from distill_lib.paths import ROOT
from distill_lib.run.renewing import output_of

EXERCISES, EXPLORE = ROOT / "notebooks" / "exercises", ROOT / "notebooks" / "explore.ipynb"
NEEDS_KERNEL = "needs-kernel"

_LAST = "_last_value"


def paths() -> list[Path]:
    """The notebooks of exercises, in order; each is named as the notebook that it belongs to."""
    return sorted(EXERCISES.glob("[0-9][0-9]_*.ipynb"))


def run(notebook: NotebookNode, name: str) -> Iterator[tuple[NotebookNode, list[NotebookNode]]]:
    """The code cells of a notebook in order, each with its outputs as they are now."""
    namespace: dict[str, Any] = {"__name__": "__main__"}
    for cell in notebook.cells:
        if cell.cell_type != "code" or NEEDS_KERNEL in cell.metadata.get("tags", []):
            continue
        lines, printed = ast.parse(cell.source).body, io.StringIO()
        last = lines.pop() if lines and isinstance(lines[-1], ast.Expr) else None
        place = f"{name}, cell {cell.id}"
        with held("fp32"), contextlib.redirect_stdout(printed):
            if last:  # the value of the last line is what a notebook shows
                lines.append(ast.Assign([ast.Name(_LAST, ast.Store())], last.value))
            exec(compile(ast.fix_missing_locations(ast.Module(lines, [])), place, "exec"), namespace)
            value = namespace.pop(_LAST, None)
        outputs = [nbformat.v4.new_output("stream", text=printed.getvalue())] if printed.getvalue() else []
        yield cell, outputs + ([output_of(value)] if value is not None else [])


def executed(path: Path) -> NotebookNode:
    """A notebook of exercises with the outputs of now."""
    notebook = nbformat.read(path, as_version=4)
    for number, (cell, outputs) in enumerate(run(notebook, path.stem), 1):
        cell.execution_count = number
        for output in outputs:
            if "execution_count" in output:
                output.execution_count = number
        cell.outputs = outputs
    return notebook


def main(arguments: list[str] | None = None) -> None:
    """Command line: run all of them and write them back."""
    argparse.ArgumentParser(prog="distill_lib.run exercises", description=main.__doc__).parse_args(arguments)
    for path in [*paths(), EXPLORE]:
        notebook = executed(path)
        with atomic(path) as part:
            nbformat.write(notebook, part)
        print(f"{path.stem}: outputs written")

"""The notebooks as files: their names, parameters and artefacts, read without running anything."""

import ast
import re
from copy import deepcopy
from functools import cache
from typing import Any

import nbformat
from nbformat import NotebookNode

from distill_lib.engine.messages import short
from distill_lib.paths import ROOT

NOTEBOOKS = ROOT / "notebooks"
_ARTEFACT = re.compile(r'(?:lab|recorder)\.rows\(\s*"([gsx]-[\w-]+)"')
_NAME = re.compile(r"\d\d_[a-z0-9_]+")
_OWN = ("teacher", "prompts", "lora", "control")  # parameters, of which any names a teacher of one's own
_MARKERS = re.compile(r"^(<{7} |={7}$|>{7} )", re.MULTILINE)  # of an unfinished merge


def names() -> list[str]:
    """The notebooks that exist, in order; copies and drafts with other names than `00_words` are none of them."""
    return sorted(path.stem for path in NOTEBOOKS.glob("*.ipynb") if _NAME.fullmatch(path.stem))


@cache
def read(name: str) -> NotebookNode:
    """A notebook of the project, whole and with its cell of parameters. The caller must not change it.

    Raises:
        ValueError: it is no notebook (an unfinished merge, a torn file), or its cell of parameters is lost.
    """
    path = NOTEBOOKS / f"{name}.ipynb"
    again = f"restore it with `git checkout notebooks/{name}.ipynb`"
    try:
        text = path.read_text(encoding="utf-8")
        if _MARKERS.search(text):
            raise ValueError(f"notebooks/{name}.ipynb holds the markers of an unfinished merge; finish it, or {again}")
        notebook = nbformat.reads(text, as_version=4)
        cells = [(cell.cell_type, cell.source, cell.metadata) for cell in notebook.cells]
    except (OSError, UnicodeDecodeError, nbformat.reader.NotJSONError, AttributeError, KeyError, TypeError) as error:
        reason = " ".join(str(error).split())[:120]
        raise ValueError(f"notebooks/{name}.ipynb is no readable notebook: {reason}; {again}") from error
    tagged = [kind == "code" and "parameters" in metadata.get("tags", []) for kind, _, metadata in cells]
    if sum(tagged) != 1:
        raise ValueError(
            f"notebooks/{name}.ipynb has {sum(tagged)} code cells with the tag `parameters` where one is due: "
            f"tag the cell of settings (some editors drop tags), or {again}"
        )
    return notebook


def code_cells(notebook: NotebookNode) -> list[NotebookNode]:
    """The code cells of a notebook but for the one that papermill adds."""
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    return [cell for cell in code if "injected-parameters" not in cell.metadata.get("tags", [])]


LEFT_OUT = {
    "our-world": "this cell needs our world or what was trained on it, which another teacher does not come with",
    "ablation": "this cell varies a choice of the method, which the shipped teacher answers and no student needs",
}
"""Tags of cells that are left out for a teacher of one's own, and why."""


def for_parameters(name: str, parameters: dict[str, Any]) -> NotebookNode:
    """The notebook as it is run: for a teacher of one's own, a cell tagged as one of LEFT_OUT says in a sentence why it
    is left out, and does nothing else."""
    notebook = deepcopy(read(name))
    if any(parameters.get(key) for key in _OWN):
        for cell in code_cells(notebook):
            for tag in LEFT_OUT.keys() & set(cell.metadata.get("tags", [])):
                cell.source = f"print({'Left out: ' + LEFT_OUT[tag] + '.'!r})"
    return notebook


def artefacts_of(name: str) -> list[str]:
    """The artefacts that a notebook writes, read off its cells."""
    return sorted(set(_ARTEFACT.findall("".join(cell.source for cell in read(name).cells))))


def parameters_of(name: str) -> dict[str, Any]:
    """The parameters of a notebook with their values, read as literals.

    Raises:
        ValueError: the cell holds something else than assignments of literals.
    """
    (cell,) = (c for c in code_cells(read(name)) if "parameters" in c.metadata.get("tags", []))
    try:
        lines = ast.parse(cell.source).body
        return {line.targets[0].id: ast.literal_eval(line.value) for line in lines}
    except (SyntaxError, ValueError, AttributeError) as error:
        raise ValueError(
            f"the parameters of notebooks/{name}.ipynb should be lines like `seed = 0`: {error}"
        ) from error


def check_parameters(name: str, wanted: dict[str, Any]) -> None:
    """Refuse parameters that a notebook does not have, or of another type than its own.

    Raises:
        ValueError: names the parameter, what is allowed and the type.
    """
    known = parameters_of(name)
    for key, value in wanted.items():
        if key not in known:
            raise ValueError(f"{name} has no parameter {key[:60]!r}; it has {', '.join(known)}")
        number = isinstance(known[key], float) and isinstance(value, int)
        exact = type(value) is type(known[key])  # True is no number here
        if not exact and not number:
            kind = type(known[key]).__name__
            raise ValueError(f"{name}: parameter {key}={short(value)} should be of type {kind}, like {known[key]!r}")

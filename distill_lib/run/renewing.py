"""Cells whose output is made anew from committed files whenever notebooks are published: diagrams, sentences, tables.

Such a cell is one expression that calls nothing but the functions of STANDALONE. It reads the parameters, the imports,
and of the session only what costs nothing: `lab`, and names that are set to attributes of `lab`. Or it ends in
`lab.table`, and shows the committed table of that name, which holds the seeds of all runs. So a published notebook says
what today's rows and verdicts say, without a training.
"""

import ast
import base64
from typing import Any

import nbformat
from IPython.core.formatters import DisplayFormatter
from nbformat import NotebookNode

from distill_lib.paths import COMMITTED, ROOT
from distill_lib.report.cells import Markdown
from distill_lib.run import notebooks

STANDALONE = {"lab.banner", "lab.say", "lab.verdicts", "Markdown", "source", "notebook_map"} | {
    *("two_stages", "two_steps_and_one", "way_of_w", "diagrams.three_networks", "diagrams.control_net")
}
"""Functions whose result follows from the library and from committed files, without a run."""


def standalone_outputs(name: str, profile: str) -> dict[str, list[NotebookNode]]:
    """The outputs of these cells of a notebook, by id of the cell, as a run at a profile with seed 0 has them.

    Raises:
        NameError: such a cell reads what only a run computes.
    """
    namespace: dict[str, Any] = {}
    outputs = {}
    for cell in notebooks.code_cells(notebooks.read(name)):
        tags, lines = cell.metadata.get("tags", []), ast.parse(cell.source).body
        if "parameters" in tags:
            namespace |= notebooks.parameters_of(name) | {"profile": profile, "seed": 0}
        elif "hide-input" in tags:
            exec(compile(cell.source, name, "exec"), namespace)
        elif is_standalone(lines):
            outputs[cell.id] = [output_of(eval(compile(ast.Expression(lines[0].value), name, "eval"), namespace))]
        else:
            if table := committed_table(lines):
                outputs[cell.id] = [output_of(Markdown(table))]
            cheap = [statement for statement in lines if _costs_nothing(statement)]
            exec(compile(ast.Module(cheap, []), name, "exec"), namespace)
    return outputs


def is_standalone(lines: list[ast.stmt]) -> bool:
    """Whether a cell is one expression that calls functions of STANDALONE alone."""
    if len(lines) != 1 or not isinstance(lines[0], ast.Expr):
        return False
    calls = {ast.unparse(part.func) for part in ast.walk(lines[0]) if isinstance(part, ast.Call)}
    return bool(calls) and calls <= STANDALONE


def committed_table(lines: list[ast.stmt]) -> str:
    """The committed table that a cell shows which ends in `lab.table("name", ..)` and prints nothing; else empty."""
    last = lines[-1].value if lines and isinstance(lines[-1], ast.Expr) else None
    calls = [ast.unparse(part.func) for line in lines for part in ast.walk(line) if isinstance(part, ast.Call)]
    if not isinstance(last, ast.Call) or ast.unparse(last.func) != "lab.table" or "print" in calls:
        return ""
    path = ROOT / "figures" / COMMITTED / f"{ast.literal_eval(last.args[0])}.md"
    return path.read_text(encoding="utf-8") if path.exists() else ""


def _costs_nothing(statement: ast.stmt) -> bool:
    """Whether a statement opens the session, or names attributes of the session."""
    if not isinstance(statement, ast.Assign):
        return False
    if isinstance(statement.value, ast.Call):
        return ast.unparse(statement.value.func) == "session"
    parts = list(ast.walk(statement.value))
    read = {part.id for part in parts if isinstance(part, ast.Name)}
    return read == {"lab"} and not any(isinstance(part, ast.Call | ast.Lambda | ast.Subscript) for part in parts)


def output_of(value: Any) -> NotebookNode:
    """What a cell that ends in a value shows."""
    data, metadata = DisplayFormatter().format(value)
    data = {kind: base64.b64encode(x).decode() + "\n" if isinstance(x, bytes) else x for kind, x in data.items()}
    return nbformat.v4.new_output("execute_result", data=data, metadata=metadata)


def renew(notebook: NotebookNode, name: str, profile: str) -> NotebookNode:
    """The notebook with the outputs of these cells made anew; the others keep theirs."""
    outputs = standalone_outputs(name, profile)
    for number, cell in enumerate(notebooks.code_cells(notebook), 1):
        if cell.id in outputs:
            cell.execution_count = number
            cell.outputs = [nbformat.from_dict(output | {"execution_count": number}) for output in outputs[cell.id]]
    return notebook

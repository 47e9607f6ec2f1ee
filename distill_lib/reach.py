"""Which files of the library a module or a notebook reaches by import; what makes a result stale."""

import ast
import json
from collections.abc import Iterable
from functools import cache
from pathlib import Path

from distill_lib.paths import COMMITTED, ROOT

__all__ = ["COMMITTED", "ROOT", "code_files", "notebook_files"]

_LIBRARY = "distill_lib"


def _imports(source: str) -> Iterable[str]:
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == _LIBRARY:
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name.split(".")[0] == _LIBRARY)


def _reached(modules: Iterable[str]) -> tuple[Path, ...]:
    found: set[Path] = set()
    queue = list(modules)
    while queue:
        stem = ROOT / queue.pop().replace(".", "/")
        path = stem.with_suffix(".py") if stem.with_suffix(".py").exists() else stem / "__init__.py"
        if path.exists() and path not in found:
            found.add(path)
            queue += _imports(path.read_text())
    return tuple(sorted(found))


@cache
def code_files(module: str) -> tuple[Path, ...]:
    """Source files of a module and of all that it reaches by import inside the library, sorted."""
    return _reached([module])


def notebook_files(path: Path) -> tuple[Path, ...]:
    """Source files of the library that a notebook's code cells reach by import, sorted."""
    cells = json.loads(path.read_text())["cells"]
    code = "\n".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "code")
    return _reached(_imports(code))

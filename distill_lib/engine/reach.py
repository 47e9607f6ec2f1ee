"""Which files of the library a module or a notebook reaches by import; what makes a result stale.

Only Python is followed. What stands in `profiles/*.yaml` enters a key through the settings that were read from it, and
`papers/*.yaml` judges results and makes none.
"""

import ast
import inspect
import json
import re
import sys
from collections.abc import Callable, Iterable
from functools import cache, partial
from pathlib import Path
from typing import Any

from distill_lib.paths import ROOT

_LIBRARY = "distill_lib"


def _file(module: str) -> Path | None:
    stem = ROOT / module.replace(".", "/")
    paths = stem.with_suffix(".py"), stem / "__init__.py"
    return next((path for path in paths if path.exists()), None)


def _imports(source: str) -> Iterable[str]:
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.ImportFrom) and node.level:
            raise ValueError(f"`from {'.' * node.level}{node.module or ''} import` is not followed; write it in full")
        if isinstance(node, ast.ImportFrom) and node.module.split(".")[0] == _LIBRARY:
            yield node.module
            names = (f"{node.module}.{alias.name}" for alias in node.names)
            yield from (name for name in names if _file(name))  # the others are no modules
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name.split(".")[0] == _LIBRARY)


def _reached(modules: Iterable[str]) -> tuple[Path, ...]:
    files: set[Path] = set()
    queue = list(modules)
    while queue:
        module = queue.pop()
        path = _file(module)
        if path is None:
            raise ValueError(f"module={module!r} has no file in {ROOT}; name a module of {_LIBRARY} that is there")
        if path not in files:
            files.add(path)
            queue += _imports(path.read_text())
    return tuple(sorted(files))


@cache
def code_files(module: str) -> tuple[Path, ...]:
    """Source files of a module and of all that it reaches by import inside the library, sorted.

    Raises:
        ValueError: there is no such module, or one on the way imports by a relative name.
    """
    return _reached([module])


def module_of(maker: Callable[..., Any]) -> str:
    """Name of the module that a function or class of the library is written in; decorators and partials are undone.

    Raises:
        ValueError: it is no function, has no name, or is written elsewhere: in a notebook, a script or a test.
    """
    function = maker
    while isinstance(function, partial) or hasattr(function, "__wrapped__"):
        function = function.func if isinstance(function, partial) else inspect.unwrap(function)
    module, name = getattr(function, "__module__", None), getattr(function, "__qualname__", None)
    if not callable(function) or name is None:
        raise ValueError(f"maker={maker!r} is no function or class; pass the function that makes the result")
    if name.endswith("<lambda>"):
        raise ValueError(f"a lambda of {module} cannot stand for code; pass a function of {_LIBRARY} that has a name")
    if str(module).split(".")[0] != _LIBRARY:
        raise ValueError(
            f"{name} is written in {module}, whose code no key holds; pass a function of {_LIBRARY}, or move it there"
        )
    return module


def modules_in(spec: str) -> set[str]:
    """Modules of the library whose functions and classes a key names, in the JSON of their `specs.spec_of`."""
    names = set(re.findall(rf'"({_LIBRARY}\.[\w.]+)"', spec))
    return {max((module for module in sys.modules if name.startswith(f"{module}.")), key=len) for name in names}


def notebook_files(path: Path) -> tuple[Path, ...]:
    """Source files of the library that a notebook's code cells reach by import, sorted.

    Lines for IPython alone (`%magic`, `!command`) are passed over.

    Raises:
        ValueError: a cell is no Python; names the notebook and the cell.
    """
    modules: list[str] = []
    for number, cell in enumerate(json.loads(path.read_text())["cells"], 1):
        if cell["cell_type"] == "code" and not "".join(cell["source"]).startswith("%%"):
            lines = "".join(cell["source"]).splitlines()
            code = "\n".join(line for line in lines if not line.lstrip().startswith(("%", "!")))
            try:
                modules += _imports(code)
            except SyntaxError as error:
                raise ValueError(f"notebooks/{path.name}: cell {number} is no Python: {error}; mend it") from error
    return _reached(modules)

"""What docs/ lists: the files of the library with the first lines of their docstrings, and profiles."""

import ast
import re
from pathlib import Path

from distill_lib.profiles.reading import read_yaml
from distill_lib.report.claims import table

_SIZES = ("smoke", "quick", "laptop", "gpu", "paper")  # from small to large
_LIBRARY = Path(__file__).resolve().parents[2]
_REST = {
    "pretrained/": "shipped weights, safetensors, each with its recipe and training curve",
    "figures/laptop/": "the committed results",
    "tests/": "a file a subject; notebooks under nbval, with planted faults; `chaos/` kills runs, `bench.py` times",
    "site/": "what the site has by hand: configuration, style, references; `make site` builds it",
    "docs/": "a glossary, how to run, how to distil other data and models, this list",
    "Snakefile Makefile": "one rule a notebook; the commands",
    "LOG.md CHANGELOG.md": "experiments with their negatives; what changed",
}


def _first_line(path: Path) -> str:
    return (ast.get_docstring(ast.parse(path.read_text())) or "").partition("\n")[0]


def tree(figures: Path) -> str:
    """The files of the library in the order of its map, each with the first line of its docstring.

    Args:
        figures: a folder of the checkout, which is not looked into.
    """
    del figures
    notebooks = sorted((_LIBRARY.parent / "notebooks").glob("[0-9][0-9]_*.ipynb"))
    lines = [("notebooks/", f"{notebooks[0].stem} to {notebooks[-1].stem}: read these")]
    lines += [
        ("distill_lib/", _first_line(_LIBRARY / "__init__.py")),
        ("  paths.py", _first_line(_LIBRARY / "paths.py")),
    ]
    for chapter in re.findall(r"^ *\d+ (\w+)/", (_LIBRARY / "__init__.py").read_text(), re.MULTILINE):
        lines.append((f"  {chapter}/", _first_line(_LIBRARY / chapter / "__init__.py")))
        for path in sorted((_LIBRARY / chapter).rglob("*.py")):
            if path.name != "__init__.py":
                lines.append((f"    {path.relative_to(_LIBRARY / chapter).as_posix()}", _first_line(path)))
    lines += list(_REST.items())
    width = max(len(name) for name, _ in lines) + 2
    return "\n".join(["```", *(f"{name:{width}}# {summary}" for name, summary in lines), "```"])


def profiles_table(figures: Path) -> str:
    """The profiles, each with what its file says of itself.

    Args:
        figures: a folder of the checkout, which is not looked into.
    """
    del figures
    folder = _LIBRARY / "profiles"
    lines = [[f"`{name}`", read_yaml(folder / f"{name}.yaml")["about"]] for name in _SIZES]
    return table(["profile", "what it is"], lines)

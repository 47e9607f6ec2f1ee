"""The library is read chapter by chapter: imports point up its map only, and what is public says what it is."""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent / "distill_lib"
MAP = ast.get_docstring(ast.parse((ROOT / "__init__.py").read_text()))
LEVELS = {"paths": 0} | {name: int(level) for level, name in re.findall(r"^ *(\d+) (\w+)/", MAP, re.MULTILINE)}
TRAINING = ("diffusion", "engine", "networks", "teachers", "guided", "sdxs")
CODE_IN_INIT = {"profiles"}
"""`profiles.load(..)` is what notebooks say, and any other name of the file would clash with their variables."""


def name_of(path):
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__").removesuffix("__init__")


def has_code(path):
    return path.name != "__init__.py" or len(ast.parse(path.read_text()).body) > 1


FILES = {name_of(path): path for path in sorted(ROOT.rglob("*.py")) if has_code(path)}


def imports(path):
    """Modules of the library that a file imports anywhere, functions included."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: write imports in full; the keys of runs follow only those"
            names = [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
        else:
            continue
        for name in names:
            if name.removeprefix("distill_lib.") in FILES and name.startswith("distill_lib."):
                yield name.removeprefix("distill_lib.")


ARROWS = {name: set(imports(path)) - {name} for name, path in FILES.items()}


def reached(name):
    seen, queue = set(), [name]
    while queue:
        module = queue.pop()
        for other in ARROWS[module] - seen:
            seen.add(other)
            queue.append(other)
    return seen


def chapter(name):
    return name.partition(".")[0]


def test_every_file_belongs_to_a_chapter_of_the_map():
    assert {chapter(name) for name in FILES} == set(LEVELS)
    assert len(MAP.splitlines()) <= 25
    assert len(ast.parse((ROOT / "__init__.py").read_text()).body) == 1


@pytest.mark.parametrize("name", sorted(set(LEVELS) - {"paths"}))
def test_a_chapter_says_what_is_in_it_and_holds_no_code(name):
    tree = ast.parse((ROOT / name / "__init__.py").read_text())
    if name not in CODE_IN_INIT:
        assert len(tree.body) == 1
        assert len([line for line in ast.get_docstring(tree).splitlines() if line]) == 3
        assert "Rule: " in ast.get_docstring(tree)


@pytest.mark.parametrize("name", FILES)
def test_a_module_imports_only_from_chapters_above_its_own(name):
    wrong = {
        other
        for other in ARROWS[name]
        if chapter(other) != chapter(name) and LEVELS[chapter(other)] >= LEVELS[chapter(name)]
    }
    assert wrong == set()


@pytest.mark.parametrize("name", FILES)
def test_no_circle_of_imports(name):
    assert name not in reached(name)


@pytest.mark.parametrize("name", [name for name in FILES if chapter(name) in TRAINING])
def test_training_reaches_no_judge(name):
    assert {other for other in reached(name) if chapter(other) in ("measure", "report")} == set()


@pytest.mark.parametrize("name", [name for name in FILES if chapter(name) == "measure"])
def test_measuring_loads_no_weights(name):
    assert {other for other in reached(name) if chapter(other) == "shipped"} == set()


@pytest.mark.parametrize("name", FILES)
def test_no_file_is_longer_than_300_lines(name):
    assert len(FILES[name].read_text().splitlines()) <= 300


def test_the_tree_of_the_docs_is_that_of_the_files():
    from distill_lib.report.pages.tree import tree

    assert tree(ROOT) in (ROOT.parent / "docs" / "code.md").read_text()


def public(path):
    """Public functions and classes of a module with their qualified names, and the public methods of those classes."""
    for node in ast.parse(path.read_text()).body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef) and not node.name.startswith("_"):
            yield node.name, node
            for part in node.body if isinstance(node, ast.ClassDef) else []:
                # what `forward` takes and gives stands in the docstring of its class
                if isinstance(part, ast.FunctionDef) and not part.name.startswith("_") and part.name != "forward":
                    yield f"{node.name}.{part.name}", part


@pytest.mark.parametrize("name", FILES)
def test_everything_public_has_a_docstring(name):
    tree = ast.parse(FILES[name].read_text())
    assert ast.get_docstring(tree)
    assert [result for result, node in public(FILES[name]) if not ast.get_docstring(node)] == []

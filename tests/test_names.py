"""One meaning a word: identifiers are nouns and verbs of the field, as CONTRIBUTING's glossary has them."""

import ast
import json
import re
from collections.abc import Iterator

import pytest

from distill_lib.paths import ROOT

# Words that say nothing of what they hold: pronouns, adverbs, and participles that stood for several nouns each.
WHOLE = set(
    """alone anew ask asked asks everybody folded found here home how its itself learned lesson lessons meetings mine
    on_lines on_paper one own_ways in_turn in_words regressed renewed said scored showing shown shrunk some steered
    taught textured theirs there those told twins ways what who why about""".split()
)
# Words that may not even be a part of a name, such as told_bf16; the others may: one_step, one_hot.
PARTS = set("anew asked lesson lessons mine regressed renewed said shrunk taught theirs told twins".split())
ALLOWED = {("distill_lib/profiles/__init__.py", "about")}  # a key of profiles that users write


def dialect(name: str) -> bool:
    words = [word.lower() for word in re.findall(r"[A-Z]+(?![a-z])|[A-Z]?[a-z0-9]+", name)]
    return "_".join(words) in WHOLE or not PARTS.isdisjoint(words)


def bound(tree: ast.AST) -> Iterator[tuple[str, int]]:
    """Names that code gives: of functions, classes, arguments, variables, attributes, exceptions and imports."""
    for node in ast.walk(tree):
        match node:
            case ast.FunctionDef(name=name) if name.startswith("test_"):
                continue
            case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name) | ast.ClassDef(name=name):
                yield name, node.lineno
            case ast.arg(arg=name) | ast.Name(id=name, ctx=ast.Store()) | ast.Attribute(attr=name, ctx=ast.Store()):
                yield name, node.lineno
            case ast.ExceptHandler(name=str(name)) | ast.alias(asname=str(name)):
                yield name, node.lineno


def code(path: str) -> ast.AST:
    text = (ROOT / path).read_text()
    if path.endswith(".ipynb"):
        cells = [cell for cell in json.loads(text)["cells"] if cell["cell_type"] == "code"]
        text = "\n".join("".join(cell["source"]) for cell in cells)
    return ast.parse(text)


FOLDERS = ("distill_lib/**/*.py", "tests/**/*.py", "notebooks/*.ipynb")
FILES = sorted(str(path.relative_to(ROOT)) for folder in FOLDERS for path in ROOT.glob(folder))


def test_no_name_is_of_the_dialect():
    wrong = [f"{file}:{line} {name}" for file in FILES for name, line in bound(code(file)) if dialect(name)]
    wrong = [place for place in wrong if tuple(re.split(r":\d+ ", place)) not in ALLOWED]
    assert wrong == [], "see the glossary in CONTRIBUTING.md"


@pytest.mark.parametrize("name", ["told", "_told", "told_bf16", "Twins", "_HOW", "in_turn", "asked_precision"])
def test_a_word_is_found_whatever_its_case_and_place(name):
    assert dialect(name)


@pytest.mark.parametrize(
    "name", ["one_step", "one_hot", "for_one_strength", "held_out", "someone", "showcase", "SHAPES"]
)
def test_ordinary_names_are_no_dialect(name):
    assert not dialect(name)


def test_each_word_of_the_glossary_is_explained_once():
    text = (ROOT / "CONTRIBUTING.md").read_text().partition("## Glossary")[2].partition("\n## ")[0]
    words = re.findall(r"\*\*(.+?)\*\*: ", text)
    assert len(words) == len(set(words)) >= 20 and not any(map(dialect, words))

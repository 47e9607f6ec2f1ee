"""Every notebook turns red when the library is wrong: a fault is planted, and a check that nbval compares is run."""

import ast
from types import SimpleNamespace

import pytest
from planted import FAULTS, ROOT, changes, checkout, needed, run

from distill_lib.run.notebooks import names


def test_every_notebook_has_its_fault():
    assert sorted(FAULTS) == names()


@pytest.mark.notebook
@pytest.mark.parametrize("name", FAULTS)
def test_a_fault_in_the_library_turns_a_notebook_red(name, tmp_path):
    assert run(name, ROOT, tmp_path / "right") == ""
    assert run(name, checkout(FAULTS[name], tmp_path / "checkout"), tmp_path / "wrong") != ""


def cell(source, *tags):
    return SimpleNamespace(cell_type="code", source=source, metadata={"tags": list(tags)})


def kept(*sources):
    """Statements that are kept of unmarked cells before a marked one, the last."""
    *before, last = sources
    result, number = needed([*map(cell, before), cell(last, "nbval-check-output")], "print(")
    assert number == len(before) and ast.unparse(result[-1]) == last
    return [ast.unparse(statement) for statement in result[:-1]]


@pytest.mark.parametrize(
    ("sources", "expected"),
    [
        (["a = 1", "b = 2", "print(a)"], ["a = 1"]),
        (["a = 1", "a = 2", "print(a)"], ["a = 2"]),
        (["a = 1\nb = a", "print(b)"], ["a = 1", "b = a"]),
        (["a = []", "a.append(1)\nb = 1", "print(a)"], ["a = []", "a.append(1)"]),
        (["a = {}", "a['x'] = 1", "print(a)"], ["a = {}", "a['x'] = 1"]),
        (["a = 1", "a += 1", "print(a)"], ["a = 1", "a += 1"]),
        (["a = f()", "a.x, b = 1, 2", "print(a)"], ["a = f()", "a.x, b = (1, 2)"]),
        (["net = f()", "curve = finish(net)", "print(net)"], ["net = f()", "curve = finish(net)"]),
        (["net = f()\ntrain(net)\nshow = draw(net)", "print(net)"], ["net = f()", "train(net)"]),
        (["net = f()\nloss(net).backward()\nnet", "print(net)"], ["net = f()", "loss(net).backward()"]),
        (["net = f()", "draw(net)", "print(net)"], ["net = f()"]),
        (["import x, y", "x.seed(0)\na = x.f()", "print(a)"], ["import x, y", "x.seed(0)", "a = x.f()"]),
        (["a, b = 1, f()", "print(a)"], ["a = 1"]),
        (["a, b = 1, 2", "a, b = b, a", "print(a)"], ["a = 1", "b = 2", "a, b = (b, a)"]),
        (["a = f()\nlog.add(a)\n1", "print(a)"], ["a = f()"]),
        (
            ["a = 0", "for i in range(3):\n    a = g(a, i)", "print(a)"],
            ["a = 0", "for i in range(3):\n    a = g(a, i)"],
        ),
        (["for i in f():\n    i", "for i in range(3):\n    print(i)"], []),
        (["for i in f():\n    i", "i = 0", "for k in range(3):\n    print(i)"], ["i = 0"]),
        (["i = 0", "for i in range(i):\n    print(i)"], ["i = 0"]),
        (["i = f()", "print([i for i in range(3)])"], []),
    ],
)
def test_what_a_checked_cell_needs(sources, expected):
    assert kept(*sources) == expected


def test_a_name_of_a_comprehension_changes_nothing_outside():
    (statement,) = ast.parse("a = [w for w in ws]").body
    assert changes(statement, set()) == {"a"}

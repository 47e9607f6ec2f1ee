"""What measures is drawn apart from what trains, and each measurement apart from the others."""

import ast
from itertools import chain

import pytest

from distill_lib.paths import ROOT
from distill_lib.shipped.pretrained import RECIPES
from distill_lib.worlds.seeds import HELD_OUT_SEEDS, TRAINING_SEEDS, held_out_seed, training_seed

RUNS = range(10)
COMMITTED = {
    "pairs": 700, "shown": 999, "measured": 1000, "looks": 1010, "twins": 2000,
    "looks again": 2010, "probe": 3000, "edits": 5000, "steered": 7000, "truth": 8000,
}  # fmt: skip


def seeds_in(result):
    """Every seed that a nested recipe names."""
    if isinstance(result, dict):
        yield from ([result["seed"]] if "seed" in result else [])
        yield from chain.from_iterable(map(seeds_in, result.values()))


def test_the_seeds_behind_the_committed_rows_stay_as_they_were():
    for use, first in COMMITTED.items():
        numbers = range(3) if len(HELD_OUT_SEEDS[use]) > 1 else range(1)
        assert [held_out_seed(use, k) for k in numbers] == [first + k for k in numbers]
    assert set(COMMITTED) == set(HELD_OUT_SEEDS)
    assert [training_seed(k) for k in range(3)] == [100, 101, 102]


@pytest.mark.parametrize("numbers", [RUNS, range(40), [0, 9, 10, 99, 100, 999, 1000, 1010, 2000, 9999], range(10_000)])
def test_each_use_has_seeds_of_its_own(numbers):
    drawn = [held_out_seed(use, number) for use in HELD_OUT_SEEDS for number in numbers]
    drawn += [training_seed(number) for number in numbers]
    assert len(set(drawn)) == len(drawn)


def test_what_measures_meets_no_seed_that_trains():
    """Trainings draw their data by the seeds of the recipes, by 0 and 1, and by those of the notebooks' own pairs."""
    measured = {held_out_seed(use, number) for use in HELD_OUT_SEEDS for number in RUNS}
    recipes = set(seeds_in(RECIPES))
    assert len(recipes) > 20 and max(recipes) < min(map(min, HELD_OUT_SEEDS.values()))
    assert measured.isdisjoint(recipes | set(TRAINING_SEEDS) | set(RUNS))


def test_prompts_that_a_notebook_teaches_are_neither_those_measured_nor_those_shipped():
    training = {training_seed(number) for number in RUNS}
    assert training.isdisjoint(set(RUNS) | {recipe["seed"] for recipe in RECIPES["pairs"].values()})


@pytest.mark.parametrize("number", [-1, 10_000])
def test_a_number_that_cannot_be_kept_apart_is_refused(number):
    for call in (lambda: held_out_seed("looks", number), lambda: training_seed(number)):
        with pytest.raises(ValueError, match=f"seed={number} cannot be kept apart.*from 0 to 9999"):
            call()


def test_an_unknown_use_is_refused():
    with pytest.raises(ValueError, match=r"use='look' has no seeds; choose one of pairs, .*truth, or add a range"):
        held_out_seed("look")


@pytest.mark.parametrize("path", sorted((ROOT / "distill_lib").rglob("*.py")), ids=lambda path: path.stem)
def test_no_draw_of_data_makes_its_own_seed_of_a_number(path):
    """A seed is a variable or comes from the table: `1000 + part` in a call is how ranges met unseen."""
    draws = {"draw_scenes", "render_pictures", "rendered_once", "drawn_attributes", "teacher_pairs", "captioned"}
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Call) and getattr(node.func, "id", getattr(node.func, "attr", "")) in draws:
            given = [*node.args, *(word.value for word in node.keywords)]
            added = [arg for arg in given if isinstance(arg, ast.BinOp) and "seed" in ast.unparse(arg)]
            added += [arg for arg in given if isinstance(arg, ast.BinOp) and "part" in ast.unparse(arg)]
            assert not added, f"{path.name}:{node.lineno} {[ast.unparse(arg) for arg in added]}"

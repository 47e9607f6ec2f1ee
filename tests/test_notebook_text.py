"""The text of the notebooks: links that lead somewhere, equations before code, and what differs from the paper."""

import ast
import re

import pytest
from test_notebooks import NAMES, cells
from test_pages import anchors, links, without_code

from distill_lib.paths import ROOT
from distill_lib.profiles.reading import read_yaml
from distill_lib.report.notebook_map import COLUMNS, present
from distill_lib.run.exercises import EXERCISES

ORDER = [present()[number] for numbers in COLUMNS.values() for number in numbers]
COURSE = [name for name in ORDER if name[:2] not in ("00", "15", "16")]
GLOSSARY = ROOT / "docs" / "glossary.md"
BOX = "> **Differs from the paper.**"


def markdown(name):
    return [cell.source for cell in cells(name) if cell.cell_type == "markdown"]


# --- links


def navigation(name):
    place = ORDER.index(name)
    after = [f"[next]({following}.ipynb)" for following in ORDER[place + 1 : place + 2]]
    after += [f"[exercises](exercises/{name}.ipynb)"] if (EXERCISES / f"{name}.ipynb").exists() else []
    return " | ".join([f"[previous]({ORDER[place - 1]}.ipynb)", f"[all notebooks]({ORDER[0]}.ipynb)", *after])


def test_the_reading_order_has_every_notebook_once():
    assert sorted(ORDER) == NAMES


@pytest.mark.parametrize("name", ORDER[1:])
def test_a_notebook_leads_to_the_one_before_the_map_and_the_one_after(name):
    lines = markdown(name)[0].splitlines()
    assert [line for line in lines if line.startswith("[previous]")] == [navigation(name)]


@pytest.mark.parametrize("name", NAMES)
def test_every_link_of_a_notebook_leads_to_a_file_and_every_anchor_exists(name):
    wrong = []
    for target in [target for text in markdown(name) for target in links(text)]:
        if target.startswith("https://"):
            continue
        path, _, anchor = target.partition("#")
        path = ROOT / "notebooks" / path
        if not path.is_file() or (anchor and anchor not in anchors(path.read_text(encoding="utf-8"))):
            wrong.append(target)
    assert wrong == []


def bare(text):
    """Numbers of arXiv that are no links, and notebooks that are named in backticks."""
    papers = re.sub(r"\[arXiv (\d{4}\.\d{5})\]\(https://arxiv\.org/abs/\1\)", "", text)
    return re.findall(r"arXiv \d{4}\.\d{5}", papers) + [name for name in re.findall(r"`(\w+)`", text) if name in NAMES]


@pytest.mark.parametrize("name", COURSE)
def test_papers_and_notebooks_that_the_first_cell_names_are_links(name):
    assert bare(markdown(name)[0]) == []


def test_a_bare_paper_or_notebook_is_found():
    linked = "[arXiv 2210.03142](https://arxiv.org/abs/2210.03142)"
    assert bare(f"{linked}, `w`") == []
    assert bare(linked.replace("abs/22", "abs/23") + ", `04_ablations`") == ["arXiv 2210.03142", "04_ablations"]


# --- equations


def shows_loss(cell):
    """Whether a cell shows the source of a loss."""
    calls = [node for node in ast.walk(ast.parse(cell.source)) if isinstance(node, ast.Call)]
    arguments = [argument for call in calls if ast.unparse(call.func) == "source" for argument in call.args]
    return any("loss" in ast.unparse(argument) for argument in arguments)


def losses(name):
    """For each loss that a notebook shows, the text since the one before."""
    text, before = "", []
    for cell in cells(name):
        if cell.cell_type == "markdown":
            text += cell.source
        elif cell.cell_type == "code" and shows_loss(cell):
            before.append(text)
            text = ""
    return before


@pytest.mark.parametrize("name", COURSE)
def test_before_the_code_of_a_loss_stand_its_equation_and_somewhere_what_differs_from_the_paper(name):
    before = losses(name)
    assert [text for text in before if "$$" not in text] == []
    boxes = [text for text in markdown(name) if BOX in text.splitlines() or f"\n{BOX} " in f"\n{text}"]
    assert len(boxes) == 1 or not before
    assert all(re.search(r"^> - ", text, re.MULTILINE) for text in boxes)


def test_the_losses_of_stage_two_are_found():
    assert len(losses("03_step_halving")) == 1 and len(losses("14_speed")) == 1 and losses("16_rulers") == []


@pytest.mark.parametrize("name", NAMES)
def test_equations_are_closed_and_rows_of_a_table_have_as_many_cells(name):
    for text in markdown(name):
        assert without_code(text).count("$$") % 2 == 0
        for table in re.findall(r"(?:^\|.*\|$\n?)+", text, re.MULTILINE):
            assert len({re.sub(r"`[^`]*`", "", line).count("|") for line in table.splitlines()}) == 1, table


# --- sizes


def sizes(text):
    """What a text says of a profile or a recipe: value, path, file."""
    return re.findall(r"([\d.]+) \(`([\w.]+)` (?:at|in) (\w+)\)", text)


def size_of(path, file):
    folder = "shipped" if file == "recipes" else "profiles"
    value = read_yaml(ROOT / "distill_lib" / folder / f"{file}.yaml")
    for key in path.split("."):
        value = value[key]
    return float(value)


@pytest.mark.parametrize("name", NAMES)
def test_a_size_that_a_notebook_says_is_that_of_the_profile(name):
    stated = sizes("\n".join(markdown(name)))
    assert [(value, path) for value, path, file in stated if float(value) != size_of(path, file)] == []


def test_sizes_are_found():
    stated = sizes("Here: 32 (`halving_start` at laptop), 64 (`student.textured.batch_size` in recipes); 5 (`x`).")
    assert stated == [("32", "halving_start", "laptop"), ("64", "student.textured.batch_size", "recipes")]


# --- the glossary


def test_the_glossary_is_in_order_and_every_function_that_it_names_exists():
    text = GLOSSARY.read_text(encoding="utf-8")
    words = re.findall(r"^### (.*)$", text, re.MULTILINE)
    assert words == sorted(words, key=str.casefold) and len(words) > 30
    named = re.findall(r"((?:`\w+`(?: and )?)+)\s+in\s+\[[\w.]+\]\(\.\./([\w./]+)\)", text)
    assert len(named) > 30
    for functions, path in named:
        code = (ROOT / path).read_text(encoding="utf-8")
        for function in re.findall(r"`(\w+)`", functions):
            assert re.search(rf"^(?:def|class) {function}\b|^{function}\b.* = ", code, re.MULTILINE), (function, path)


@pytest.mark.parametrize("word", ["fid", "kid", "inception-score", "recall", "floor", "nfe", "score", "ema", "mmd"])
def test_the_glossary_has_the_words_that_a_newcomer_lacks(word):
    assert word in anchors(GLOSSARY.read_text(encoding="utf-8"))

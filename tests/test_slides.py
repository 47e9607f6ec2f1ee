"""Slides: made of tagged cells with their stored outputs, in the order of the lesson."""

import contextlib
import io
import json
import re
from importlib.util import find_spec
from itertools import pairwise

import pytest
from test_pages import links

from distill_lib.paths import ROOT
from distill_lib.report.site import slides

PLAN = ROOT / "docs" / "lesson-90min.md"


def cell(kind="markdown", source="", outputs=(), **metadata):
    return {"cell_type": kind, "id": "c", "source": source, "outputs": list(outputs), "metadata": metadata}


def test_each_tagged_cell_is_one_slide_in_the_order_of_the_lesson():
    text = slides.deck(ROOT)["index.md"].decode()
    titles = [c["metadata"]["slide_title"] for name in slides.ORDER for c in slides.tagged_cells(ROOT, name)]
    assert re.findall(r"^## (.*)$", text, re.MULTILINE) == titles
    assert len(titles) == len(set(titles)) and 20 <= len(titles) <= 45


def test_every_picture_of_the_deck_is_there_and_has_words():
    files = slides.deck(ROOT)
    named = re.findall(r"!\[(.*?)\]\(([\w-]+\.png)\)", files["index.md"].decode(), re.DOTALL)
    assert {name for _, name in named} == set(files) - {"index.md"} and len(named) > 10
    assert all(data.startswith(b"\x89PNG") for name, data in files.items() if name != "index.md")


def test_a_slide_shows_equations_or_all_words_and_what_is_stored():
    text = "# Head\n\nWords before.\n\n$$\nx = 1,\n$$\n\nwords after."
    assert slides.slide(cell(source=text, slide_title="T"), {}) == "## T\n\n$$\nx = 1\n$$"
    assert slides.slide(cell(source="## Head\n\nPredict!", slide_title="T"), {}) == "## T\n\nPredict!"
    output, pictures = {"data": {"text/markdown": "| a |", "text/plain": "b"}}, {}
    assert slides.slide(cell("code", "f()", [output], slide_title="T"), pictures) == "## T\n\n| a |" and pictures == {}


def test_a_tagged_cell_without_a_title_is_refused(tmp_path):
    (tmp_path / "notebooks").mkdir()
    notebook = {"cells": [cell(tags=["slide"])]}
    (tmp_path / "notebooks" / "14_speed.ipynb").write_text(json.dumps(notebook))
    with pytest.raises(ValueError, match="14_speed: cell c is tagged `slide`; give it `slide_title`"):
        slides.tagged_cells(tmp_path, "14_speed")


def test_a_question_is_asked_before_the_slide_that_answers_it(tmp_path):
    questions = {("00_start_here", "x00-03"), ("11_one_step", "x11-04"), ("14_speed", "x14-02")}
    for notebook, question in questions:
        cells = slides.tagged_cells(ROOT, notebook)
        ids = [c["id"] for c in cells]
        answer = cells[ids.index(question)]["metadata"]["slide_before"]
        assert ids.index(answer) == ids.index(question) + 1
    (tmp_path / "notebooks").mkdir()
    lost = {"cells": [cell(tags=["slide"], slide_title="T", slide_before="d")]}
    (tmp_path / "notebooks" / "14_speed.ipynb").write_text(json.dumps(lost))
    with pytest.raises(ValueError, match="14_speed: cell c stands before d, which is no slide"):
        slides.tagged_cells(tmp_path, "14_speed")


def test_the_plan_of_the_lesson_has_90_minutes_and_its_notebooks_in_order():
    text = PLAN.read_text(encoding="utf-8")
    spans = [tuple(map(int, span)) for span in re.findall(r"^\| (\d+) to (\d+) \|", text, re.MULTILINE)]
    assert spans[0][0] == 0 and spans[-1][1] == 90
    assert all(end == begin for (_, end), (begin, _) in pairwise(spans))
    lines = [line for line in text.splitlines() if re.match(r"\| \d+ to", line)]
    first = [re.search(r"\.\./notebooks/(\w+)\.ipynb", line)[1] for line in lines]
    assert tuple(first) == slides.ORDER
    assert [target for target in links(text) if not (PLAN.parent / target).exists()] == []


def test_without_its_packages_slides_name_them_and_write_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr(slides, "_EXTRA", ("json", "no_such_package"))
    with pytest.raises(ValueError, match="slides need no_such_package: give the command `make slides`"):
        slides.build(ROOT, tmp_path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.site
@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.* is deprecated")
@pytest.mark.skipif(find_spec("sphinx_revealjs") is None, reason="the packages of `make slides` are not installed")
def test_slides_build_without_a_warning_and_load_nothing_from_outside(tmp_path):
    messages = io.StringIO()
    with contextlib.redirect_stderr(messages):
        html = slides.build(ROOT, tmp_path)
    assert [line for line in messages.getvalue().splitlines() if "WARNING" in line or "ERROR" in line] == []
    page = (html / "index.html").read_text(encoding="utf-8")
    for loaded in re.findall(r"""<(?:script|link|img)\b[^>]*?(?:src|href)=["']([^"']+)""", page):
        assert not re.match(r"[a-z]+:|//", loaded) and (html / loaded.partition("?")[0]).is_file(), loaded
    number = len(re.findall(r"^## ", (tmp_path / "source" / "index.md").read_text(encoding="utf-8"), re.MULTILINE))
    assert page.count("<h2>") == number

"""The page of evidence: every claim in a theme, every open point at a place that exists, and what figures hold."""

import importlib
from itertools import pairwise
from pathlib import Path

import matplotlib.colors
import pytest
import yaml
from matplotlib.backends.backend_agg import FigureCanvasAgg

from distill_lib import profiles
from distill_lib.papers.cells import Place
from distill_lib.papers.claims import judge
from distill_lib.papers.editions import second_edition
from distill_lib.papers.manifest import PAPERS, load_paper
from distill_lib.papers.page import points, themes
from distill_lib.paths import COMMITTED, ROOT
from distill_lib.report import evidence
from distill_lib.report.claims import UNJUDGED
from distill_lib.run import stale

POINTS = points()
EVERY = [*POINTS.unsaid, *POINTS.otherwise]
CLAIMS = {claim.id: claim for paper in PAPERS for claim in second_edition(paper).claims}
MARK = "Differs from the paper"


@pytest.fixture(scope="module")
def results():
    return judge(Place(COMMITTED, ROOT / "figures"))


def named(point):
    return f"{point.where}: {point.point}"


# --- the data


def test_every_claim_has_one_theme():
    listed = [name for theme in themes() for name in theme.claims]
    assert sorted(listed) == sorted(CLAIMS)


def attribute(name):
    """What a dotted name of the library stands for, an attribute of a class included."""
    parts = name.split(".")
    for cut in range(len(parts) - 1, 0, -1):
        try:
            thing = importlib.import_module(".".join(parts[:cut]))
        except ModuleNotFoundError:
            continue
        for part in parts[cut:]:
            thing = getattr(thing, part)
        return thing
    raise AssertionError(f"{name} is nowhere")


@pytest.mark.parametrize("point", EVERY, ids=named)
def test_every_place_of_a_point_exists(point):
    for name in point.code:
        assert attribute(name) is not None
    recipes = yaml.safe_load((ROOT / "distill_lib" / "shipped" / "recipes.yaml").read_text())
    for path in point.recipes:
        part = recipes
        for field in path.split("."):
            part = part[field]
    for profile in profiles.names():
        for path in point.settings:
            part = profiles.load(profile)
            for field in path.split("."):
                part = getattr(part, field)
    assert evidence.places_of(point)


@pytest.mark.parametrize("point", EVERY, ids=named)
def test_artefacts_and_claims_of_a_point_exist(point):
    papers = [load_paper(name) for name in PAPERS]
    assert set(point.tried) <= {a for paper in papers for item in [*paper.items, *paper.ours] for a in item.artefacts}
    assert set(point.claims) <= set(CLAIMS)


def file_of(name):
    """The module of the library that a dotted name stands in."""
    parts = name.split(".")
    paths = (ROOT.joinpath(*parts[:cut]).with_suffix(".py") for cut in range(len(parts) - 1, 0, -1))
    return next(path for path in paths if path.exists())


def test_every_mark_of_a_difference_has_its_line():
    marked = {path for path in (ROOT / "distill_lib").rglob("*.py") if MARK in path.read_text()}
    files = [{file_of(name) for name in point.code} for point in POINTS.otherwise]
    assert marked == set().union(*files) & marked
    assert all(of_point & marked for of_point in files)


def test_a_claim_that_may_fail_for_what_is_not_said_has_its_point():
    under_specified = {claim.id for claim in CLAIMS.values() if claim.cause and claim.cause.kind == "under-specified"}
    assert under_specified and under_specified <= {name for point in POINTS.unsaid for name in point.claims}


# --- what is shown


def test_bars_hold_every_claim_of_either_edition(results):
    rows = evidence.verdict_rows(results)
    first, second = (sum(r["value"] for r in rows if r["method"] == edition) for edition in evidence.EDITIONS)
    assert (first, second) == (len({entry["v1"]["id"] for entry in results}), len(results))
    assert {row["kind"] for row in rows} <= set(evidence.VERDICTS)
    ax = evidence.verdict_bars(rows).axes[0]
    widths = [patch.get_width() for patch in ax.patches]
    assert sorted(widths) == sorted(row["value"] for row in rows)
    assert {text.get_text() for text in ax.texts} == {f"{row['value']:g}" for row in rows}


def test_verdicts_are_told_apart_without_colour():
    looks = []
    for color, hatch in evidence.VERDICTS.values():
        red, green, blue = matplotlib.colors.to_rgb(color)
        looks.append((0.299 * red + 0.587 * green + 0.114 * blue, hatch))
    assert [grey for grey, _ in looks] == sorted(grey for grey, _ in looks)
    for (grey, hatch), (next_grey, next_hatch) in pairwise(looks):
        assert next_grey - grey > 0.1 or hatch != next_hatch


def test_the_table_of_themes_says_of_each_claim_what_claims_json_says(results):
    text = evidence.claims_by_theme(results, themes())
    assert text.count("### ") == len(themes())
    for entry in results:
        (line,) = (line for line in text.splitlines() if line.startswith(f"| {entry['id']} |"))
        assert CLAIMS[entry["id"]].tests in line and f"| {entry['verdict_v1'] or UNJUDGED} |" in line
        assert (f"| **{entry['verdict']}** |" in line) == bool(entry["verdict"])


def judged(name, verdict, holds=None, premises=(), v1="supported"):
    listed = [{"id": premise, "sentence": f"{premise} is so.", "holds": holds} for premise in premises]
    return {"id": name, "sentence": f"{name} says so.", "verdict": verdict, "verdict_v1": v1, "premises": listed}


def test_the_graph_holds_each_premise_once_and_an_arrow_to_each_claim():
    chain = [
        judged("a", "supported"),
        judged("b", "not assessable here", False, ["gate"]),
        judged("c", None, False, ["a", "gate"]),
        judged("d", "contradicted", None, ["other"]),
    ]
    ax = evidence.premise_graph(chain).axes[0]
    heads = [text.get_text() for text in ax.texts if ": " in text.get_text()]
    expected = ["a: supported", "b: not assessable here", f"c: {UNJUDGED} (as first set: supported)", "d: contradicted"]
    assert sorted(heads) == sorted([*expected, "gate: fails", "other: not known"])
    assert sum(text.get_text() == "" for text in ax.texts) == 4  # arrows


def test_no_two_boxes_of_the_graph_lie_on_each_other(results):
    ax = evidence.premise_graph(results).axes[0]
    boxes = [patch for patch in ax.patches if patch.get_width() > 1]
    assert len(boxes) >= 14
    for left in {box.get_x() for box in boxes}:
        column = sorted((box.get_y(), box.get_height()) for box in boxes if box.get_x() == left)
        assert all(y + height < below for (y, height), (below, _) in pairwise(column))


def test_the_words_of_a_box_end_within_it(results):
    figure = evidence.premise_graph(results)
    ax, renderer = figure.axes[0], FigureCanvasAgg(figure).get_renderer()
    rights = sorted({box.get_x() + box.get_width() for box in ax.patches if box.get_width() > 1})
    for text in (text for text in ax.texts if text.get_text()):
        end = ax.transData.inverted().transform(text.get_window_extent(renderer))[1][0]
        assert end < next(right for right in rights if right > text.get_position()[0]), text.get_text()


def test_what_is_known_of_a_claim_is_told(results):
    (entry,) = (entry for entry in results if entry["id"] == "g-P3")
    assert "| training_seconds of all of distillation beside teacher | 0.467 |" in evidence.claim_facts(entry)


# --- when it is drawn again


@pytest.mark.parametrize(("name", "reads_rows"), [("15_claims", True), ("03_step_halving", False)])
def test_the_page_is_stale_when_committed_rows_change(name, reads_rows, monkeypatch):
    seen: list[Path] = []
    monkeypatch.setattr(stale, "_kept_hash", lambda path: seen.append(path) or "hash")
    stale.digest(name, "smoke")
    assert any(path.parent == ROOT / "figures" / COMMITTED for path in seen) == reads_rows

"""The session of a notebook: settings resolved and checked, parents kept by themselves, checks that say by how much."""

import json

import pytest
import torch

from distill_lib import profiles
from distill_lib.engine import store
from distill_lib.engine.loop import finish
from distill_lib.engine.store import Run
from distill_lib.guided.halving import halving_target
from distill_lib.report.cells import check, source
from distill_lib.report.session import session
from distill_lib.shipped import pretrained

ROW = {"method": "ours-D", "metric": "fid", "seed": 0, "value": 1.0}


@pytest.fixture
def figures(tmp_path, monkeypatch):
    """An empty folder of artefacts, in a process that has read no weights yet."""
    monkeypatch.setenv("DISTILL_FIGURES", str(tmp_path))
    monkeypatch.delenv("DISTILL_PROFILE", raising=False)
    monkeypatch.setattr(store, "_read", {})
    return tmp_path


def parents(path):
    return json.loads(path.read_text())["parents"]


def test_a_session_resolves_strengths_and_steps_and_names_its_data(figures):
    lab, settings = session("smoke", 0, ws=[], steps=[]), profiles.load("smoke")
    assert (lab.ws, lab.steps) == (sorted(set(settings.ws)), sorted(set(settings.steps)))
    assert (lab.profile, lab.dataset, lab.has_own) == ("smoke", settings.data, False)
    assert lab.w_max == pretrained.w_range(settings.world)[1]


def test_strengths_of_ones_own_are_sorted_and_go_to_a_folder_of_their_own(figures):
    lab = session("smoke", 0, ws=[1.0, 0.0, 1.0], steps=[])
    assert lab.ws == [0.0, 1.0] and lab.has_own
    lab.rows("g-x", [ROW])
    (path,) = figures.glob("*/g-x.json")
    assert path.parent.name.startswith("smoke-own-")


@pytest.mark.parametrize(("given", "name"), [({"ws": [9.0]}, "w=9.0 lies outside"), ({"steps": [3]}, "steps=3")])
def test_what_no_student_is_distilled_for_is_refused_before_a_folder_is_made(figures, given, name):
    with pytest.raises(ValueError, match=name):
        session("smoke", 0, **given)
    assert not list(figures.iterdir())


def test_what_is_read_before_an_artefact_is_its_parent_and_what_is_read_later_is_not(figures):
    lab = session("smoke", 0)
    world = lab.settings.world
    lab.reader()
    lab.rows("g-first", [ROW])
    student = lab.student()
    lab.rest_on("prompts-of-mine")
    lab.rows("g-second", [ROW])
    reader = pretrained.key(f"extractor-{lab.settings.extractor}")
    assert parents(figures / "smoke" / "g-first.json") == [reader]
    assert parents(figures / "smoke" / "g-second.json") == [
        reader,
        "prompts-of-mine",
        pretrained.key(f"student-{world}"),
    ]
    assert student.key == pretrained.made(f"student-{world}")["weights"] and student.net.takes_w


def test_a_training_is_a_parent_whether_it_ran_here_or_was_found(figures, runs):
    class Still(torch.nn.Module):
        """One weight."""

        def __init__(self) -> None:
            super().__init__()
            self.module = torch.nn.Linear(1, 1)

    net, run = Still(), Run("still", {}, halving_target)
    run.finish(net.module.state_dict())
    for name in ("g-ran", "g-found"):
        store._read.clear()
        finish(net, [], run, "still")
        session("smoke", 0).rows(name, [ROW])
        assert parents(figures / "smoke" / f"{name}.json") == [run.key]


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        ((True,), "it holds: True"),
        ((torch.tensor(False),), "it holds: False"),
        ((3,), "it holds: 3"),
        ((3, 3), "it holds: True"),
        ((8, 4), "it holds: False, 8 is not 4"),
        ((0.5, 0.52, 0.05), "it holds: True"),
        ((0.5, 0.6, 0.05), "it holds: False, 0.5 is not 0.6 within 0.05"),
        ((torch.zeros(2), torch.tensor([0.0, 1e-4]), 1e-3), "it holds: True"),
        ((torch.zeros(2), torch.tensor([0.0, 0.25]), 1e-3), "it holds: False, they differ by 0.25, allowed is 0.001"),
        ((torch.zeros(2), torch.tensor([0.0, torch.nan]), 1.0), "it holds: False, they differ by nan, allowed is 1"),
        ((torch.zeros(2), torch.zeros(3)), "it holds: False, they differ by inf, allowed is 0"),
    ],
)
def test_a_check_is_one_line_that_says_by_how_much_it_fails(arguments, line, capsys):
    check("it holds", *arguments)
    assert capsys.readouterr().out == line + "\n"


def test_a_table_shows_itself_as_markdown_and_is_written_as_it_is(figures):
    drawn = session("smoke", 0).table("g-x", "| a |\n")
    assert drawn._repr_markdown_() == repr(drawn) == (figures / "smoke" / "g-x.md").read_text() == "| a |\n"


def test_source_shows_the_code_that_runs_without_what_is_said_of_arguments():
    drawn = source(halving_target)
    assert repr(drawn).startswith("@torch.no_grad()\ndef halving_target(")
    assert "x_target of (1)" in repr(drawn) and "Args:" not in repr(drawn)
    assert repr(drawn).endswith("return (z_s - ratio * z_t) / (alpha_s - ratio * alpha_t)")
    compile(repr(drawn), "shown", "exec")
    assert drawn._repr_markdown_() == f"```python\n{drawn!r}\n```"

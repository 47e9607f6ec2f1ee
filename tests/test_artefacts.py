"""Rows on disk: curves go out and come back."""

import json
import subprocess

import pytest

from distill_lib.engine import origin as engine_origin
from distill_lib.engine.origin import check_committed, commit, origin
from distill_lib.report import record
from distill_lib.report.record import Recorder, curve_rows


def test_committed_rows_are_those_of_the_repository_and_none_where_it_has_none(tmp_path, monkeypatch):
    rows = curve_rows("ours-D", {4: [(1, 2.0), (2, 1.0)], 2: [(1, 3.0)]}, 0)
    folder = tmp_path / "figures" / "laptop"
    folder.mkdir(parents=True)
    (folder / "g-curves.json").write_text(json.dumps({"rows": rows}))
    (folder / "g-curves-fashion-mnist.json").write_text(json.dumps({"rows": rows[:1]}))
    monkeypatch.setattr(record, "ROOT", tmp_path)
    monkeypatch.setenv("DISTILL_FIGURES", str(tmp_path / "elsewhere"))
    assert Recorder("smoke", "textured", []).committed("g-curves") == rows
    assert Recorder("smoke", "textured", []).committed("g-none") == []
    assert Recorder("smoke", "fashion_mnist", [], "-fashion-mnist").committed("g-curves") == rows[:1]


def test_artefacts_of_real_data_say_so_in_their_names_and_keep_rows_of_their_own(tmp_path, monkeypatch):
    monkeypatch.setenv("DISTILL_FIGURES", str(tmp_path))
    plain, real = Recorder("smoke", "textured", []), Recorder("smoke", "fashion_mnist", [], "-fashion-mnist")
    row = {"metric": "fid", "value": 1.0, "seed": 0}
    plain.rows("g-tab1", [row])
    kept = real.rows("g-tab1", [row | {"value": 2.0, "seed": 1}])
    real.table("g-tab1", "| a |")
    assert kept == [row | {"value": 2.0, "seed": 1}]
    names = {path.name for path in (tmp_path / "smoke").iterdir()}
    real_names = {f"g-tab1-fashion-mnist.{suffix}" for suffix in ("csv", "json", "md")}
    assert names == {"g-tab1.csv", "g-tab1.json"} | real_names
    assert json.loads((tmp_path / "smoke" / "g-tab1-fashion-mnist.json").read_text())["artefact"].endswith("-mnist")


def test_a_long_curve_is_thinned_to_some_fifty_points_from_its_first_on():
    rows = curve_rows("ours-D", {1: [(k, 1.0 / k) for k in range(1, 201)]}, 0)
    assert len(rows) == 50 and rows[0]["update"] == 1 and {row["steps"] for row in rows} == {1}


def test_rows_of_another_seed_keep_the_origin_that_they_had(tmp_path, monkeypatch):
    monkeypatch.setenv("DISTILL_FIGURES", str(tmp_path))
    row = {"metric": "fid", "value": 1.0}
    Recorder("smoke", "textured", ["first"]).rows("g-tab1", [row | {"seed": 0}])
    second = Recorder("smoke", "textured", ["second"])
    assert second.rows("g-tab1", [row | {"seed": 1}]) == [row | {"seed": 0}, row | {"seed": 1}]
    result = record.load_record("smoke", "g-tab1")
    assert {seed: made["parents"] for seed, made in result["made"].items()} == {"0": ["first"], "1": ["second"]}
    assert result["parents"] == ["second"] and result["made"]["0"]["commit"]
    Recorder("smoke", "textured", ["third"]).rows("g-tab1", [row | {"seed": 0}])
    again = record.load_record("smoke", "g-tab1")["made"]
    assert {seed: made["parents"] for seed, made in again.items()} == {"0": ["third"], "1": ["second"]}


def test_no_rows_leave_a_file_as_it_is(tmp_path, monkeypatch):
    monkeypatch.setenv("DISTILL_FIGURES", str(tmp_path))
    row = {"metric": "fid", "value": 1.0, "seed": 0}
    Recorder("smoke", "textured", ["first"]).rows("g-tab1", [row])
    before = (tmp_path / "smoke" / "g-tab1.json").read_bytes()
    assert Recorder("smoke", "textured", ["second"]).rows("g-tab1", []) == [row]
    assert (tmp_path / "smoke" / "g-tab1.json").read_bytes() == before
    assert Recorder("smoke", "textured", []).rows("g-none", []) == []


def test_rows_of_other_data_are_not_kept(tmp_path, monkeypatch):
    monkeypatch.setenv("DISTILL_FIGURES", str(tmp_path))
    row = {"metric": "fid", "value": 1.0}
    Recorder("smoke", "textured", []).rows("g-abl-range", [row | {"seed": 0}])
    assert Recorder("smoke", "icons", []).rows("g-abl-range", [row | {"seed": 1}]) == [row | {"seed": 1}]
    assert set(record.load_record("smoke", "g-abl-range")["made"]) == {"1"}


def test_rows_of_a_seed_that_was_measured_at_another_size_are_left_out_and_it_is_said(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("DISTILL_FIGURES", str(tmp_path))
    row = {"method": "ddim", "metric": "fid", "value": 1.0}
    first, second = row | {"seed": 0, "n": 256}, row | {"seed": 1, "n": 768}
    recorder = Recorder("smoke", "textured", [])
    recorder.rows("g-tab1", [first])
    assert recorder.rows("g-tab1", [second]) == [second]
    message = "g-tab1: the rows of seed 0 are left out, draw that seed again: n=[256] where the new rows have n=[768]"
    assert message in capsys.readouterr().err
    assert set(record.load_record("smoke", "g-tab1")["made"]) == {"1"}
    third = row | {"seed": 2, "n": 768}
    assert recorder.rows("g-tab1", [third]) == [second, third]
    both = [row | {"seed": 3, "n": n} for n in (64, 768)]  # one cell at two sizes on purpose, in every seed
    recorder.rows("x-metrics", both)
    again = [copied | {"seed": 4} for copied in both]
    assert recorder.rows("x-metrics", again) == both + again
    old = recorder.rows("g-tab2", [row | {"seed": 0}])  # as old files are, without `n`
    assert recorder.rows("g-tab2", [second]) == [*old, second]


def test_rows_of_a_seed_that_rests_on_other_weights_of_a_shipped_folder_are_left_out(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("DISTILL_FIGURES", str(tmp_path))
    monkeypatch.setattr(record.pretrained, "PRETRAINED", tmp_path / "pretrained")
    (tmp_path / "pretrained" / "student-toy").mkdir(parents=True)
    row = {"metric": "fid", "value": 1.0}
    Recorder("smoke", "textured", ["student-toy-aaa", "halving-2-aaa"]).rows("g-tab1", [row | {"seed": 0}])
    same = Recorder("smoke", "textured", ["student-toy-aaa", "halving-2-bbb"])  # a training of another seed has its key
    assert len(same.rows("g-tab1", [row | {"seed": 1}])) == 2
    new = Recorder("smoke", "textured", ["student-toy-ccc", "halving-2-ccc"])
    assert new.rows("g-tab1", [row | {"seed": 2}]) == [row | {"seed": 2}]
    assert (
        "seed 1 are left out, draw that seed again: they rest on student-toy-aaa, not student"
        in capsys.readouterr().err
    )


# ------------------------------------------------------------------------------------------------ the commit


@pytest.fixture
def checkout(tmp_path, monkeypatch):
    """A repository with one commit, which stands for this one."""
    root = tmp_path / "project"
    root.mkdir()
    for name in ("GIT_AUTHOR", "GIT_COMMITTER"):
        monkeypatch.setenv(f"{name}_NAME", "nobody")
        monkeypatch.setenv(f"{name}_EMAIL", "nobody@example.org")
    (root / "file").write_text("one")
    for command in (["init", "-q"], ["add", "."], ["commit", "-qm", "One"]):
        subprocess.run(["git", *command], cwd=root, check=True)
    monkeypatch.setattr(engine_origin, "ROOT", root)
    return root


def head(root):
    return subprocess.run(
        ["git", "rev-parse", "HEAD"], cwd=root, capture_output=True, text=True, check=True
    ).stdout.strip()


def test_the_commit_is_that_of_the_checkout_and_says_whether_files_differ(checkout):
    assert len(commit()) >= 7 and head(checkout).startswith(commit())
    (checkout / "file").write_text("two")
    assert commit().endswith("+") and head(checkout).startswith(commit()[:-1])


def test_committed_rows_are_drawn_by_committed_code_alone(checkout):
    folder, library = checkout / "figures" / "laptop", checkout / "distill_lib"
    for place in (folder, library):
        place.mkdir(parents=True)
    (folder / "g-x.json").write_text("{}")
    for command in (["add", "."], ["commit", "-qm", "Two"]):
        subprocess.run(["git", *command], cwd=checkout, check=True)
    (folder / "g-x.json").write_text('{"rows": []}')  # what was just drawn is no other code
    (checkout / "note").write_text("new, and no part of the library")
    check_committed(folder)
    assert not commit().endswith("+")
    for path, name in ((library / "new.py", "distill_lib/new.py"), (checkout / "file", "file")):
        path.write_text("two")
        assert commit().endswith("+")
        with pytest.raises(ValueError, match=f"^{name} differ from the commit"):
            check_committed(folder)
        check_committed(checkout / "figures" / "smoke")  # other places may hold what they like
        path.write_text("one") if name == "file" else path.unlink()


def test_a_worktree_has_a_commit(checkout, monkeypatch):
    subprocess.run(["git", "worktree", "add", "-q", str(checkout.parent / "tree")], cwd=checkout, check=True)
    monkeypatch.setattr(engine_origin, "ROOT", checkout.parent / "tree")
    assert (checkout.parent / "tree" / ".git").is_file()
    assert head(checkout).startswith(commit())


def test_the_repository_around_a_copy_is_not_asked(checkout, monkeypatch):
    (checkout / "copy").mkdir()
    monkeypatch.setattr(engine_origin, "ROOT", checkout / "copy")
    assert commit() == "unknown: not a git checkout"
    (checkout / "copy" / ".git").mkdir()  # not one either: git goes on to the one around it
    assert commit() == "unknown: not a git checkout"


def test_the_repository_of_a_hook_that_calls_is_not_asked(checkout, tmp_path, monkeypatch):
    commit_here = head(checkout)
    monkeypatch.setenv("GIT_DIR", str(tmp_path / "other" / ".git"))
    assert commit_here.startswith(commit())


def test_without_git_a_result_is_written_all_the_same(checkout, tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    assert commit() == "unknown: git is not installed"
    assert origin()["commit"] == "unknown: git is not installed"


def test_what_git_refuses_is_said_in_its_first_line(checkout):
    (checkout / ".git").rename(checkout / "elsewhere")
    (checkout / ".git").write_text("gitdir: /nowhere\n")
    assert commit() == "unknown: not a git repository: /nowhere"


def test_a_repository_of_somebody_else_is_unknown_and_why(checkout, monkeypatch):
    monkeypatch.setenv("GIT_TEST_ASSUME_DIFFERENT_OWNER", "1")  # git's own way to test this
    assert commit().startswith("unknown: detected dubious ownership in repository at ")


def test_a_repository_without_a_commit_is_unknown(tmp_path, monkeypatch):
    subprocess.run(["git", "init", "-q"], cwd=tmp_path, check=True)
    monkeypatch.setattr(engine_origin, "ROOT", tmp_path)
    assert commit().startswith("unknown: ")

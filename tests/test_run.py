"""The commands: what they refuse, what is stale, what is published, and the rows that they keep."""

import json
import os
import sys
import time

import nbformat
import pytest

from distill_lib.engine import origin
from distill_lib.engine.reach import notebook_files
from distill_lib.measure.rows import select
from distill_lib.paths import ROOT, figures_folder, settle
from distill_lib.report.record import Recorder, load_rows, own_folder
from distill_lib.run import drawing, notebooks, publishing
from distill_lib.run.__main__ import main
from distill_lib.run.comparing import differences
from distill_lib.run.drawing import executed_path
from distill_lib.run.processes import exclusive
from distill_lib.run.settings import Settings, read_settings
from distill_lib.run.stale import digest, is_stale, write_stamp


@pytest.fixture
def places(tmp_path, monkeypatch):
    """Folders of runs and figures of this test alone."""
    for name in ("RUNS", "FIGURES"):
        monkeypatch.setenv(f"DISTILL_{name}", str(tmp_path / name.lower()))
    for name in ("PROFILE", "FOLDER", "JUDGES"):
        monkeypatch.delenv(f"DISTILL_{name}", raising=False)
    monkeypatch.delenv("PRECISION", raising=False)
    monkeypatch.setenv("DISTILL_OWNER", "")  # taken back when the test ends
    return tmp_path


def refused(monkeypatch, capsys, *arguments):
    """The one line on stderr of a call that ends in a sentence."""
    monkeypatch.setattr(sys, "argv", ["run", *arguments])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    return line


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--profile", "quik"], "PROFILE=quik is unknown; choose one of gpu, laptop, paper, quick, smoke"),
        (["--id", "g-fig99"], "ID=g-fig99 is unknown; choose one of g-"),
        (["--id", "g-start", "--set", "width=3"], "00_start_here has no parameter 'width'; it has profile, seed"),
        (["--id", "g-tab1", "--set", "ws"], "--set 'ws' should be NAME=VALUE"),
        (["--id", "g-tab1", "--set", "ws=[0.5"], "--set ws='[0.5' cannot be read as a value"),
        (["--id", "g-tab1", "--set", "ws=[true]"], "--set ws='[true]' should be a list of numbers"),
        (["--id", "g-tab1", "--set", "seed=010"], "--set seed='010' cannot be read as a value"),  # 8 in YAML
        (["--id", "g-tab1", "--seed", "2", "--set", "seed=1"], "seed is given twice, as 2 and 1"),
        (["--id", "g-tab1", "--set", "ws=0.5"], "parameter ws=0.5 should be of type list, like []"),
        (["--id", "g-tab1", "--set", "seed=two"], "--set seed='two' cannot be read as a value"),
        (["--id", "g-tab1", "--set", "steps=[2]", "--set", "steps=[4]"], "--set steps is given twice"),
        (["--seed", "-1"], "SEED=-1 should be a whole number from 0"),
        (["--dataset", "mnist"], "DATASET='mnist' is unknown; choose one of fashion_mnist"),
        (["--dataset", "fashion_mnist"], "needs a folder of its files (FOLDER=..); '' is not a folder"),
    ],
)
def test_bad_input_ends_in_one_sentence_and_writes_nothing(places, monkeypatch, capsys, arguments, message):
    line = refused(monkeypatch, capsys, "figures", *arguments)
    assert line.startswith("error: ") and message in line
    assert not list(places.rglob("*.json"))


def test_committed_rows_are_refused_to_a_dirty_tree_before_anything_runs(places, monkeypatch, capsys):
    monkeypatch.setattr(origin, "ROOT", places)  # so that its figures/laptop is the committed one
    monkeypatch.setattr(origin, "uncommitted", lambda: ["distill_lib/paths.py"])
    monkeypatch.setattr(drawing, "_snakemake", lambda *_: pytest.fail("drawn all the same"))
    line = refused(monkeypatch, capsys, "figures", "--profile", "laptop", "--id", "g-start")
    assert line.startswith("error: distill_lib/paths.py differ from the commit, and rows of laptop")
    for name in ("_snakemake", "_judge"):
        monkeypatch.setattr(drawing, name, lambda *_: None)
    monkeypatch.setenv("DISTILL_FIGURES", str(places / "elsewhere"))
    monkeypatch.setattr(sys, "argv", ["run", "figures", "--profile", "laptop", "--id", "g-start"])
    main()


def test_an_unwritable_figures_folder_is_named_before_anything_runs(places, monkeypatch, capsys):
    (places / "figures").write_text("a file where the folder should be")
    line = refused(monkeypatch, capsys, "figures", "--profile", "smoke", "--id", "g-start")
    assert "cannot write to" in line and "DISTILL_FIGURES" in line


def test_settings_are_read_by_the_type_of_the_parameter_and_by_nothing_else(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names = notebooks.names()
    (tmp_path / "[2,8]").mkdir()  # no value of a list is ever a path
    result = read_settings(["ws=[0.5,2.0]", "steps=[2,8]", "seed=2"], names)
    assert result == {"ws": [0.5, 2.0], "steps": [2, 8], "seed": 2}
    (tmp_path / "folder").mkdir()
    assert read_settings(["dataset=folder"], names) == {"dataset": "folder"}
    assert read_settings(["teacher=folder"], names) == {"teacher": str(tmp_path / "folder")}
    assert read_settings(["teacher=no/1e3"], names) == {"teacher": "no/1e3"}
    assert read_settings(["prompts=\N{SLOTH} a b.txt"], names) == {"prompts": "\N{SLOTH} a b.txt"}


def test_each_experiment_has_a_place_of_its_own(places, monkeypatch):
    prompts, folder = places / "prompts.txt", places / "folder"
    prompts.write_text("a red cube")
    folder.mkdir()
    (folder / "a.bin").write_bytes(b"1")
    plain = Settings(profile="quick")
    settings = Settings(profile="quick", extra={"prompts": str(prompts)})
    real = Settings(profile="quick", dataset="fashion_mnist")
    monkeypatch.setenv("DISTILL_FOLDER", str(folder))
    seen = {s.place for s in (plain, settings, real, Settings(profile="quick", extra={"teacher": str(folder)}))}
    seen |= {Settings(profile="quick", extra={"ws": [w]}).place for w in (0.5, 2.0)}
    assert plain.place == "quick" and len(seen) == 6
    assert Settings(profile="quick", seed=3, extra={"ws": [0.5]}).place in seen  # a seed is no other experiment
    prompts.write_text("a blue cube")  # the same path with other bytes
    (folder / "a.bin").write_bytes(b"22")
    assert {settings.place, real.place}.isdisjoint(seen)
    monkeypatch.setenv("PRECISION", "fp32")
    assert plain.place != "quick"


def test_tables_of_settings_of_ones_own_never_share_a_folder():
    assert own_folder(ws=[], steps=[]) == ""
    assert len({own_folder(ws=[0.5], steps=[]), own_folder(ws=[2.0], steps=[]), own_folder(ws=[], steps=[4])}) == 3


def test_places_are_absolute_for_every_process(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("DISTILL_RUNS", "scratch")
    monkeypatch.setenv("DISTILL_FIGURES", "~/out")
    settle()
    monkeypatch.chdir("/")
    assert os.environ["DISTILL_RUNS"] == str(tmp_path / "scratch")
    assert figures_folder("quick") == tmp_path / "home" / "out" / "quick"


def stamped(places, seed=0):
    """An executed notebook with its stamp, and the file of rows that it wrote."""
    out = executed_path(Settings(profile="smoke"), "00_start_here", seed)
    out.parent.mkdir(parents=True)
    out.write_text("{}")
    rows = places / "g-x.json"
    rows.write_text(json.dumps({"rows": [{"seed": seed, "value": 1.0}]}))
    (places / "g-x.png").write_bytes(b"picture")
    write_stamp(out, "code", seed, [rows, places / "g-x.png"])
    return out, rows


def test_a_notebook_is_stale_by_content_and_not_by_time(places, monkeypatch):
    out, rows = stamped(places)
    future = time.time() + 10_800
    for path in (out, rows, ROOT / "requirements.lock"):
        before = path.stat()
        os.utime(path, (future, future))
        assert not is_stale(out, "code", 0)
        os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert is_stale(out, "other code", 0)
    rows.write_text(json.dumps({"rows": [{"seed": 0, "value": 1.0}, {"seed": 1, "value": 2.0}]}))
    assert is_stale(out, "code", 0)  # the published notebook shows the rows of all seeds
    monkeypatch.setenv("DISTILL_FIGURES", str(places / "elsewhere"))
    assert is_stale(out, "code", 0)


@pytest.mark.parametrize("garbage", ["", "[]", '{"rows": 3}', '{"rows": [1]}', '{"rows": null}', "{"])
@pytest.mark.parametrize("damaged", ["g-x.json", "g-x.png", "out", "stamp"])
def test_a_notebook_is_stale_where_one_of_its_files_is_damaged(places, damaged, garbage):
    out, _ = stamped(places)
    path = {"out": out, "stamp": out.with_name(".00_start_here.json")}.get(damaged, places / damaged)
    path.write_text(garbage)
    assert is_stale(out, "code", 0)


def test_a_notebook_of_another_seed_is_stale_where_its_own_rows_changed(places):
    out, rows = stamped(places, seed=1)
    (places / "g-x.png").write_bytes(b"drawn by another seed")
    rows.write_text(json.dumps({"rows": [{"seed": 0, "value": 3.0}, {"seed": 1, "value": 1.0}]}))
    assert not is_stale(out, "code", 1)
    rows.write_text(json.dumps({"rows": [{"seed": 0, "value": 3.0}, {"seed": 1, "value": 1.5}]}))
    assert is_stale(out, "code", 1)


@pytest.mark.parametrize("lost", ["g-x.json", "g-x.png"])
def test_a_notebook_is_stale_without_a_file_or_without_rows_of_its_seed(places, lost):
    out, rows = stamped(places, seed=1)
    assert not is_stale(out, "code", 1)
    (places / lost).unlink()
    assert is_stale(out, "code", 1)
    rows.write_text(json.dumps({"rows": [{"seed": 0, "value": 3.0}]}))
    assert is_stale(out, "code", 1)


def test_the_digest_of_a_notebook_takes_in_cells_and_library_but_no_outputs(tmp_path, monkeypatch):
    before = digest("00_start_here", "smoke")
    assert before != digest("00_start_here", "quick") and before != digest("01_guided_teacher", "smoke")
    changed = nbformat.from_dict(notebooks.read("00_start_here"))
    for cell in notebooks.code_cells(changed):
        cell.outputs = []
    for source, same in (("", True), ("# more", False)):
        changed.cells[0].source += source
        monkeypatch.setattr("distill_lib.run.stale.read", lambda _: changed)
        assert (digest("00_start_here", "smoke") == before) is same


def broken(name, tmp_path, change):
    """A copy of a notebook in a folder of its own, after `change` of its text."""
    text = (ROOT / "notebooks" / f"{name}.ipynb").read_text()
    (tmp_path / f"{name}.ipynb").write_text(change(text))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda text: text[: len(text) // 2], "is no readable notebook"),
        (lambda text: "<<<<<<< HEAD\n" + text, "holds the markers of an unfinished merge"),
        (lambda text: text.replace('"parameters"', '"settings"'), "has 0 code cells with the tag `parameters`"),
        (lambda text: "[]", "is no readable notebook"),
        (lambda text: text.replace("seed = 0", "seed = int(0)"), "should be lines like `seed = 0`"),
    ],
)
def test_a_notebook_that_was_damaged_elsewhere_is_named(tmp_path, monkeypatch, change, message):
    broken("00_start_here", tmp_path, change)
    monkeypatch.setattr(notebooks, "NOTEBOOKS", tmp_path)
    notebooks.read.cache_clear()
    with pytest.raises(ValueError, match=r"notebooks/00_start_here\.ipynb") as error:
        notebooks.parameters_of("00_start_here")
    assert message in str(error.value)
    notebooks.read.cache_clear()


def test_outputs_are_published_by_the_source_of_cells_whatever_an_editor_did_to_their_ids():
    notebook = nbformat.from_dict(notebooks.read("00_start_here"))
    executed = nbformat.from_dict(notebook)
    injected = nbformat.v4.new_code_cell("seed = 0", metadata={"tags": ["injected-parameters"]})
    executed.cells.insert(2, injected)
    stream = [nbformat.v4.new_output("stream", name=name, text="x") for name in ("stdout", "stderr")]
    notebooks.code_cells(executed)[3].outputs = stream
    for cell in notebook.cells:
        cell.pop("id", None)  # as Colab saves it
    result = publishing.with_outputs(notebook, executed)
    assert [output.name for output in notebooks.code_cells(result)[3].outputs] == ["stdout"]
    notebooks.code_cells(executed)[3].source += "\n# edited"
    assert publishing.with_outputs(notebook, executed) is None


def test_a_run_with_settings_of_its_own_is_never_published(places, monkeypatch, capsys):
    monkeypatch.setattr(notebooks, "NOTEBOOKS", places)
    monkeypatch.setattr(notebooks, "names", lambda: ["07_text_to_image_in_few_steps"])
    monkeypatch.setattr(publishing, "renew_all", lambda: None)
    out = executed_path(Settings(profile="laptop", extra={"teacher": "other"}), "07_text_to_image_in_few_steps", 0)
    out.parent.mkdir(parents=True)
    out.write_text((ROOT / "notebooks" / "07_text_to_image_in_few_steps.ipynb").read_text())
    publishing.publish("laptop")
    assert "no run at laptop" in capsys.readouterr().out


def test_rows_that_moved_vanished_or_came_are_told():
    row = {"method": "ours-D", "steps": 4, "w": 1.0, "metric": "fid", "seed": 0, "n": 64, "value": 10.0}
    assert differences("g-x", [row], [row | {"value": 10.9}]) == []  # a tenth is FID's tolerance
    (moved,) = differences("g-x", [row], [row | {"value": 11.1}])
    assert "was 10, is 11.1" in moved
    lines = differences("g-x", [row], [row | {"n": 128}])  # another size is another measurement
    assert sorted(line.rsplit(maxsplit=1)[1] for line in lines) == ["gone", "new"]


def test_a_second_caller_is_told_that_the_first_is_running(places):
    with exclusive(), pytest.raises(ValueError, match="another `make figures` is running"), exclusive():
        pass


def test_copies_and_drafts_are_no_notebooks_and_lines_of_ipython_are_read_over(tmp_path, monkeypatch):
    for name in ("00_start_here", "00_start_here (1)", "Untitled", "00_start_here;touch pwned;", "01_x"):
        (tmp_path / f"{name}.ipynb").write_text("{}")
    monkeypatch.setattr(notebooks, "NOTEBOOKS", tmp_path)
    assert notebooks.names() == ["00_start_here", "01_x"]
    cells = [
        nbformat.v4.new_code_cell(c) for c in ("%matplotlib inline\n!ls\nimport distill_lib.paths", "%%bash\nls |")
    ]
    nbformat.write(nbformat.v4.new_notebook(cells=cells), tmp_path / "01_x.ipynb")
    assert [path.name for path in notebook_files(tmp_path / "01_x.ipynb")] == ["paths.py"]
    cells.append(nbformat.v4.new_code_cell("for"))
    nbformat.write(nbformat.v4.new_notebook(cells=cells), tmp_path / "01_x.ipynb")
    with pytest.raises(ValueError, match=r"notebooks/01_x\.ipynb: cell 3 is no Python"):
        notebook_files(tmp_path / "01_x.ipynb")


@pytest.mark.parametrize("garbage", ["", "[]", '{"rows": [1]}', '{"rows": 3}', "{"])
def test_a_damaged_file_of_rows_is_kept_aside_and_drawn_anew(tmp_path, monkeypatch, capsys, garbage):
    monkeypatch.setenv("DISTILL_FIGURES", str(tmp_path))
    recorder = Recorder("smoke", "none", [])
    recorder.rows("g-x", [{"seed": 0, "value": 1.0}])
    (tmp_path / "smoke" / "g-x.json").write_text(garbage)
    assert len(recorder.rows("g-x", [{"seed": 1, "value": 2.0}])) == 1
    assert (tmp_path / "smoke" / "g-x.broken").read_text() == garbage and "is damaged" in capsys.readouterr().err


def test_a_home_folder_that_is_not_there_is_named(places, monkeypatch, capsys):
    monkeypatch.setenv("DISTILL_RUNS", "~nobodyhere/x")
    assert "names a home folder that is not there" in refused(monkeypatch, capsys, "figures", "--profile", "smoke")


def test_rows_of_another_seed_are_kept_and_of_the_same_seed_replaced(tmp_path, monkeypatch):
    monkeypatch.setenv("DISTILL_FIGURES", str(tmp_path))
    recorder = Recorder("smoke", "none", [])
    recorder.rows("g-x", [{"seed": 0, "value": 1.0}, {"seed": 0, "value": 2.0}])
    recorder.rows("g-x", [{"seed": 1, "value": 3.0}])
    recorder.rows("g-x", [{"seed": 0, "value": 4.0}])
    assert [row["value"] for row in load_rows("smoke", "g-x")] == [4.0, 3.0]
    assert select(load_rows("smoke", "g-x"), seed=1) == [{"seed": 1, "value": 3.0}]

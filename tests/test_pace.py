"""What a run says: whole lines, which cell is running, how many minutes are left, and how much memory it took."""

import errno
import json
import re
import subprocess
import sys
import threading
import time

import nbformat
import pytest

from distill_lib.paths import ROOT
from distill_lib.report.pages.pace import pace_table
from distill_lib.run import pace, voice
from distill_lib.run.lanes import MEMORY, Lanes
from distill_lib.run.pace import Peak, Progress, expected, publish_pace, summary, whole_path
from distill_lib.run.stale import stamp_path
from distill_lib.run.voice import QUIET_SECONDS, Voice


class Clock:
    """A clock that is set by hand."""

    def __init__(self, monkeypatch, *modules):
        self.now = 1000.0
        for module in modules:
            monkeypatch.setattr(module.time, "monotonic", lambda: self.now)


def test_lines_go_out_whole_with_the_number_of_their_notebook(capsys):
    speaker = Voice("03_step_halving", 10)
    for text in ("half a li", "ne\nand ", "", "another\n\n", "loading:  10%\rloading: 100%\r\n", "no end yet"):
        speaker.write(text)
    assert capsys.readouterr().out == "03 | half a line\n03 | and another\n03 | loading: 100%\n"
    with speaker:
        pass
    assert capsys.readouterr().out == "03 | no end yet\n"


def test_lines_of_two_notebooks_do_not_mix(capfd):
    def talk(name):
        speaker = Voice(name, 1)
        for _ in range(200):
            speaker.write("a b ")
            speaker.write(f"c of {name}\n")

    threads = [threading.Thread(target=talk, args=(name,)) for name in ("01_x", "02_y")]
    [thread.start() for thread in threads]
    [thread.join() for thread in threads]
    assert sorted(capfd.readouterr().out.splitlines()) == ["01 | a b c of 01_x"] * 200 + ["02 | a b c of 02_y"] * 200


def test_a_quiet_notebook_says_which_cell_is_running_within_fifteen_seconds(monkeypatch, capsys):
    clock, cells = Clock(monkeypatch, voice), nbformat.v4
    speaker = Voice("01_guided_teacher", 7)
    injected = cells.new_code_cell("seed = 1", metadata={"tags": ["injected-parameters"]})
    for cell in (cells.new_code_cell("seed = 0"), injected, cells.new_markdown_cell("text\n\n## How hard?\n\nmore")):
        speaker.begins(cell, cell_index=0)
    speaker.begins(cells.new_code_cell("x = 1  # one\ny = 2"))
    clock.now += QUIET_SECONDS - 1
    speaker.look()
    assert capsys.readouterr().out == ""
    clock.now += 1
    speaker.look()
    speaker.look()
    assert capsys.readouterr().out == "01 | cell 2 of 7 (How hard?), 15 s so far\n"
    speaker.begins(cells.new_code_cell("x = 1\n# halve three worlds\nhalve()"))
    clock.now += 20
    speaker.look()
    assert capsys.readouterr().out == "01 | cell 3 of 7 (halve three worlds), 20 s so far\n"
    clock.now += 14
    speaker.write("news\n")
    clock.now += 14
    speaker.look()
    assert capsys.readouterr().out == "01 | news\n"


def test_the_peak_of_memory_holds_what_processes_below_had_at_the_most():
    peak, others, size = Peak(), Peak(), 150 * 2**20
    others.look()  # processes of the tests themselves
    code = f"x = bytearray({size})\nprint(1, flush=True)\ninput()"
    child = subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    child.stdout.readline()
    peak.look()
    assert size < peak._seen - others._seen < 4 * size
    child.communicate(b"\n")
    peak.look()
    assert peak.bytes >= peak._seen > size  # it does not fall again


def place(tmp_path, *names):
    return {name: tmp_path / f"{name}.ipynb" for name in names}


def stamp(out, **spent):
    stamp_path(out).write_text(json.dumps({"written": {}} | spent))


@pytest.fixture
def committed(tmp_path, monkeypatch):
    """Seconds of the repository: 100 for a, 60 for b, 40 for c."""
    path = tmp_path / "pace.json"
    seconds = {name: {"seconds": value, "memory": 2**30} for name, value in (("a", 100), ("b", 60), ("c", 40))}
    path.write_text(json.dumps({"quick": {"notebooks": seconds}}))
    monkeypatch.setattr(pace, "COMMITTED_PACE", path)
    return path


def test_seconds_are_those_of_the_last_run_here_or_else_of_the_repository(tmp_path, committed):
    outs = place(tmp_path, "a", "b", "new")
    stamp(outs["b"], seconds=7.5)
    assert expected(outs, "quick") == {"a": 100.0, "b": 7.5}
    assert expected(outs, "laptop") == {"b": 7.5}
    for damaged in ("", "[]", '{"quick": 3}', '{"quick": {"notebooks": {"a": 3}}}'):
        committed.write_text(damaged)
        assert expected(outs, "quick") == {"b": 7.5}


def test_minutes_left_are_of_what_is_left_over_the_lanes_scaled_by_what_this_machine_took(
    tmp_path, committed, monkeypatch, capsys
):
    clock, outs = Clock(monkeypatch, pace), place(tmp_path, "a", "b", "c")
    progress = Progress(outs, expected(outs, "quick"), Lanes(2, 1, 2))
    assert progress.left(clock.now) == 100  # a lane cannot be shorter than a
    clock.now += 30
    assert progress.left(clock.now) == pytest.approx((70 + 30 + 40) / 2)
    clock.now += 60
    stamp(outs["b"], seconds=120.0)  # twice as long as expected
    progress.look()
    assert progress.left(clock.now) == pytest.approx(max((110 + 80) / 2, 110))
    clock.now += 200
    stamp(outs["a"], seconds=200.0)
    stamp(outs["c"], seconds=80.0)
    progress.look()
    assert capsys.readouterr().out.splitlines() == [
        "3 notebooks, 2 at a time, 1 thread each, about 2 minutes left by the pace of another machine",
        "1 of 3 notebooks done, about 2 minutes left",
        "3 of 3 notebooks done",
    ]


def test_minutes_are_another_machines_until_a_notebook_has_ended_here(tmp_path, committed, monkeypatch, capsys):
    clock, outs = Clock(monkeypatch, pace), place(tmp_path, "a", "b", "c")
    progress = Progress(outs, expected(outs, "quick"), Lanes(1, 2, 2))
    clock.now += 61
    progress.look()
    stamp(outs["a"], seconds=50.0)
    progress.look()
    Progress(outs, expected(outs, "quick"), Lanes(1, 2, 2))  # the next run
    assert capsys.readouterr().out.splitlines() == [
        "3 notebooks, 2 threads each, about 3 minutes left by the pace of another machine",
        "0 of 3 notebooks done, about 2 minutes left by the pace of another machine",
        "1 of 3 notebooks done, about 1 minute left",
        "3 notebooks, 2 threads each, about 2 minutes left",
    ]


def test_minutes_that_nobody_has_measured_are_not_made_up(tmp_path, committed, monkeypatch, capsys):
    clock = Clock(monkeypatch, pace)
    progress = Progress(place(tmp_path, "a", "new"), {"a": 100.0}, Lanes(1, 2, 2))
    clock.now += 61
    progress.look()
    assert capsys.readouterr().out.splitlines() == [
        "2 notebooks, 2 threads each; how long the others take has not been measured",
        "0 of 2 notebooks done; how long the others take has not been measured",
    ]
    progress.look()
    assert capsys.readouterr().out == ""  # once a minute will do


def test_the_summary_names_notebooks_above_the_limit(tmp_path):
    outs = place(tmp_path, "a", "b", "c")
    assert summary(outs) == ""
    stamp(outs["a"], memory=MEMORY // 2)
    assert summary(outs) == "memory: at most 2.0 GB a notebook (a), below 4 GB"
    stamp(outs["c"], memory=MEMORY + 2**29)
    assert summary(outs) == "memory: at most 4.5 GB a notebook (c); above 4 GB: c"


def test_a_whole_run_is_published_for_others_and_the_page_shows_it(tmp_path, committed, monkeypatch, capsys):
    monkeypatch.setenv("DISTILL_RUNS", str(tmp_path / "runs"))
    monkeypatch.setattr(pace, "ROOT", tmp_path)
    with pytest.raises(ValueError, match="no run of PROFILE=smoke drew all notebooks in one go"):
        publish_pace("smoke")
    outs = place(tmp_path, "00_x", "01_y")
    progress = Progress(outs, {}, Lanes(2, 1, 2))
    stamp(outs["00_x"], seconds=30.0, memory=2**30)
    stamp(outs["01_y"], seconds=90.0, memory=3 * 2**29)
    whole_path("smoke").parent.mkdir(parents=True)
    pace.keep_whole("smoke", progress)
    before = json.loads(committed.read_text())
    publish_pace("smoke")
    assert "pace.json: smoke" in capsys.readouterr().out
    result = json.loads(committed.read_text())
    assert result["quick"] == before["quick"]
    assert result["smoke"]["notebooks"] == {
        "00_x": {"seconds": 30.0, "memory": 2**30},
        "01_y": {"seconds": 90.0, "memory": 3 * 2**29},
    }
    assert (result["smoke"]["at_once"], result["smoke"]["threads"]) == (2, 1)
    assert result["smoke"]["day"] == time.strftime("%Y-%m-%d")
    figures = tmp_path / "figures"
    (figures / "laptop").mkdir(parents=True)
    assert pace_table(figures) == "Not measured yet: `make figures`, then `make pace`."
    (figures / "laptop" / "pace.json").write_text(json.dumps({"smoke": result["smoke"] | {"seconds": 75, "cores": 2}}))
    table = pace_table(figures)
    assert "| `smoke` | 1.2 | 2 | 2 of 1 thread | 1.5 |" in table
    assert re.search(r"`smoke`: 00 0\.5, 01 1\.5", table)


def test_a_full_disk_leaves_the_pace_that_was_there(tmp_path, committed, monkeypatch):
    monkeypatch.setenv("DISTILL_RUNS", str(tmp_path / "runs"))
    whole_path("smoke").parent.mkdir(parents=True)
    whole_path("smoke").write_text("{}")
    before = committed.read_text()

    def full(number):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("distill_lib.engine.files.os.fsync", full)
    with pytest.raises(ValueError, match=r"cannot write .*pace\.json: no space left on its disk"):
        publish_pace("smoke")
    assert committed.read_text() == before and list(tmp_path.glob(".*")) == []


def test_stopped_seconds_of_readme_are_not_typed():
    """The table of profiles holds no minutes of quick; the generated one does."""
    text = (ROOT / "README.md").read_text()
    before = text.partition("<!-- begin:pace -->")[0].partition("| profile | for |")[2]
    assert not re.search(r"\d+ minutes", before)

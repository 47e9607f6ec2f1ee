"""The commands: what they refuse, and that a second `make figures` has nothing to do."""

import json
import os
import subprocess
import sys
import time

import pytest

from distill_lib import run
from distill_lib.artefacts import Recorder, load_rows, select
from distill_lib.reach import ROOT


def command(tmp_path, *arguments):
    environment = os.environ | {"DISTILL_FIGURES": str(tmp_path / "figures"), "DISTILL_RUNS": str(tmp_path / "runs")}
    environment.pop("DISTILL_PROFILE", None)
    start = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-m", "distill_lib.run", *arguments],
        cwd=ROOT, env=environment, capture_output=True, text=True, check=False,
    )  # fmt: skip
    return done, time.monotonic() - start


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--profile", "quik"], "PROFILE=quik is unknown; choose one of laptop, quick, smoke"),
        (["--id", "g-fig99"], "ID=g-fig99 is unknown; choose one of g-"),
        (["--id", "g-start", "--set", "width=3"], "00_start_here has no parameter 'width'; it has profile, seed"),
    ],
)
def test_bad_input_ends_in_one_sentence_and_writes_nothing(tmp_path, arguments, said):
    done, _ = command(tmp_path, "figures", *arguments)
    assert done.returncode == 1
    assert said in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
    assert not list(tmp_path.rglob("*.json"))


def test_an_unwritable_figures_folder_is_named_before_anything_runs(tmp_path):
    (tmp_path / "figures").write_text("a file where the folder should be")
    done, _ = command(tmp_path, "figures", "--profile", "smoke", "--id", "g-start")
    assert done.returncode == 1
    assert "cannot write to" in done.stderr and "DISTILL_FIGURES" in done.stderr


@pytest.mark.notebook
def test_figures_are_drawn_once_and_again_when_a_figure_is_missing(tmp_path):
    wanted = ("figures", "--profile", "smoke", "--id", "g-start")
    done, _ = command(tmp_path, *wanted)
    assert done.returncode == 0, done.stderr[-2000:]
    result = tmp_path / "figures" / "smoke" / "g-start.json"
    record = json.loads(result.read_text())
    assert record["paper"] == "guided" and record["profile"] == "smoke" and record["rows"]
    assert (tmp_path / "figures" / "smoke" / "claims.json").exists()

    stamp = result.stat().st_mtime_ns
    done, seconds = command(tmp_path, *wanted)
    assert done.returncode == 0 and result.stat().st_mtime_ns == stamp
    assert seconds < 10 * (1 + os.getloadavg()[0])  # 10 s on an idle machine is the promise

    result.unlink()
    done, _ = command(tmp_path, *wanted)
    assert done.returncode == 0 and result.exists()


def test_a_second_caller_is_told_that_the_first_is_running(tmp_path, monkeypatch):
    monkeypatch.setattr(run, "_RUNS", tmp_path)
    with run._alone(), pytest.raises(ValueError, match="another `make figures` is running"), run._alone():
        pass


def test_rows_of_another_seed_are_kept_and_of_the_same_seed_replaced(tmp_path, monkeypatch):
    monkeypatch.setenv("DISTILL_FIGURES", str(tmp_path))
    recorder = Recorder("smoke", "none", [])
    recorder.rows("g-x", [{"seed": 0, "value": 1.0}, {"seed": 0, "value": 2.0}])
    recorder.rows("g-x", [{"seed": 1, "value": 3.0}])
    recorder.rows("g-x", [{"seed": 0, "value": 4.0}])
    assert [row["value"] for row in load_rows("smoke", "g-x")] == [4.0, 3.0]
    assert select(load_rows("smoke", "g-x"), seed=1) == [{"seed": 1, "value": 3.0}]

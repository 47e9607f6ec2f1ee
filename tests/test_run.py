"""The commands: what they refuse, and that a second `make figures` has nothing to do."""

import json
import os
import signal
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
        (["--profile", "quik"], "PROFILE=quik is unknown; choose one of gpu, laptop, paper, quick, smoke"),
        (["--id", "g-fig99"], "ID=g-fig99 is unknown; choose one of g-"),
        (["--id", "g-start", "--set", "width=3"], "00_start_here has no parameter 'width'; it has profile, seed"),
        (["--dataset", "mnist"], "DATASET=mnist is unknown; choose one of fashion_mnist"),
        (["--dataset", "fashion_mnist"], "DATASET=fashion_mnist needs FOLDER=, the folder of its files; '' is not"),
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

    done, _ = command(tmp_path, *wanted, "--seed", "1")
    stamp = result.stat().st_mtime_ns
    assert {row["seed"] for row in json.loads(result.read_text())["rows"]} == {0, 1}
    done, _ = command(tmp_path, *wanted, "--seed", "1")
    assert done.returncode == 0 and result.stat().st_mtime_ns == stamp
    # the notebook that is published is that of seed 0: it shows the rows of the others when it is asked for again
    done, _ = command(tmp_path, *wanted)
    later = result.stat().st_mtime_ns
    assert done.returncode == 0 and later > stamp
    done, _ = command(tmp_path, *wanted)
    assert done.returncode == 0 and result.stat().st_mtime_ns == later


def weights_of_last_toy_student(runs):
    (done,) = runs.glob("toy-1-*/done")
    return done.read_text(), (done.parent / "weights.safetensors").read_bytes()


@pytest.mark.notebook
def test_killed_in_the_middle_and_run_again_it_ends_with_the_same_weights_bit_for_bit(tmp_path):
    wanted = ("figures", "--profile", "smoke", "--id", "g-start")
    straight, killed = tmp_path / "straight", tmp_path / "killed"
    done, _ = command(straight, *wanted)
    assert done.returncode == 0, done.stderr[-2000:]

    for stage in ("toy-stage-one", "toy-8"):
        environment = os.environ | {"DISTILL_FIGURES": str(killed / "figures"), "DISTILL_RUNS": str(killed / "runs")}
        environment.pop("DISTILL_PROFILE", None)
        running = subprocess.Popen(
            [sys.executable, "-m", "distill_lib.run", *wanted],
            cwd=ROOT, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True,
        )  # fmt: skip
        while not list((killed / "runs").glob(f"{stage}-*/state/state.safetensors")):  # in the midst of a training
            assert running.poll() is None, "it ended before it could be killed"
            time.sleep(0.02)  # leave the processor to what is to be killed
        os.killpg(running.pid, signal.SIGKILL)
        running.wait()
        assert not list((killed / "runs").glob("toy-1-*/done"))

    done, _ = command(killed, *wanted)
    assert done.returncode == 0, done.stderr[-2000:]
    assert weights_of_last_toy_student(killed / "runs") == weights_of_last_toy_student(straight / "runs")


def test_bad_strengths_end_in_the_sentence_of_the_notebook(tmp_path):
    wanted = ("notebook", "03_step_halving", str(tmp_path / "out.ipynb"), "--profile", "smoke")
    for setting, said in (("ws=[9.0]", "w=9.0 lies outside [0, 4.0]"), ("ws=[a]", "w='a' is not a number")):
        done, _ = command(tmp_path, *wanted, "--set", setting)
        assert done.returncode == 1
        assert done.stderr.splitlines()[-1].startswith("error: 03_step_halving: ") and said in done.stderr
        assert "Traceback" not in done.stderr


def test_rows_that_moved_vanished_or_came_are_told():
    row = {"method": "ours-D", "steps": 4, "w": 1.0, "metric": "fid", "seed": 0, "n": 64, "value": 10.0}
    assert run.differences("g-x", [row], [row | {"value": 10.9}]) == []  # a tenth is FID's tolerance
    (moved,) = run.differences("g-x", [row], [row | {"value": 11.1}])
    assert "was 10, is 11.1" in moved
    told = run.differences("g-x", [row], [row | {"n": 128}])  # another size is another measurement
    assert sorted(line.rsplit(maxsplit=1)[1] for line in told) == ["gone", "new"]


@pytest.mark.parametrize("lost", ["json", "csv", "png", "svg"])
def test_an_artefact_is_complete_with_its_files_and_the_rows_of_its_seed(tmp_path, lost):
    for suffix in ("json", "csv", "png", "svg"):
        (tmp_path / f"g-x.{suffix}").write_text(json.dumps({"rows": [{"seed": 0, "value": 1.0}]}))
    assert run._complete(tmp_path, "g-x", 0)
    assert not run._complete(tmp_path, "g-x", 1)
    (tmp_path / f"g-x.{lost}").unlink()
    assert not run._complete(tmp_path, "g-x", 0)


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

"""Notebooks side by side: how many, in which order, and that no other runs while one measures time."""

import fcntl
import json
import os
import signal
import subprocess
import sys
import threading
from contextlib import contextmanager
from types import SimpleNamespace

import psutil
import pytest
import torch
from torch import nn

from distill_lib.diffusion.noise import normal
from distill_lib.engine import measuring, store
from distill_lib.engine.files import locked, save_tensors
from distill_lib.engine.loop import finish
from distill_lib.engine.measuring import lock_paths, measuring_time, others_go_on
from distill_lib.engine.store import cached
from distill_lib.paths import CORES, ROOT
from distill_lib.report import record
from distill_lib.run import notebooks
from distill_lib.run.jobs import planned
from distill_lib.run.lanes import MEMORY, Lanes, in_order, lanes
from distill_lib.run.processes import _end
from distill_lib.run.stale import judges
from distill_lib.run.turns import GivingWay

ENDLESS = "import time\nwhile True: time.sleep(0.01)"


@pytest.mark.parametrize(
    ("arguments", "count", "threads", "timed"),
    [
        ({"cores": 1}, 1, 1, 1),
        ({"cores": 2}, 2, 1, 2),
        ({"cores": 4}, 4, 1, 4),
        ({"cores": 8}, 4, 2, 8),
        ({"cores": 64}, 4, 16, 64),
        ({"cores": 8, "jobs": 1}, 1, 8, 8),  # one notebook has all of it
        ({"cores": 8, "jobs": 3}, 3, 2, 8),
        ({"cores": 8, "serial": True}, 1, 8, 8),
        ({"cores": 8, "memory": 2 * MEMORY}, 2, 4, 8),
        ({"cores": 2, "memory": MEMORY // 2}, 1, 2, 2),
        ({"cores": 8, "given": "3"}, 2, 3, 3),  # what the user has set wins, for what is timed too
        ({"cores": 2, "given": "1"}, 2, 1, 1),
        ({"cores": 2, "given": "16"}, 1, 2, 2),
        ({"cores": 4, "given": "2,1"}, 2, 2, 2),
        ({"cores": 2, "given": "many"}, 2, 1, 2),
        ({"cores": 2, "given": "0"}, 2, 1, 2),
    ],
)
def test_lanes_fill_the_cores_and_no_more(arguments, count, threads, timed):
    result = lanes(**{"jobs": 17} | arguments)
    assert result == Lanes(count, threads, timed)
    assert result.count * result.threads <= arguments["cores"]
    assert result.environment == ({CORES: str(timed)} if count > 1 else {})


def test_the_first_notebook_begins_then_the_longest_and_what_judges_is_last():
    seconds = {"00_a": 1.0, "01_b": 30.0, "02_c": 90.0, "15_z": 500.0}
    assert in_order(seconds, seconds, ["15_z"]) == ["00_a", "02_c", "01_b", "15_z"]
    assert in_order([*seconds, "03_new"], seconds) == ["00_a", "03_new", "15_z", "02_c", "01_b"]


def test_one_notebook_reads_the_rows_of_others_and_comes_after_all_of_them():
    names = notebooks.names()
    assert [name for name in names if judges(name)] == ["15_claims"]
    jobs = {job["name"]: job for job in planned({name: f"{name}.ipynb" for name in reversed(names)})}
    assert set(jobs.pop("15_claims")["after"]) == {f"{name}.ipynb" for name in jobs}
    assert all(job["after"] == [] for job in jobs.values())
    priorities = [job["priority"] for job in jobs.values()]
    assert priorities == sorted(priorities, reverse=True)
    assert planned({"15_claims": "x"})[0]["after"] == []  # asked for alone it draws nothing else


def test_no_cell_reads_rows_of_another_notebook():
    """What a cell takes from the repository is its own artefact, or one that no notebook writes."""
    for name in notebooks.names():
        for cell in notebooks.code_cells(notebooks.read(name)):
            assert "load_rows" not in cell.source and "read_rows" not in cell.source
            if "lab.committed(artefact)" in cell.source:
                assert '("s-tab1-true", "s-tab2")' in cell.source  # of `make true-scale`
            elif "lab.committed(" in cell.source:
                committed = cell.source.partition('lab.committed("')[2].partition('"')[0]
                assert committed in notebooks.artefacts_of(name)


@pytest.fixture
def side_by_side(tmp_path, monkeypatch):
    """The environment of a notebook beside which another one may run, here one thread for what is timed."""
    monkeypatch.setenv("DISTILL_RUNS", str(tmp_path / "runs"))
    monkeypatch.setenv(CORES, "1")
    (tmp_path / "runs").mkdir()
    return tmp_path / "runs"


@contextmanager
def child(code):
    """A process below this one, as a kernel is."""
    running = subprocess.Popen(
        [sys.executable, "-c", code], env=os.environ | {"PYTHONPATH": str(ROOT)}, stdout=subprocess.PIPE, text=True
    )
    try:
        yield running
    finally:
        running.send_signal(signal.SIGCONT)
        running.kill()
        running.communicate()


def stopped(process):
    return psutil.Process(process.pid).status() == psutil.STATUS_STOPPED


def settled(condition):
    """Whether a condition comes to hold within seconds."""
    deadline = threading.Event()
    return any(condition() or deadline.wait(0.02) for _ in range(500))


def test_a_notebook_is_stopped_while_another_one_measures_and_goes_on_afterwards(side_by_side):
    lines = []
    with child(ENDLESS) as kernel, GivingWay(lines.append):
        with measuring_time():
            assert settled(lambda: stopped(kernel))
            with measuring_time():  # a measurement within a measurement
                assert stopped(kernel)
            with others_go_on():
                assert settled(lambda: not stopped(kernel))
            assert settled(lambda: stopped(kernel))
        assert settled(lambda: not stopped(kernel))
        with pytest.raises(ZeroDivisionError), measuring_time():
            _ = 1 / 0
        assert settled(lambda: not stopped(kernel))
    assert lines and set(lines) == {"waits, since another notebook measures time"}
    assert not measuring._held


MEASURES = f"""
from distill_lib.engine.measuring import _take, lock_paths
files = [path.open("a+") for path in lock_paths()]
_take(*files)
print("measures", flush=True)
{ENDLESS}
"""


def test_a_notebook_is_not_stopped_by_its_own_measurement_nor_by_what_a_killed_one_has_left(side_by_side):
    lock_paths()[0].write_text("4194305")  # the number of no process
    with GivingWay(lambda message: pytest.fail(message)) as runner, child(MEASURES) as kernel:
        assert kernel.stdout.readline() == "measures\n"
        runner.look()
        assert not stopped(kernel)
        kernel.kill()
        kernel.wait()
        assert settled(lambda: runner._held)  # the locks fell with it


def test_what_is_timed_has_all_threads_and_others_have_theirs_back(side_by_side, monkeypatch):
    monkeypatch.setenv(CORES, "3")
    before = torch.get_num_threads()
    with measuring_time():
        assert torch.get_num_threads() == 3
    assert torch.get_num_threads() == before
    monkeypatch.delenv(CORES)
    with measuring_time():
        assert torch.get_num_threads() == before and not measuring._held


def test_a_runner_that_begins_during_a_measurement_waits_for_its_end(side_by_side):
    began = threading.Event()

    def run():
        with GivingWay(print):
            began.set()

    with measuring_time():
        thread = threading.Thread(target=run)
        thread.start()
        assert not began.wait(0.1)
    thread.join(10)
    assert began.is_set()


def test_a_process_that_is_stopped_hears_that_it_should_end():
    """As a training does, which then saves its state."""
    handler = "import os, signal\ndef end(*_): print('state kept', flush=True); os._exit(0)"
    ready = "signal.signal(signal.SIGTERM, end)\nprint('ready', flush=True)"
    with child(f"{handler}\n{ready}\n{ENDLESS}") as process:
        assert process.stdout.readline() == "ready\n"
        psutil.Process(process.pid).suspend()
        _end([psutil.Process(process.pid)], 4.0)
        assert process.stdout.read() == "state kept\n"


# ------------------------------------------------------------------------------------------------ shared results


@contextmanager
def held(path):
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def waiting(work, path, meanwhile):
    """Do work in another thread while a lock is held, and `meanwhile` once it is said that it waits."""
    failed = []

    def run():
        try:
            work()
        except BaseException as error:
            failed.append(error)

    thread = threading.Thread(target=run)
    with held(path):
        thread.start()
        meanwhile()
    thread.join(20)
    assert not thread.is_alive() and not failed, failed


def test_who_waits_for_a_lock_says_so_once_and_who_does_not_says_nothing(tmp_path, capsys):
    with locked(tmp_path / "lock", "waiting for it"):
        pass
    assert capsys.readouterr().err == ""
    heard = []

    def work():
        with locked(tmp_path / "lock", "waiting for it"):
            heard.append("in")

    def meanwhile():
        assert settled(lambda: heard.append(capsys.readouterr().err) or "waiting" in heard[-1])
        assert "in" not in heard

    waiting(work, tmp_path / "lock", meanwhile)
    assert heard[-1] == "in" and "".join(heard[:-1]) == "waiting for it\n"


def test_of_two_that_need_one_training_the_second_waits_and_reads(runs, capsys):
    run = store.Run("shared", {}, normal)
    net = SimpleNamespace(module=nn.Linear(2, 2))

    def training():
        pytest.fail("it was trained a second time")
        yield

    wanted = {"weight": torch.full((2, 2), 3.0), "bias": torch.zeros(2)}
    heard = []

    def meanwhile():
        assert settled(lambda: heard.append(capsys.readouterr().err) or f"{run.key} is being trained by" in heard[-1])
        run.finish(wanted)

    waiting(lambda: finish(net, training(), run, "shared"), run.folder / "training.lock", meanwhile)
    assert torch.equal(net.module.weight, wanted["weight"])


def test_rows_of_two_seeds_that_are_written_at_once_are_all_kept(tmp_path, monkeypatch):
    monkeypatch.setenv("DISTILL_FIGURES", str(tmp_path))
    rows = [{"metric": "fid", "seed": seed, "value": 1.0} for seed in (0, 1)]
    locks, path = [], tmp_path / "smoke" / "g-x.json"
    monkeypatch.setattr(record, "locked", lambda lock: locks.append(lock) or locked(lock))

    def meanwhile():
        assert settled(lambda: locks)
        path.write_text(json.dumps({"artefact": "g-x", "dataset": "textured", "rows": rows[1:]}))

    waiting(lambda: record.Recorder("smoke", "textured", []).rows("g-x", rows[:1]), tmp_path / ".rows.lock", meanwhile)
    assert json.loads(path.read_text())["rows"] == rows


def test_of_processes_of_one_launch_only_the_first_waits_for_another_training(runs, monkeypatch):
    monkeypatch.setenv("RANK", "1")
    run = store.Run("shared", {}, normal)
    with held(run.folder / "training.lock"), run.training_lock():
        pass


def test_of_two_that_need_one_set_of_pictures_the_second_reads_what_the_first_made(runs, capsys):
    result, heard = [], []
    cached("set", {"a": 1}, lambda: {"x": torch.zeros(3)}, normal)
    (path,) = (runs / "cache").glob("set-*.safetensors")
    path.unlink()

    def meanwhile():
        assert settled(lambda: heard.append(capsys.readouterr().err) or "is being made by another process" in heard[-1])
        save_tensors(path, {"x": torch.arange(3)})

    def work():
        result.append(cached("set", {"a": 1}, lambda: pytest.fail("made again"), normal))

    waiting(work, path.with_suffix(".lock"), meanwhile)
    assert torch.equal(result[0]["x"], torch.arange(3))


@pytest.mark.slow
def test_a_plan_is_what_the_snakefile_reads(tmp_path):
    """Snakemake itself draws the jobs of a plan in their order, and what judges after the others."""
    notes = tmp_path / "notes"
    names = ["02_c", "00_a", "15_z"]
    jobs = [
        {"name": n, "output": f"out/seed{{seed}}/{n}.ipynb", "priority": 3 - i, "after": []}
        for i, n in enumerate(names)
    ]
    jobs[2]["after"] = [job["output"] for job in jobs[:2]]
    (tmp_path / "plan.json").write_text(json.dumps({"parameters": {"seed": 4}, "threads": 2, "jobs": jobs}))
    script = tmp_path / "a python"
    script.write_text(f'#!/bin/sh\necho "$4 $9 $OMP_NUM_THREADS" >> "{notes}"\nmkdir -p out/seed4\necho > "$5"\n')
    script.chmod(0o755)
    environment = os.environ | {"DISTILL_PLAN": str(tmp_path / "plan.json"), "DISTILL_RUNS": str(tmp_path)}
    environment |= {"DISTILL_PYTHON": str(script)}
    command = [sys.executable, "-m", "snakemake", "--snakefile", "Snakefile", "--directory", str(tmp_path)]
    command += ["--cores", "2", "--scheduler", "greedy", "--nolock", "--quiet", "all"]
    command += ["--", *(f"out/seed4/{name}.ipynb" for name in names)]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert notes.read_text().splitlines() == [f"{name} 4 2" for name in names]

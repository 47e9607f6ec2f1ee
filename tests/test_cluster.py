"""Many processes and machines: what is refused, what Snakemake is asked for, a job that a real SLURM has killed."""

import json
import os
import re
import subprocess
import sys
import time
from importlib.util import find_spec
from pathlib import Path

import pytest
import slurm_here
import yaml

from distill_lib.engine.files import load_tensors
from distill_lib.paths import ROOT
from distill_lib.run import notebooks, together
from distill_lib.run.__main__ import main
from distill_lib.run.drawing import executed_path
from distill_lib.run.jobs import Place, planned
from distill_lib.run.lanes import Lanes
from distill_lib.run.settings import Settings
from distill_lib.run.stale import rows_of

PROFILE = ROOT / "docs" / "cluster" / "slurm"
PLUGIN = find_spec("snakemake_executor_plugin_slurm") is not None


@pytest.fixture
def places(tmp_path, monkeypatch):
    """Folders of runs and figures of this test alone."""
    for name in ("RUNS", "FIGURES"):
        monkeypatch.setenv(f"DISTILL_{name}", str(tmp_path / name.lower()))
    monkeypatch.setenv("DISTILL_OWNER", "")
    return tmp_path


def profile(folder, text):
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.yaml").write_text(text)
    return str(folder)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--processes", "0"], "PROCESSES=0 should be a whole number from 1 on"),
        (["--processes", "-1"], "PROCESSES=-1 should be a whole number from 1 on"),
        (["--processes", "four"], "PROCESSES=four should be a whole number from 1 on"),
        (["--processes", "3"], "PROCESSES=3 is more than the 2 cores of this machine; take 2 at most"),
        (["--seed", "0,two"], "SEED=0,two should be a whole number, or several with commas between"),
        (["--seed", "1,-2"], "SEED=-2 should be a whole number from 0 to"),
        (["--cluster", "{}/none"], "is no profile of Snakemake"),
        (["--cluster", "{}/list"], "names no executor, as in `executor: slurm`"),
        (["--cluster", "{}/torn"], "is no profile of Snakemake"),
        (["--cluster", "{}/other"], "needs snakemake-executor-plugin-no-such; install it"),
    ],
)
def test_bad_input_ends_in_one_sentence_and_writes_nothing(places, monkeypatch, capsys, arguments, message):
    monkeypatch.setattr("distill_lib.run.lanes.cores", lambda: 2)
    monkeypatch.setattr("distill_lib.run.lanes.gpus", lambda: 0)
    profile(places / "list", "[1, 2]")
    profile(places / "torn", "a: [")
    profile(places / "other", "executor: no-such")
    arguments = [part.replace("{}", str(places)) for part in arguments]
    monkeypatch.setattr(sys, "argv", ["run", "figures", "--profile", "smoke", "--id", "g-start", *arguments])
    with pytest.raises(SystemExit) as ended:
        main()
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert ended.value.code == 2 and message in line
    assert not (places / "figures").exists()


def test_as_many_processes_as_there_are_gpus_or_cores_are_taken(monkeypatch):
    for cores, gpus, room in ((2, 0, 2), (8, 4, 4)):
        monkeypatch.setattr("distill_lib.run.lanes.cores", lambda cores=cores: cores)
        monkeypatch.setattr("distill_lib.run.lanes.gpus", lambda gpus=gpus: gpus)
        together.check_room(room)
        with pytest.raises(ValueError, match=f"take {room} at most"):
            together.check_room(room + 1)


def plan(folder, seeds, names):
    """Of so many seeds and notebooks: the outputs by label, and Snakemake's plan."""
    settings = Settings(profile="smoke")
    outs = {f"{name} seed {seed}": executed_path(settings, name, seed) for seed in seeds for name in names}
    outputs = {label: str(out.relative_to(folder / "runs")) for label, out in outs.items()}
    return outputs, {"threads": 1, "jobs": planned(outputs), "parameters": {}}


def test_each_notebook_and_seed_is_a_job_and_what_judges_waits_for_all_of_them(places, monkeypatch):
    names = ["00_start_here", "03_step_halving", "15_claims"]
    outputs, jobs = plan(places, (0, 1), names)
    (places / "runs").mkdir()
    (places / "plan.json").write_text(json.dumps(jobs))
    monkeypatch.setenv("DISTILL_PLAN", str(places / "plan.json"))
    command = Place().command(list(outputs.values()), Lanes(1, 1, 1))
    command[command.index("--quiet") : command.index("--rerun-triggers")] = ["--dry-run"]
    text = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    drawn = re.findall(r"rule notebook_(\w+):\n(?:    input: (.+)\n)?    output: (.+)\n", text)
    assert sorted(output for _, _, output in drawn) == sorted(outputs.values())
    for name, read, output in drawn:
        assert f"/seed{[0, 1][f'{output}'.count('seed1')]}/{name}.ipynb" in output
        before = {path for label, path in outputs.items() if not label.startswith("15_claims")}
        assert set(read.split(", ")) - {""} == (before if name == "15_claims" else set())


def test_the_profile_of_slurm_names_options_and_rules_that_exist():
    given = yaml.safe_load((PROFILE / "config.yaml").read_text())
    from snakemake.cli import get_argument_parser

    known = {option for action in get_argument_parser()._actions for option in action.option_strings}
    unknown = {key for key in given if f"--{key}" not in known}
    assert all(key.startswith("slurm-") for key in unknown)  # those of the plugin
    if PLUGIN:
        from snakemake_executor_plugin_slurm import ExecutorSettings

        fields = {field.replace("_", "-") for field in ExecutorSettings.__dataclass_fields__}
        assert {key.removeprefix("slurm-") for key in unknown} <= fields
    assert given["executor"] == "slurm" and given["retries"] >= 1 and given["rerun-incomplete"] is True
    assert {"slurm_partition", "mem_mb", "runtime"} <= given["default-resources"].keys()


def test_every_notebook_that_measures_seconds_has_its_machine_alone():
    given = yaml.safe_load((PROFILE / "config.yaml").read_text())["set-resources"]
    timed = set()
    for name in notebooks.names():
        rows = [row for a in notebooks.artefacts_of(name) for row in rows_of(ROOT / "figures" / "laptop" / f"{a}.json")]
        if any(row.get("metric") in ("seconds", "training_seconds") for row in rows):
            timed.add(f"notebook_{name}")
    assert {rule for rule, of in given.items() if "--exclusive" in of["slurm_extra"]} == timed


def test_a_cluster_gives_each_process_a_thread_and_submits_what_its_profile_says(tmp_path, monkeypatch):
    monkeypatch.delenv("OMP_NUM_THREADS")
    folder = profile(tmp_path / "own", "executor: local\njobs: 5")
    assert Place(folder).lanes(3) == Lanes(3, 1, 1) and Place(folder).lanes(19) == Lanes(5, 1, 1)
    assert Place(folder, processes=4).lanes(19) == Lanes(5, 4, 4)
    command = Place(folder).command(["a"], Lanes(5, 1, 1))
    assert command[command.index("--profile") + 1] == folder and "--cores" not in command


def test_cells_are_run_with_their_parameters_and_leave_no_result(tmp_path, monkeypatch):
    monkeypatch.setenv("DISTILL_FIGURES", str(tmp_path / "figures"))
    for name in ("MPLBACKEND", "DISTILL_WRITTEN"):
        monkeypatch.setenv(name, "")
    body = f"""
from pathlib import Path
from distill_lib.paths import figures_folder
print("said")
(figures_folder("x").parent / "row").write_text("thrown away")
Path({str(tmp_path)!r}, "seen").write_text(f"{{seed}} {{profile}}")
"""
    cell = {"cell_type": "code", "metadata": {}, "outputs": [], "execution_count": None}
    settings = cell | {"metadata": {"tags": ["parameters"]}, "source": 'profile = "quick"\nseed = 0'}
    whole = {"cells": [settings, cell | {"source": body}], "metadata": {}, "nbformat": 4, "nbformat_minor": 4}
    (tmp_path / "00_own.ipynb").write_text(json.dumps(whole))
    monkeypatch.setattr(notebooks, "NOTEBOOKS", tmp_path)
    together.train("00_own", {"profile": "smoke", "seed": 3})
    assert (tmp_path / "seen").read_text() == "3 smoke"
    assert not (tmp_path / "figures").exists() and not Path(os.environ["DISTILL_FIGURES"]).exists()


def environment(folder, extra=()):
    """One thread and one precision, so that bits can be compared."""
    own = {"DISTILL_RUNS": str(folder / "runs"), "DISTILL_FIGURES": str(folder / "figures"), "PYTHONPATH": str(ROOT)}
    return os.environ | dict(extra) | own | {"OMP_NUM_THREADS": "1", "PRECISION": "fp32"}


def figures(*arguments):
    return [sys.executable, "-m", "distill_lib.run", "figures", "--profile", "smoke", "--id", "g-start", *arguments]


def results(folder):
    """The weights of all trainings by run, and the rows of all artefacts but those of seconds."""
    weights = {path.parent.name: load_tensors(path) for path in (folder / "runs").glob("*/weights.safetensors")}
    return weights, {path.name: rows_of(path) for path in (folder / "figures").rglob("g-*.json")}


@pytest.mark.slow
@pytest.mark.notebook
def test_two_processes_train_first_and_papermill_finds_all_of_it_finished(tmp_path):
    two = environment(tmp_path) | {"OMP_NUM_THREADS": "2", "ACCELERATE_USE_CPU": "true"}
    command = figures("--processes", "2")
    text = subprocess.run(command, cwd=ROOT, env=two, capture_output=True, text=True, check=True).stdout
    ended = [line.start() for line in re.finditer(r": step (\d+)/\1 ", text)]
    assert len(ended) == len(list((tmp_path / "runs").glob("*/weights.safetensors"))) > 1  # each was trained once
    assert text.index("in 2 processes of 1 thread") < ended[0] and ended[-1] < text.index("formula within")
    weights, rows = results(tmp_path)
    assert rows and all(tensor.isfinite().all() for tensors in weights.values() for tensor in tensors.values())


TRAINING = """
import sys
from pathlib import Path

import torch
from torch import nn

from distill_lib.diffusion.noise import normal
from distill_lib.engine import store
from distill_lib.engine.loop import Loop, TrainSettings, finish
from distill_lib.engine.trainable import Bare

torch.set_num_threads(1)
torch.manual_seed(0)
store.RUNS = Path(sys.argv[1])
net, run = Bare(nn.Linear(3, 3)), store.Run("slurm", {}, normal)


def training():
    loop = Loop(net, TrainSettings(steps=1500, batch_size=32, lr=1e-2, warmup=1, ema=0.9, checkpoint_seconds=0.05), run)
    for _, draws in loop:
        yield loop.update(net.forward(draws.normal("x", (3,))).square().mean(1))


finish(net, training(), run, "training")
"""


@pytest.mark.slow
@pytest.mark.skipif(bool(slurm_here.missing()), reason=slurm_here.missing() or "there is a SLURM")
def test_a_training_that_slurm_cancels_keeps_its_state_and_ends_with_the_bits_of_one_in_peace(tmp_path):
    script, own = tmp_path / "training.py", environment(tmp_path) | {"ACCELERATE_USE_CPU": "true"}
    script.write_text(TRAINING)
    subprocess.run([sys.executable, str(script), str(tmp_path / "here")], env=own, check=True, capture_output=True)
    with slurm_here.slurm() as commands:
        commands |= {name: own[name] for name in ("PYTHONPATH", "OMP_NUM_THREADS", "PRECISION", "ACCELERATE_USE_CPU")}
        work = f"srun -n1 '{sys.executable}' '{script}' '{tmp_path}/there'"
        options = ("--parsable", "--output", f"{tmp_path}/%j.log", "--wrap", work)
        job = slurm_here.answer(commands, "sbatch", *options).strip()
        log = tmp_path / f"{job}.log"
        while not list((tmp_path / "there").glob("*/state/state.safetensors")):
            assert slurm_here.answer(commands, "squeue", "-h", "-t", "PD,R", "-j", job), log.read_text()
            time.sleep(0.05)
        slurm_here.answer(commands, "scancel", job)
        slurm_here.answer(commands, "sbatch", "--wait", f"--dependency=afterany:{job}", *options)
        states = slurm_here.answer(commands, "squeue", "--states=all", "-h", "-o", "%T").split()
    assert sorted(states) == ["CANCELLED", "COMPLETED"]
    assert re.search(r"is stopped by SIGTERM after step \d+ of 1500; its state is kept", log.read_text())
    whole, resumed = ((tmp_path / place).glob("slurm-*/weights.safetensors") for place in ("here", "there"))
    assert next(whole).read_bytes() == next(resumed).read_bytes()


@pytest.mark.slow
@pytest.mark.notebook
@pytest.mark.skipif(bool(slurm_here.missing()), reason=slurm_here.missing() or "there is a SLURM")
@pytest.mark.skipif(not PLUGIN, reason="needs snakemake-executor-plugin-slurm, the extra `cluster`")
def test_a_job_that_slurm_kills_in_a_training_goes_on_and_ends_with_the_bits_of_a_local_run(tmp_path):
    subprocess.run(figures(), cwd=ROOT, env=environment(tmp_path / "here"), check=True, stdout=subprocess.DEVNULL)
    given = yaml.safe_load((PROFILE / "config.yaml").read_text())
    given["default-resources"] |= {"mem_mb": 3000, "runtime": 30}
    own, folder = profile(tmp_path / "own", yaml.safe_dump(given)), tmp_path / "there"
    with slurm_here.slurm() as commands:
        running = subprocess.Popen(figures("--cluster", own), cwd=ROOT, env=environment(folder, commands))
        while running.poll() is None and not list((folder / "runs").glob("*/state/state.safetensors")):
            time.sleep(0.02)
        assert running.poll() is None, "it ended before it could be killed"
        slurm_here.answer(
            commands, "scancel", "--name", slurm_here.answer(commands, "squeue", "-h", "-o", "%j").strip()
        )
        assert running.wait() == 0
        states = slurm_here.answer(commands, "squeue", "--states=all", "-h", "-o", "%T").split()
    assert sorted(states) == ["CANCELLED", "COMPLETED"]
    (weights, rows), (weights_there, rows_there) = results(tmp_path / "here"), results(folder)
    assert weights.keys() == weights_there.keys() and rows == rows_there and len(weights) > 1
    for run, tensors in weights.items():
        assert all(tensor.equal(weights_there[run][name]) for name, tensor in tensors.items()), run

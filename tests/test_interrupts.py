"""SIGTERM and SIGINT in a training: no update is lost, the handlers come back, and it goes on to the same bit."""

import os
import signal
import subprocess
import sys
import threading
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from distill_lib.diffusion.noise import normal
from distill_lib.engine import interrupts, store
from distill_lib.engine.files import load_tensors
from distill_lib.engine.interrupts import Watch
from distill_lib.engine.loop import Loop, TrainSettings, follow
from distill_lib.engine.trainable import Bare
from distill_lib.paths import ROOT

STEPS = 10
SIGNALS = (signal.SIGTERM, signal.SIGINT)


def network():
    torch.manual_seed(0)
    module = nn.Linear(3, 3)
    return SimpleNamespace(module=module, forward=module)


def run_named(name="run"):
    return store.Run("test", {"name": name}, normal)


def train(run, at=None, send=lambda: None):
    """Learn to negate noise; `send` is called in the midst of the step `at`."""
    net = network()
    loop = Loop(net, TrainSettings(steps=STEPS, batch_size=4, lr=1e-2, warmup=1, ema=0.5, bf16=False), run)
    for step, draws in loop:
        x = draws.normal("x", (3,))
        loss = (net.forward(x) + x).square().mean(1)
        if step == at:
            send()
        yield loop.update(loss)


def sent(number):
    return lambda: signal.raise_signal(number)


def handlers():
    return [signal.getsignal(number) for number in SIGNALS]


@pytest.fixture(autouse=True)
def restored():
    """Every test starts as in a terminal, where Ctrl-C raises, and leaves the handlers as they were.

    A shell that starts a command in the background has it ignore SIGINT.
    """
    of_shell = signal.signal(signal.SIGINT, signal.default_int_handler)
    before = handlers()
    yield
    assert handlers() == before
    signal.signal(signal.SIGINT, of_shell)
    assert not interrupts._watching and not interrupts._requests


@pytest.mark.parametrize(("number", "ends"), [(signal.SIGTERM, SystemExit), (signal.SIGINT, KeyboardInterrupt)])
def test_a_signal_in_a_step_waits_for_its_end_and_loses_no_update(number, ends, runs, capsys):
    run, straight, before, seen = run_named(), run_named("straight"), handlers(), []
    with pytest.raises(ends) as error:
        for progress in train(run, 4, sent(number)):
            seen.append(progress.step)
    assert handlers() == before
    assert getattr(error.value, "code", 143) == 143
    assert seen == [1, 2, 3, 4] and run.state()["step"] == 5  # the fifth was under way
    (line,) = capsys.readouterr().err.splitlines()
    assert line == f"{run.key} is stopped by {number.name} after step 5 of 10; its state is kept, run again to go on"
    assert [progress.step for progress in train(run)] == [6, 7, 8, 9, 10]
    list(train(straight))
    assert torch.equal(run.weights()["weight"], straight.weights()["weight"])


def test_a_signal_between_two_steps_is_obeyed_at_once(runs):
    run, training = run_named(), None
    training = train(run)
    for _ in range(3):
        next(training)
    with pytest.raises(KeyboardInterrupt):
        signal.raise_signal(signal.SIGINT)
    assert run.state()["step"] == 3
    training.close()


def test_a_second_sigint_does_not_wait(runs):
    def twice():
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)
        raise AssertionError("the second one waited")

    run = run_named()
    with pytest.raises(KeyboardInterrupt):
        list(train(run, 4, twice))
    assert run.state() is None


def test_a_signal_while_the_result_is_written_waits_for_it(runs, monkeypatch):
    run, finish = run_named(), store.Run.finish

    def interrupted(self, weights):
        signal.raise_signal(signal.SIGINT)
        finish(self, weights)

    monkeypatch.setattr(store.Run, "finish", interrupted)
    with pytest.raises(KeyboardInterrupt):
        list(train(run))
    assert run.done and run.state() is None


@pytest.mark.parametrize("case", ["to its end", "an error", "left", "closed", "thrown into"])
def test_the_handlers_come_back_however_a_training_ends(case, runs):
    before, training = handlers(), train(run_named(), 2, (lambda: 1 / 0) if case == "an error" else lambda: None)
    next(training)
    assert handlers() != before
    if case == "to its end":
        follow(training, "toy")
    elif case == "an error":
        with pytest.raises(ZeroDivisionError):
            list(training)
    elif case == "closed":
        training.close()
    elif case == "thrown into":
        with pytest.raises(RuntimeError):
            training.throw(RuntimeError)
    else:
        del training
    assert handlers() == before


def test_two_trainings_that_overlap_end_in_any_order(runs):
    before, first, second = handlers(), train(run_named("first")), train(run_named("second"))
    next(first), next(second)
    first.close()
    assert handlers() != before
    with pytest.raises(SystemExit):
        list(train(run_named("third"), 3, sent(signal.SIGTERM)))
    assert run_named("second").state()["step"] == 1 and run_named("third").state()["step"] == 4
    second.close()
    assert handlers() == before


def failing(number):
    def both():
        signal.raise_signal(number)
        raise ZeroDivisionError

    return both


def test_a_step_that_fails_ends_a_training_as_well_as_ctrl_c(runs):
    with pytest.raises(ZeroDivisionError):
        list(train(run_named(), 3, failing(signal.SIGINT)))


def test_sigterm_in_a_step_that_fails_is_not_lost(runs):
    arrived = []
    before = signal.signal(signal.SIGTERM, lambda number, _: arrived.append(number))
    try:
        with pytest.raises(ZeroDivisionError):
            list(train(run_named(), 3, failing(signal.SIGTERM)))
    finally:
        signal.signal(signal.SIGTERM, before)
    assert arrived == [signal.SIGTERM]


def test_an_ignored_signal_stays_ignored(runs):
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        assert len(list(train(run_named(), 3, sent(signal.SIGINT)))) == STEPS
    finally:
        signal.signal(signal.SIGINT, before)


def test_in_another_thread_a_training_leaves_the_handlers_alone(runs):
    seen, before = [], handlers()

    def work():
        training = train(run_named())
        next(training)
        seen.append(handlers())
        seen.append(len(list(training)))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == [before, STEPS - 1]


def test_a_full_disk_while_it_stops_is_said(runs, monkeypatch):
    def full(*_):
        raise ValueError("cannot write state: no space left")

    monkeypatch.setattr(store.Run, "save_state", full)
    with pytest.raises(ValueError, match="no space left"):
        list(train(run_named(), 3, sent(signal.SIGTERM)))


def test_a_child_that_was_forked_on_the_way_dies_by_sigterm_as_any_other(runs):
    kept = []
    with Watch(kept.append):
        child = os.fork()
        if not child:
            signal.raise_signal(signal.SIGTERM)
            os._exit(0)
        _, status = os.waitpid(child, 0)
    assert os.WTERMSIG(status) == signal.SIGTERM and not kept


SCRIPT = """
import sys
from pathlib import Path

import torch

from distill_lib.engine import store
from test_interrupts import learn

torch.set_num_threads(1)
store.RUNS = Path(sys.argv[1])
for progress in learn():
    print(progress.step, flush=True)
"""


def learn():
    """Some work a step, so that a signal meets one; its run stands below `store.RUNS`."""
    torch.manual_seed(0)
    net = Bare(nn.Sequential(nn.Linear(64, 256), nn.SiLU(), nn.Linear(256, 64)))
    settings = TrainSettings(steps=400, batch_size=64, lr=1e-2, warmup=1, ema=0.5, bf16=False, checkpoint_seconds=1e9)
    run = store.Run("test", {}, normal)
    loop = Loop(net, settings, run)
    for _, draws in loop:
        x = draws.normal("x", (64,))
        yield loop.update((net.forward(x) + x).square().mean(1))


def test_a_process_that_is_told_to_end_in_the_midst_goes_on_to_the_same_weights_bit_for_bit(runs, monkeypatch):
    stopped, path = runs / "stopped", os.pathsep.join([str(ROOT), str(ROOT / "tests")])
    environment = os.environ | {"ACCELERATE_USE_CPU": "true", "PYTHONPATH": path}
    running = subprocess.Popen(
        [sys.executable, "-c", SCRIPT, str(stopped)],
        env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, bufsize=0,  # a line in a buffer would be lost
    )  # fmt: skip
    while int(running.stdout.readline()) < 30:
        pass
    running.send_signal(signal.SIGTERM)
    rest, output = (heard.decode() for heard in running.communicate(timeout=120))
    assert running.returncode == 143, output
    (state,) = stopped.glob("*/state/state.safetensors")
    step = load_tensors(state, strict=True)["step"].item()
    last_step = max([30, *map(int, rest.split())])
    assert (
        step in (last_step, last_step + 1) and step < 400
    )  # the update that was running is kept, though it was not told
    assert f"is stopped by SIGTERM after step {step} of 400" in output and "Traceback" not in output

    monkeypatch.setattr(store, "RUNS", stopped)
    assert next(progress.step for progress in learn()) == step + 1  # and let go again
    assert len(list(learn())) == 400 - step
    monkeypatch.setattr(store, "RUNS", runs / "straight")
    list(learn())
    (first,), (other,) = ((runs / name).glob("*/weights.safetensors") for name in ("straight", "stopped"))
    assert first.read_bytes() == other.read_bytes()

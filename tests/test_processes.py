"""Two processes train as one does, in slices too: they share the batch, average their gradients and read one result."""

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from distill_lib.engine.files import load_tensors
from distill_lib.paths import ROOT

SCRIPT = """
import math
import sys
from pathlib import Path

import torch
from torch import nn

from distill_lib.diffusion.mixture import MixtureData, ToyNetwork, ring
from distill_lib.diffusion.noise import normal
from distill_lib.engine import store
from distill_lib.engine.loop import FrugalSettings, Loop, TrainSettings, finish
from distill_lib.engine.savings import Savings
from distill_lib.engine.trainable import Bare, Team
from distill_lib.guided.halving import Halving, halve_steps

torch.set_num_threads(1)
store.RUNS = Path(sys.argv[1])
data, given = MixtureData(ring(5), 0.2), {"steps": 6, "batch_size": 32, "lr": 1e-2, "warmup": 1, "ema": 0.5}
sliced = FrugalSettings(**given, savings=Savings(slices=4, offload=True))
for name, settings in (("shared", TrainSettings(**given)), ("sliced", sliced)):
    torch.manual_seed(0)
    student, teacher, run = ToyNetwork(5, 32), ToyNetwork(5, 32), store.Run(name, {}, halve_steps)
    finish(student, halve_steps(student, teacher, data, Halving(4, settings), run), run, name)
    print(run.folder)

torch.manual_seed(0)
team, run = Team(a=Bare(nn.Linear(3, 3)), b=Bare(nn.Linear(3, 3))), store.Run("turns", {}, normal)


def in_turns():
    "One network has no gradient in every second step, and is evaluated twice in the others, as in score distillation."
    loop, (a, b) = Loop(team, TrainSettings(**given), run), team.members.values()
    for step, draws in loop:
        x = draws.normal("x", (3,))
        loss = b.forward(x).square().mean(1)
        yield loop.update(loss + a.forward(a.forward(x)).square().mean(1) if step % 2 else loss)


finish(team, in_turns(), run, "turns")
print(run.folder)

net, run = Bare(nn.Linear(3, 3)), store.Run("broken", {}, normal)
loop = Loop(net, TrainSettings(steps=6, batch_size=4, lr=1e-2, checkpoint_seconds=1e9), run)
try:
    for step, draws in loop:
        loss = net.forward(draws.normal("x", (3,))).square().mean(1)
        loop.update(loss * (math.nan if step == 3 and 3 in draws.index else 1))
except ValueError as error:
    print(run.folder, str(error).partition(": ")[2].partition(",")[0], loop.step)
"""


def start(folder, processes):
    """What each of the processes says on standard output: where the weights lie, of a batch at once, in slices and of
    networks in turns, and how the broken training ended.
    """
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    common = os.environ | {"ACCELERATE_USE_CPU": "true", "PYTHONPATH": str(ROOT)}
    running = []
    for rank in range(processes):
        env = common
        if processes > 1:
            env = common | {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(processes)}
            env |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
        command = [sys.executable, "-c", SCRIPT, str(folder)]
        running.append(subprocess.Popen(command, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True))
    ended = [child.communicate(timeout=300) for child in running]
    assert [child.returncode for child in running] == [0] * processes, "\n".join(err for _, err in ended)
    (message,) = {out for out, _ in ended}
    return message.splitlines()


@pytest.fixture(scope="module")
def two(tmp_path_factory):
    return start(tmp_path_factory.mktemp("two"), 2)


@pytest.mark.slow
def test_two_processes_and_slices_end_with_the_weights_of_one(two, tmp_path):
    single = start(tmp_path, 1)
    for folder, places in ((single[0], two[:2]), (single[2], two[2:3])):
        whole = load_tensors(Path(folder) / "weights.safetensors")
        for place in places:
            weights = load_tensors(Path(place) / "weights.safetensors")
            assert weights.keys() == whole.keys()
            for name in whole:
                # gradients of parts are summed in another order, which Adam's first steps magnify
                assert torch.allclose(weights[name], whole[name], rtol=0, atol=2e-4), (place, name)


@pytest.mark.slow
def test_a_loss_that_is_not_finite_on_one_process_stops_all_at_the_same_step(two):
    place, _, rest = two[3].partition(" ")
    assert rest == "the loss is nan 3"
    assert load_tensors(Path(place) / "state" / "state.safetensors")["step"] == 3

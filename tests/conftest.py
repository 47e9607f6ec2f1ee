"""Shared fixtures, and the order of files. Nothing here needs a network, a GPU or a shipped file."""

import gc
import os

# One thread in each worker of `make test` and in what it starts: the same sums in the same order on every machine.
os.environ.setdefault("OMP_NUM_THREADS", "1")
# No test takes a second to find out what this machine is faster in, and subprocesses compute as tests do: in the
# coarser numbers, for which tolerances are chosen. PRECISION=fp32 runs the tests in the finer ones.
os.environ.setdefault("PRECISION", "bf16")

import pytest
import torch

SHORT = {"steps": 2, "batch_size": 8, "lr": 1e-3, "warmup": 1, "seed": 0}
RECIPE = {
    "world": "captioned",
    "count": 24,
    "seed": 0,
    "clip": SHORT | {"width": 16, "layers": 1, "tower": 8},
    "autoencoder": SHORT | {"channels": [16, 16, 16], "critic": 4, "weights": [1.0, 0.1, 1e-4], "alone": 1},
    "decoder": {"weights": [1.0, 0.2, 0.0], "alone": 0, "seed": 9},
    "unet": SHORT | {"channels": [16, 32], "attention": [True, False], "layers": 1, "drop": 0.2},
}

torch.set_num_threads(1)  # whatever OMP_NUM_THREADS says


def pytest_collection_modifyitems(items):
    """Files that run notebooks come first, those with most of them before: two workers then end at the same time."""
    heavy: dict[object, int] = {}
    for item in items:
        heavy[item.path] = heavy.get(item.path, 0) + (item.get_closest_marker("notebook") is not None)
    items.sort(key=lambda item: -heavy[item.path])


def pytest_collection_finish():
    """What imports have made lives to the end: no collection of garbage looks at a million objects again."""
    gc.freeze()


@pytest.fixture(autouse=True)
def deterministic():
    """Each test starts from the same global generator, whatever ran before it."""
    torch.manual_seed(0)


@pytest.fixture
def runs(tmp_path, monkeypatch):
    """An empty place for run folders and caches; trainings in this process stay on the CPU."""
    from distill_lib.engine import store

    monkeypatch.setenv("ACCELERATE_USE_CPU", "true")
    monkeypatch.setattr(store, "RUNS", tmp_path / "runs")
    return tmp_path / "runs"


@pytest.fixture(scope="session")
def small_pipeline(tmp_path_factory):
    """A small Stable Diffusion after two steps of each training: its folder, and the runs."""
    from distill_lib.engine import store
    from distill_lib.teachers.small_diffusion import train_small_diffusion  # loads diffusers

    folder = tmp_path_factory.mktemp("small")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(store, "RUNS", folder / "runs")
        patch.setenv("ACCELERATE_USE_CPU", "true")
        runs = train_small_diffusion(RECIPE, folder / "pipe")
    return folder / "pipe", runs

"""Shared fixtures. Nothing here needs a network, a GPU or a shipped file."""

import pytest
import torch

from distill_lib import store

torch.set_num_threads(1)  # the same sums in the same order on every machine


@pytest.fixture(autouse=True)
def deterministic():
    """Each test starts from the same global generator, whatever ran before it."""
    torch.manual_seed(0)


@pytest.fixture
def runs(tmp_path, monkeypatch):
    """An empty place for run folders and caches; trainings in this process stay on the CPU."""
    monkeypatch.setenv("ACCELERATE_USE_CPU", "true")
    monkeypatch.setattr(store, "RUNS", tmp_path / "runs")
    return tmp_path / "runs"

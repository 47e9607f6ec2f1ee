"""Batches that serve several updates: which step each is drawn for, and that a run that goes on draws the same."""

import torch

from distill_lib.diffusion.noise import Draws
from distill_lib.engine import replay


def drawn_at(steps, reuse):
    """For each step the step that its batch is drawn for, and all steps that a batch was made for, in order."""
    made, loop = [], ((step, Draws(0, step, torch.arange(2))) for step in steps)
    used = list(replay.replay(loop, lambda draws: made.append(draws.step) or draws.step, reuse))
    assert all(draws.step == batch for draws, batch in used)
    return [batch for _, batch in used], made


def test_without_reuse_each_step_has_a_batch_of_its_own():
    assert drawn_at(range(5), 1) == ([0, 1, 2, 3, 4],) * 2


def test_the_batches_of_a_bank_are_gone_through_in_turn_and_made_once(monkeypatch):
    monkeypatch.setattr(replay, "BANK", 3)
    used, made = drawn_at(range(10), 2)
    assert used == [0, 1, 2, 0, 1, 2, 6, 7, 8, 6]
    assert made == [0, 1, 2, 6, 7, 8]


def test_a_run_that_goes_on_uses_the_batches_that_it_would_have_used(monkeypatch):
    monkeypatch.setattr(replay, "BANK", 3)
    whole, _ = drawn_at(range(20), 3)
    for start in range(20):
        rest, made = drawn_at(range(start, 20), 3)
        assert rest == whole[start:] and len(made) == len(set(made))

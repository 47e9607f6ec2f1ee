"""What notebook 11 varies differs in the one thing that its name says."""

import contextlib
from types import SimpleNamespace

import pytest

from distill_lib.engine.precision import current
from distill_lib.experiments import one_step
from distill_lib.experiments.one_step import FAILURES, Trials
from distill_lib.profiles import load
from distill_lib.sdxs.scoring import Segment

SIZES = load("laptop").small
WARM = SimpleNamespace(net="warm")


@pytest.fixture
def recorded(monkeypatch):
    """Trials without networks, and a list of what they ask to be trained."""
    calls = []

    def keep(student, pairs, cost, case):
        calls.append(SimpleNamespace(student=student, cost=cost, options=case))

    for name in ("fit_on_pairs", "fit_by_scores"):
        monkeypatch.setattr(one_step, name, keep)
    monkeypatch.setattr(one_step, "finished", lambda trained: trained)
    monkeypatch.setattr(Trials, "first", "small")
    monkeypatch.setattr(Trials, "_copy", lambda self, net: net)
    monkeypatch.setattr(Trials, "cost", lambda self, *arguments, **seen: (arguments, seen))
    return Trials([], SimpleNamespace(w=2.0), SIZES, 3), calls


@pytest.mark.parametrize("batch", [8, 128])
def test_another_batch_sees_as_many_pairs_in_all(recorded, batch):
    trials, calls = recorded
    trials.by_loss("matching", batch=batch)
    trials.by_loss("matching")
    other, base = (call.options for call in calls)
    assert other.batch_size == batch and base.batch_size == SIZES.matching.batch_size
    assert other.steps * batch == pytest.approx(base.steps * base.batch_size, rel=0.05)


def test_a_larger_batch_may_have_as_many_updates(recorded):
    trials, calls = recorded
    trials.by_loss("matching", batch=128, steps=SIZES.matching.steps)
    assert (calls[0].options.batch_size, calls[0].options.steps) == (128, SIZES.matching.steps)


def test_the_row_of_accumulated_gradients_names_its_slices_and_is_of_float32(recorded, monkeypatch):
    trials, calls = recorded
    monkeypatch.setattr(one_step, "accumulation_error", lambda *given: calls.append((given, current())) or 0.5)
    monkeypatch.setattr(one_step, "recomputed", lambda *networks: contextlib.nullcontext())
    monkeypatch.setattr(Trials, "first", SimpleNamespace(module=None))
    monkeypatch.setattr(Trials, "decode", SimpleNamespace(tiny=None))
    (row,) = trials.accumulated()
    ((given, numbers),) = calls
    assert (given[0], given[-2:], numbers) == (trials.first, (4, 32), "fp32")
    assert row == {"method": "4 times 32 pairs", "seed": 3, "n": 128, "metric": "gradient_error", "value": 0.5}


def test_without_a_warm_up_the_small_network_starts(recorded):
    trials, calls = recorded
    trials.by_scores(None)
    trials.by_scores(WARM)
    assert [call.student for call in calls] == ["small", "warm"]


def test_trainings_by_other_features_are_other_runs(recorded):
    trials, calls = recorded
    for seen in ({}, {"encoder": "vit"}, {"window": 5}, {"weights": (8, 4, 2, 1)}):
        trials.by_loss("matching", **seen)
    assert len({str(call.cost) for call in calls}) == 4


@pytest.mark.parametrize("name", FAILURES)
def test_a_failure_changes_one_thing(recorded, name):
    trials, calls = recorded
    trials.failures(WARM)
    failed = calls[list(FAILURES).index(name)].options
    trials.by_scores(WARM)
    assert sum(getattr(failed, field) != value for field, value in vars(calls[-1].options).items()) == 1


def test_seed_and_segment_reach_the_training(recorded):
    trials, calls = recorded
    trials.by_scores(WARM, segment={"alpha": (0.5, 0.5)})
    assert calls[0].options.settings.seed == 3 and calls[0].options.segment == Segment((0.5, 0.5), (1.0, 0.3))

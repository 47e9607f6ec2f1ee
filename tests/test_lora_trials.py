"""What notebook 12 varies: which networks hold the style, and nothing else."""

from types import SimpleNamespace

import pytest

from distill_lib.experiments import lora
from distill_lib.experiments.lora import PAPER, PLACEMENTS, StyleTrials, placement_table
from distill_lib.profiles import load
from distill_lib.sdxs.lora import TrainedLora
from distill_lib.shipped import pretrained

SIZES = load("laptop").lora


@pytest.fixture
def recorded(monkeypatch):
    """Trials without networks, and a list of what they ask to be trained."""
    calls = []

    def keep(adapted, pairs, cost, scoring, networks):
        calls.append(SimpleNamespace(adapted=adapted, pairs=pairs, networks=networks, scoring=scoring))

    monkeypatch.setattr(lora, "fit_by_scores", keep)
    monkeypatch.setattr(lora, "fit_on_pairs", lambda adapted, *_: SimpleNamespace(lora=("warm", *adapted)))
    monkeypatch.setattr(lora, "finished", lambda trained: trained)
    monkeypatch.setattr(TrainedLora, "of", lambda student, done: done)
    monkeypatch.setattr(lora, "with_adapter", lambda student, rank, seed, start=None: (rank, start))
    monkeypatch.setattr(lora, "merged", lambda net, *loras: f"{net} with {loras[0][0]}")
    monkeypatch.setattr(pretrained, "lora", lambda look: look)
    for name, value in {"student": "student", "cost": lambda self, pairs: "cost"}.items():
        monkeypatch.setattr(StyleTrials, name, value)
    monkeypatch.setattr(StyleTrials, "pairs", lambda self, look: f"{look} pairs")
    plain = SimpleNamespace(model=SimpleNamespace(network="plain"))
    return StyleTrials(plain, SimpleNamespace(w=2.0), SIZES, 3), calls


def test_the_paper_has_the_style_in_teacher_and_offline_model_and_no_warm_up(recorded):
    trials, calls = recorded
    trials.trained_lora("sketch")
    (call,) = calls
    assert call.pairs == "sketch pairs" and call.networks == ("plain with sketch", "plain")
    assert call.adapted == (SIZES.rank, None) and call.scoring.settings.seed == 3


@pytest.mark.parametrize("name", [name for name in PLACEMENTS if name != PAPER])
def test_another_placement_is_another_training(recorded, name):
    trials, calls = recorded
    for item in (PAPER, name):
        trials.trained_lora("sketch", PLACEMENTS[item])
    base, other = calls
    assert vars(base) != vars(other) and base.scoring.settings == other.scoring.settings
    offline, online = other.networks
    assert offline == ("plain with sketch" if PLACEMENTS[name].offline else "plain")
    assert online == ("plain with sketch" if PLACEMENTS[name].online else "plain")
    assert (other.pairs == "sketch pairs") == PLACEMENTS[name].teacher


def test_a_plain_teacher_lowers_lambda_and_the_control_has_no_style(recorded):
    lower, same = (PLACEMENTS[f"plain teacher, {which} lambda"] for which in ("lower", "same"))
    assert lower.lambda_fm < same.lambda_fm == PLACEMENTS[PAPER].lambda_fm
    assert not any((PLACEMENTS["nowhere"].teacher, PLACEMENTS["nowhere"].offline, PLACEMENTS["nowhere"].online))


def test_rank_reaches_training_and_warm_up(recorded):
    trials, calls = recorded
    trials.trained_lora("sketch", PLACEMENTS["after a warm-up"], rank=5)
    assert calls[0].adapted == (5, ("warm", 5, None))


def test_the_table_of_placements_has_a_line_for_each():
    header, lines = placement_table()
    assert [line[0] for line in lines] == list(PLACEMENTS) and {len(line) for line in lines} == {len(header)}
    assert lines[0][1:4] == ["yes", "yes", ""]

"""Equal distributions are not told apart, a shift of colour is, and the calibration is the teacher's own blur."""

import pytest
import torch

from distill_lib.diffusion.noise import uniform
from distill_lib.engine.loop import TrainSettings
from distill_lib.measure import two_sample
from distill_lib.measure.gates import gate_rows
from distill_lib.measure.readers.common import degrade
from distill_lib.measure.rows import Estimate
from distill_lib.measure.two_sample import BLURRED, SEES, blurred, two_sample_accuracy, two_sample_rows

SETTINGS = TrainSettings(steps=30, batch_size=16, lr=3e-3, warmup=2, ema=0.5, bf16=False)


def pictures(stream, n=120, side=8, least=0.0):
    """Noise of single pixels, uint8, from `least` of the range on."""
    u = uniform(0, stream, 0, torch.arange(n), 3 * side**2).reshape(n, 3, side, side)
    return (255 * (least + (1 - least) * u)).to(torch.uint8)


def test_of_equal_distributions_half_is_named_right_within_the_interval(runs):
    result = two_sample_accuracy(pictures("a"), pictures("b"), SETTINGS)
    assert 0 < result.error == pytest.approx(0.125**0.5 / 60**0.5, rel=0.3)  # two coins a pair
    assert abs(result.value - 0.5) < 3 * result.error


def test_of_the_very_same_pictures_exactly_half_is(runs):
    image = pictures("a", 40)
    assert two_sample_accuracy(image, image, SETTINGS) == Estimate(0.5, 0.0)


def test_a_shift_of_colour_is_seen_in_pictures_that_were_not_trained_on(runs):
    image, other = pictures("a"), pictures("b")
    other[:, 0] = other[:, 0] // 2 + 127
    result = two_sample_accuracy(image, other, SETTINGS)
    assert result.value > 0.95


def test_half_of_the_pairs_train_and_the_other_half_is_judged(runs, monkeypatch):
    """Pictures that differ in the first half alone: what was learned there says nothing of the rest."""
    image, other, seen, train = pictures("a"), pictures("b"), [], two_sample.train_discerner
    other[:60, 0] = 255

    def watched(net, *given):
        seen.extend(given[:2])
        return train(net, *given)

    monkeypatch.setattr(two_sample, "train_discerner", watched)
    result = two_sample_accuracy(image, other, SETTINGS)
    assert torch.equal(seen[0], image[:60]) and torch.equal(seen[1], other[:60])
    assert abs(result.value - 0.5) < 4 * max(result.error, 0.02)


def test_blur_is_the_readers_own_and_keeps_an_even_picture():
    image, even = pictures("a", 4), torch.full((1, 3, 8, 8), 77, dtype=torch.uint8)
    by_hand = degrade(image / 127.5 - 1, torch.full((4,), 0.45), torch.zeros(4), torch.zeros(4, 3, 8, 8))
    assert (blurred(image).float() / 127.5 - 1 - by_hand).abs().max() < 1 / 127.5
    assert torch.equal(blurred(even), even) and torch.equal(blurred(image, 0.0), image)


def test_rows_hold_each_method_and_the_calibration_which_has_a_gate(runs):
    truth = pictures("a")
    rows = two_sample_rows({"same": truth}, truth, SETTINGS, seed=3)
    assert [(row["method"], row["seed"], row["n"]) for row in rows] == [("same", 3, 60), (BLURRED, 3, 60)]
    assert rows[0]["value"] == 0.5 and rows[0]["error"] == 0.0
    (judged,) = gate_rows(rows, (SEES,))
    assert judged["value"] == rows[1]["value"] and judged["passed"] == (rows[1]["value"] >= 0.85)


@pytest.mark.parametrize("image, other", [(pictures("a", 10), pictures("b", 9)), (pictures("a", 6), pictures("b", 6))])
def test_sets_that_cannot_be_halved_are_refused(image, other):
    with pytest.raises(ValueError, match=r"cannot be told apart; as many of both are due, 8 at least"):
        two_sample_accuracy(image, other, SETTINGS)

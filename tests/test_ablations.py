"""Ablations: one thing changes at a time, and noise drawn again keeps the training's seed."""

from dataclasses import asdict

import pytest

from distill_lib.ablations import one_at_a_time, resampled
from distill_lib.training import TrainSettings

BASE = TrainSettings(steps=40, batch_size=32, lr=3e-4)


def test_each_variant_differs_from_the_profile_in_what_its_label_says_and_no_two_are_the_same():
    found = one_at_a_time(BASE, 2)
    as_it_is = {"clamp": 100.0, "reuse": 2}
    assert found.pop("as in the profile") == (BASE, as_it_is)
    changed = {
        label: {k: v for k, v in (asdict(how) | more).items() if v != (asdict(BASE) | as_it_is)[k]}
        for label, (how, more) in found.items()
    }
    both = changed.pop("half the batch, twice the updates")
    assert both == {"batch_size": 16, "steps": 80}  # as many pictures as in the profile
    assert all(len(change) == 1 for change in changed.values())
    assert len({str(change) for change in changed.values()}) == len(changed)
    assert changed["lr x 3"] == {"lr": pytest.approx(9e-4)} and changed["no average of weights"] == {"ema": 0.0}
    assert changed["each target once"] == {"reuse": 1}
    assert one_at_a_time(BASE, 1)["each target twice"] == (BASE, {"clamp": 100.0, "reuse": 2})


def test_resampling_changes_the_noise_and_keeps_the_seed_of_the_training():
    class Fake:
        seed = 2

        def __init__(self, noise):
            self.noise = noise

        def with_noise(self, seed):
            return Fake(seed)

        def rows(self, method, net, n_steps, w):
            return [{"method": method, "steps": n_steps, "w": w, "seed": self.noise, "metric": "fid", "value": 1.0}]

    found = resampled(Fake(2), "ours-D", None, 4, 1.0, draws=3)
    assert [(row["draw"], row["seed"]) for row in found] == [(0, 2), (1, 2), (2, 2)]

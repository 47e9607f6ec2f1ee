"""The students of a profile are the chains of the methods, under one key for all notebooks."""

import pytest
import torch
from closed_forms import tiny_unet

from distill_lib import profiles
from distill_lib.diffusion.schedules import step_counts
from distill_lib.experiments import halvings
from distill_lib.guided.halving import Halving, halve_down
from distill_lib.networks.adapter import Keyed, Network
from distill_lib.networks.unet import student_of
from distill_lib.shipped import pretrained
from distill_lib.worlds.pictures import Pictures


@pytest.fixture
def settings(runs, monkeypatch):
    monkeypatch.setattr(pretrained, "student", lambda world: student_of(tiny_unet()))
    monkeypatch.setattr(pretrained, "teacher", lambda world: tiny_unet())
    return profiles.load("smoke")


PICTURES = Pictures(
    torch.randint(0, 256, (32, 3, 8, 8), dtype=torch.uint8), torch.arange(32) % 4, tuple(str(i) for i in range(4))
)


def test_a_chain_starts_from_the_shipped_student_with_the_settings_of_the_profile(settings):
    name = f"student-{settings.world}"
    first = Keyed(Network(student_of(tiny_unet()).requires_grad_(False)), pretrained.made(name)["weights"])
    w_range = 0.0, pretrained.made(name)["config"]["w_max"]
    counts = step_counts(settings.halving_start)
    plan = [Halving(n, settings.halving_settings(n, 2), w_range, reuse=settings.reuse) for n in counts]
    theirs = halve_down(first, PICTURES, plan)
    ours = halvings.deterministic(settings, PICTURES, 2)
    assert {n: one.key for n, one in ours.items()} == {n: one.key for n, one in theirs.items()}
    assert {one.key for one in halvings.deterministic(settings, PICTURES, 3).values()}.isdisjoint(
        one.key for one in ours.values()
    )


def test_each_stochastic_student_rests_on_the_deterministic_one_of_as_many_steps(settings):
    chain = halvings.deterministic(settings, PICTURES, 0)
    found = halvings.stochastic(settings, chain, PICTURES, 0)
    assert list(found) == list(chain) and found[1] is chain[1]
    assert {n: one.run.config["parent"] for n, one in found.items() if n > 1} == {
        n: one.key for n, one in chain.items() if n > 1
    }


def test_the_students_for_one_strength_rest_on_the_pair_and_have_keys_of_their_own(settings):
    found = {w: halvings.for_one_strength(settings, w, PICTURES, 0) for w in (0.0, 1.0)}
    pair = pretrained.made(f"teacher-{settings.world}")["weights"]
    assert all(chain[8].run.config["parent"] == pair for chain in found.values())
    assert all(chain[4].run.config["w_range"] == (w, w) for w, chain in found.items())
    assert found[0.0][1].key != found[1.0][1].key

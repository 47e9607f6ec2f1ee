"""The students of a profile are the chains of the methods, under one key for all notebooks."""

from dataclasses import replace

import pytest
import torch
from closed_forms import tiny_unet

from distill_lib import profiles
from distill_lib.diffusion.schedules import step_counts, step_grid
from distill_lib.engine.store import Run
from distill_lib.experiments import halvings
from distill_lib.guided.halving import Halving, halve_down, halve_once, halve_steps
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
    reference = halve_down(first, PICTURES, plan)
    ours = halvings.deterministic(settings, PICTURES, 2)
    assert {n: student.key for n, student in ours.items()} == {n: item.key for n, item in reference.items()}
    assert {student.key for student in halvings.deterministic(settings, PICTURES, 3).values()}.isdisjoint(
        student.key for student in ours.values()
    )


def test_the_loop_of_notebook_03_finds_the_students_that_the_others_share(settings):
    shared = halvings.deterministic(settings, PICTURES, 0)
    net, made = Network(pretrained.student("").requires_grad_(False)), pretrained.made(f"student-{settings.world}")
    student = Keyed(net, made["weights"])
    for n in step_counts(settings.halving_start):
        student = halve_once(student, PICTURES, halvings.halving_of(settings, n, 0))
        assert student.key == shared[n].key


def test_only_the_deterministic_chain_is_watched_on_its_way(settings):
    watched, not_watched = (halvings.halving_of(settings, 4, 0, snapshots) for snapshots in (True, False))
    assert not_watched == replace(watched, settings=replace(watched.settings, snapshots=0))


def test_the_students_for_one_strength_rest_on_the_pair_and_have_keys_of_their_own(settings):
    result = {w: halvings.for_one_strength(settings, w, PICTURES, 0) for w in (0.0, 1.0)}
    pair = pretrained.made(f"teacher-{settings.world}")["weights"]
    assert all(chain[8].run.config["parent"] == pair for chain in result.values())
    assert all(chain[4].run.config["w_range"] == (w, w) for w, chain in result.items())
    assert result[0.0][1].key != result[1.0][1].key


def test_a_chain_from_256_steps_is_one_training_a_halving_on_grid_points_alone(settings):
    """Names and seeds of 8 halvings differ, and each teacher is asked at the times of its own grid alone."""
    from_256 = settings.model_copy(update={"halving_start": 256})
    plan = {n: halvings.halving_of(from_256, n, 3) for n in step_counts(256)}
    assert [halving.settings.seed for halving in plan.values()] == [3128, 3064, 3032, 3016, 3008, 3004, 3002, 3001]
    chain = halvings.deterministic(from_256, PICTURES, 3)
    assert list(chain) == [128, 64, 32, 16, 8, 4, 2, 1] == list(plan)
    assert [student.key.rpartition("-")[0] for student in chain.values()] == [f"halving-{n}" for n in chain]
    assert all(student.run.config["parent"] == chain[2 * n].key for n, student in chain.items() if n < 128)
    assert all(student.net.shape == (12, 4, 4) for student in chain.values())


def test_the_first_halving_from_256_steps_asks_its_teacher_at_all_times_of_the_grid_of_256(runs):
    calls, net = set(), Network(student_of(tiny_unet()).requires_grad_(False), bf16=False)
    net.module.register_forward_pre_hook(lambda _, inputs: calls.update((inputs[1] + 1).tolist()))
    settings = profiles.load("smoke").halving
    halving = Halving(128, replace(settings, steps=24, batch_size=32))
    list(halve_steps(Network(student_of(net.module)), net, PICTURES, halving, Run("test", {}, halve_steps)))
    assert calls <= set(step_grid(256)) and {t % 8 for t in calls} == {0, 4} and len(calls) > 200


@pytest.mark.parametrize("start", [24, 100, 257])
def test_a_start_that_is_no_power_of_two_is_refused_before_anything_is_trained(start, settings, runs):
    odd = settings.model_copy(update={"halving_start": start})
    with pytest.raises(ValueError, match=f"start={start} cannot be halved down to one step; take a power"):
        halvings.deterministic(odd, PICTURES, 0)
    assert not list(runs.glob("halving-*/*"))

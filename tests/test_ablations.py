"""Ablations: one thing changes at a time, and noise drawn again keeps the training's seed."""

import itertools
import json
from dataclasses import asdict

import pytest
import torch
from closed_forms import tiny_unet

from distill_lib.diffusion.guidance import combine, guidance_embedding, guided_pair
from distill_lib.engine import store
from distill_lib.engine.loop import TrainSettings
from distill_lib.experiments.ablations import (
    EMBEDDINGS,
    Choice,
    FoldedPair,
    Trials,
    fresh_start,
    head_pictures,
    head_teachers,
    one_at_a_time,
    resampled,
    stage_one,
    steps_of,
)
from distill_lib.guided.halving import Halving, copy_of, halve_down
from distill_lib.networks.adapter import Keyed, Network
from distill_lib.networks.unet import student_of
from distill_lib.profiles import Ablations
from distill_lib.worlds.pictures import Pictures

BASE = TrainSettings(steps=40, batch_size=32, lr=3e-4)


def test_each_variant_differs_from_the_profile_in_what_its_label_says_and_no_two_are_the_same():
    result = one_at_a_time(BASE, 2)
    as_it_is = {"clamp": 100.0, "reuse": 2}
    assert result.pop("as in the profile") == (BASE, as_it_is)
    changed = {
        label: {k: v for k, v in (asdict(changes_made) | more).items() if v != (asdict(BASE) | as_it_is)[k]}
        for label, (changes_made, more) in result.items()
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

    result = resampled(Fake(2), "ours-D", None, 4, 1.0, draws=3)
    assert [(row["draw"], row["seed"]) for row in result] == [(0, 2), (1, 2), (2, 2)]


SHORT = TrainSettings(steps=2, batch_size=8, lr=1e-3, warmup=1, bf16=False)


@pytest.fixture
def pictures():
    image = torch.randint(0, 256, (16, 3, 8, 8), dtype=torch.uint8)
    return Pictures(image, torch.arange(16) % 3, ("a", "b", "c"))


@pytest.fixture
def pair(runs):
    return Network(tiny_unet().requires_grad_(False), bf16=False)


def features_read(student, w):
    """What the layer that reads w is given."""
    seen = []
    linear = student.module.time_embedding.cond_proj
    handle = linear.register_forward_hook(lambda _, inputs, __: seen.append(inputs[0]))
    z = torch.zeros(len(w), 12, 4, 4)
    student(z, torch.full((len(w),), 500), torch.zeros(len(w), dtype=torch.long), w)
    handle.remove()
    return seen[0]


def test_an_embedding_gives_the_student_all_features_of_w_or_w_itself_or_nothing(pair, pictures):
    w = torch.tensor([0.0, 1.0, 4.0])
    read = {
        name: features_read(stage_one(pair, "parent", Choice(embedding=name), pictures, SHORT).net, w)
        for name in EMBEDDINGS
    }
    assert torch.equal(read["Fourier features"], guidance_embedding(w, 64))
    features = read["w as one number"]
    assert torch.allclose(features.sum(1), w, rtol=0.03) and (features != 0).sum() == 2  # of w = 1 and w = 4
    assert (read["none"] == 0).all()


def test_a_random_start_is_no_copy_of_the_teacher_and_the_default_is(pair, pictures):
    still = TrainSettings(steps=0, batch_size=8, lr=1e-3, bf16=False)
    starts = {
        start: stage_one(pair, "parent", Choice(start=start), pictures, still).net for start in ("teacher", "random")
    }
    weights = pair.module.state_dict()
    same = {
        start: all(torch.equal(net.module.state_dict()[name], value) for name, value in weights.items())
        for start, net in starts.items()
    }
    assert same == {"teacher": True, "random": False}


def test_a_folded_pair_answers_as_the_pair_guided_with_each_samples_own_w(pair):
    z, t, label = torch.randn(3, 12, 4, 4), torch.tensor([100, 500, 1024]), torch.tensor([0, 1, 2])
    w = torch.tensor([0.0, 1.0, 4.0])
    expected = combine(*guided_pair(pair, z, t, label, pair.null), w)
    assert torch.equal(FoldedPair(pair)(z, t, label, w), expected)


def test_a_chain_of_an_ablation_is_that_of_the_method(pair, pictures):
    first = Network(student_of(pair.module), bf16=False)
    first = Keyed(first, "parent")
    ours = steps_of(first, (16, 4), pictures, Halving(4, SHORT)).net.module.state_dict()
    plan = [Halving(n, SHORT.with_seed(n)) for n in (8, 4)]
    reference = halve_down(first, pictures, plan)[4].net.module.state_dict()
    assert all(torch.equal(ours[name], reference[name]) for name in ours)


def test_the_pair_itself_is_halved_for_a_range_of_w(pair, pictures):
    folded_pair = Keyed(FoldedPair(pair), "parent")
    student = steps_of(folded_pair, (8, 2), pictures, Halving(2, SHORT))
    assert student.net.takes_w and student.run.config["n_steps"] == 2
    with pytest.raises(ValueError, match="until=8 leaves no halving from start=8"):
        steps_of(folded_pair, (8, 8), pictures, Halving(8, SHORT))


def test_fresh_students_do_not_start_from_their_teacher(pair, pictures):
    still = TrainSettings(steps=0, batch_size=8, lr=1e-3, bf16=False)
    first = Network(student_of(pair.module), bf16=False)
    before = first.module.conv_in.weight
    first, halving = Keyed(first, "parent"), Halving(2, still)
    copied, fresh = (steps_of(first, (4, 2), pictures, halving, start).net for start in (copy_of, fresh_start))
    assert torch.equal(copied.module.conv_in.weight, before)
    assert not torch.equal(fresh.module.conv_in.weight, before)


def test_every_head_is_trained_under_every_weighting_and_can_be_sampled(runs, pictures):
    result = list(head_teachers((16, 32), pictures, SHORT))
    assert len({(head, weighting) for head, weighting, _ in result}) == len(result) == 12
    for head, weighting, trained in result:
        if weighting == "SNR + 1":
            image = head_pictures(trained.net, head, torch.arange(5) % trained.net.null, 4)
            assert image.shape == (5, 3, 8, 8) and image.dtype == torch.uint8
    ends = {(head, weighting): trained.net.module.conv_in.weight for head, weighting, trained in result}
    for head in {head for head, _ in ends}:  # equal starts and draws, another loss
        of_head = [weight for (item, _), weight in ends.items() if item == head]
        assert not any(torch.equal(a, b) for a, b in itertools.combinations(of_head, 2))


def test_the_range_of_a_choice_is_that_of_the_strengths_that_its_student_is_told(pair, pictures, monkeypatch):
    seen = []
    monkeypatch.setattr(
        "distill_lib.networks.adapter.guidance_embedding", lambda w, dim: seen.append(w) or guidance_embedding(w, dim)
    )
    first = stage_one(pair, "parent", Choice(w_max=0.5), pictures, SHORT)
    steps_of(first, (8, 4), pictures, Halving(4, SHORT, (0.0, 0.5)))
    assert 0 < torch.cat(seen).max() < 0.5


def plan():
    options = {"stage_one": SHORT, "halving": TrainSettings(**asdict(SHORT) | {"steps": 3})}
    sizes = {"samples": 4, "ranges": [1.0, 4.0], "start": 16, "until": 4}
    return Ablations(**options, **sizes, world="plain", heads_channels=(16, 32), heads=SHORT)


def test_trials_share_seed_and_lengths_and_without_stage_one_the_first_halving_has_its_updates(pair, pictures):
    trials = Trials(pair, "parent", pictures, None, plan(), seed=5, reuse=1)
    first = trials.first(Choice(w_max=1.0))
    assert first.run.config["settings"].seed == 5 and first.run.config["choice"].w_max == 1.0
    last = trials.halved(first, 1.0)
    assert last.run.config["settings"].steps == 3 and last.run.config["settings"].seed == 5004
    without = trials.without_stage_one(1.0)
    assert without.run.config["settings"].steps == 3
    configs = [json.loads((run / "config.json").read_text()) for run in store.RUNS.glob("ablation-8-*")]
    updates = sorted(config["settings"]["steps"] == 5 for config in configs)
    assert updates == [False, True]  # 2 of stage one and 3 of its own, once

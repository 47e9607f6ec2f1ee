"""A key holds all that tells one training from another: any field of a loss, any weight, any number of the data."""

import copy
import dataclasses
import importlib
from functools import partial
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from distill_lib.diffusion.noise import normal
from distill_lib.engine.loop import TrainSettings
from distill_lib.engine.specs import spec_of
from distill_lib.engine.store import Run, content_key
from distill_lib.networks.autoencoders import TinyDecode, build_tiny
from distill_lib.networks.pipeline import open_pipeline
from distill_lib.sdxs import score_distillation
from distill_lib.sdxs.critics import PatchCritic
from distill_lib.sdxs.feature_matching import (
    ONE_STEP_LOSSES,
    ByMatcher,
    ByUnet,
    SeenLoss,
    feature_matching_loss,
    one_step_loss,
)
from distill_lib.sdxs.matchers import ConvMatcher
from distill_lib.sdxs.one_step import fit_on_pairs, square_loss
from distill_lib.sdxs.score_distillation import fit_by_scores
from distill_lib.sdxs.scoring import Adversary, Scoring, Segment
from distill_lib.sdxs.tiny_decoder import FeatureDistance, tiny_decoder
from distill_lib.teachers.autoencoder import coarse_loss, l1_loss, perceptual_loss
from distill_lib.teachers.latents import Pairs, decoded
from distill_lib.worlds.captions import drawn_attributes, say

SHORT = TrainSettings(steps=2, batch_size=4, lr=1e-3, warmup=1, bf16=False)
OTHER = {
    "compare": partial(feature_matching_loss, weights=None, window=5), "decode": square_loss, "weight": 0.2,
    "alpha": (1.0, 1.0), "lambda_fm": (0.0, 0.0), "bf16": True, "picture": True,
}  # fmt: skip


def key(value):
    return content_key({"value": value}, normal)


def matcher(seed):
    torch.manual_seed(seed)
    return ConvMatcher(8, 64).requires_grad_(False)


def tiny(seed):
    torch.manual_seed(seed)
    return build_tiny(3, 8, 1)


@pytest.fixture
def model(small_pipeline):
    return open_pipeline(small_pipeline[0], bf16=False)


def changed(value, model):
    """The same loss with each of its fields changed, one at a time, by the field's name."""
    new = OTHER | {
        "matcher": matcher(9),
        "see": ByUnet(model.network),
        "wanted": ByUnet(model.network),
        "tiny": tiny(9),
    }
    new |= {"teacher": student_of(model, 1)}
    for field in dataclasses.fields(value):
        yield field.name, dataclasses.replace(value, **{field.name: new[field.name]})


LOSSES = {
    "a distance of pictures": lambda model: FeatureDistance(matcher(0)),
    "a matcher's eyes": lambda model: ByMatcher(matcher(0), TinyDecode(tiny(0), bf16=False)),
    "the U-Net's eyes": lambda model: ByUnet(model.network),
    "a loss of what is seen": lambda model: SeenLoss(
        perceptual_loss, *[ByMatcher(matcher(0), model.network.decode)] * 2
    ),
    "a tiny decoder": lambda model: TinyDecode(tiny(0), bf16=False),
    "a segment": lambda model: Segment(),
}


@pytest.mark.parametrize("name", LOSSES)
def test_changing_any_field_of_a_configured_loss_changes_the_key(name, model):
    loss = LOSSES[name](model)
    again = {name: item for name, item in changed(loss, model)}
    assert again and key(loss) == key(LOSSES[name](model))
    assert len({key(loss), *map(key, again.values())}) == len(again) + 1


@pytest.mark.parametrize("loss", ONE_STEP_LOSSES)
def test_a_one_step_loss_is_known_by_its_name_window_weights_and_views(loss, model):
    see = ByMatcher(matcher(0), model.network.decode)
    base = one_step_loss(loss, see)
    assert key(base) == key(one_step_loss(loss, ByMatcher(matcher(0), model.network.decode)))
    keys = {key(one_step_loss(other, see)) for other in ONE_STEP_LOSSES}
    assert len(keys) == len(ONE_STEP_LOSSES) and key(base) in keys
    if loss == "matching":
        changes = [{"window": 5}, {"weights": (8, 4, 2, 1)}, {"wanted": ByUnet(model.network)}]
        assert len({key(base), *(key(one_step_loss(loss, see, **changes_made)) for changes_made in changes)}) == 4


def test_partials_are_known_by_what_they_bind():
    assert key(partial(coarse_loss, factor=4)) == key(partial(coarse_loss, factor=4))
    assert len({key(partial(coarse_loss, factor=f)) for f in (2, 4)} | {key(coarse_loss), key(l1_loss)}) == 4


def test_a_network_is_known_by_every_weight_and_not_by_its_place_in_memory(model):
    first, same = nn.Linear(2, 2), nn.Linear(2, 2)
    same.load_state_dict(first.state_dict())
    assert key(first) == key(same)
    with torch.no_grad():
        same.bias[1] += 1e-6
    assert key(first) != key(same)
    small = model.network
    assert key(small) == key(small.like(small.module)) != key(small.like(small.module, bf16=True))


def scaled(factor, layer, inputs):
    return (factor * inputs[0],)


def test_a_network_is_known_by_what_hooks_do_to_its_layers():
    plain = nn.Sequential(nn.Linear(2, 2))
    nets = [copy.deepcopy(plain) for _ in range(3)]
    for net, factor in zip(nets, (1.0, 2.0, 2.0), strict=True):
        net[0].register_forward_pre_hook(partial(scaled, torch.tensor(factor)))
    assert len({key(plain), *map(key, nets)}) == 3 and key(nets[1]) == key(nets[2])
    plain[0].register_forward_hook(lambda layer, inputs, output: 2 * output)
    with pytest.raises(ValueError, match="has no name of its own"):
        key(plain)


def test_a_tensor_is_known_by_all_of_its_numbers():
    """Its text is not enough: it leaves out the middle of a long one."""
    long, other = torch.zeros(5000), torch.zeros(5000)
    other[2500] = 1
    assert str(long) == str(other) and key(long) != key(other)
    assert key(long) != key(long.half()) != key(long.half().view(50, 100))
    assert key(torch.zeros(3, dtype=torch.bfloat16)) == key(torch.zeros(3, dtype=torch.bfloat16))


def local():
    def inner(x):
        return x

    return inner


REFUSED = {
    "lambda": (lambda x: x, "no name of its own"),
    "local": (local(), "no name of its own"),
    "partial of a lambda": (partial(lambda x, y: x, 1), "no name of its own"),
    "namespace": (SimpleNamespace(a=1), "cannot hold SimpleNamespace"),
    "object": (object(), "cannot hold object"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_nothing_tells_apart_is_refused_in_a_sentence(name):
    value, match = REFUSED[name]
    with pytest.raises(ValueError, match=match) as error:
        spec_of({"a": [value]})
    assert "\n" not in str(error.value) and len(str(error.value)) < 300


# ------------------------------------------------------------------------------------------------ trainings


@pytest.fixture
def keys(model, runs, monkeypatch):
    """Keys that trainings ask for, in order; nothing is trained. And pairs, a student and a loss to ask with."""
    calls = []

    class Kept(Run):
        def __init__(self, *given):
            super().__init__(*given)
            calls.append(self.key)

    names = ("one_step", "score_distillation", "texture", "tiny_decoder", "tiny_unet")
    trainings = [importlib.import_module(f"distill_lib.sdxs.{name}") for name in names]
    for module in trainings:
        monkeypatch.setattr(module, "Run", Kept)
        monkeypatch.setattr(module, "finish", lambda *_: [])
    prompts = say(drawn_attributes(8, 0))
    x = torch.randn(8, *model.network.shape, generator=torch.Generator().manual_seed(0))
    return calls, Pairs(x, prompts, model, 5)


def student_of(model, seed=0):
    torch.manual_seed(seed)
    net = model.network.like(score_distillation.copy.deepcopy(model.network.module))
    with torch.no_grad():
        next(net.module.parameters()).add_(0.01 * seed)
    return net


def changes(pairs):
    """What tells trainings apart though nobody named it: pairs, their noise and number, student, settings, loss."""
    model = pairs.model
    view = ByMatcher(matcher(0), model.network.decode)
    base = {"student": student_of(model), "pairs": pairs, "settings": SHORT, "cost": one_step_loss("lpips", view)}
    yield base
    yield base | {"student": student_of(model, 1)}
    yield base | {"pairs": dataclasses.replace(pairs, x=pairs.x + 0.1)}
    yield base | {"pairs": dataclasses.replace(pairs, seed=6)}
    yield base | {"pairs": dataclasses.replace(pairs, prompts=pairs.prompts[::-1])}
    yield base | {"pairs": dataclasses.replace(pairs, first=8)}
    yield base | {"pairs": dataclasses.replace(pairs, more=pairs.prompts[:1])}
    yield base | {"settings": SHORT.with_seed(1)}
    yield base | {"cost": one_step_loss("matching", view)}
    yield base | {"cost": one_step_loss("lpips", ByMatcher(matcher(1), model.network.decode))}


def test_regressions_that_differ_in_anything_are_other_runs(keys):
    configs, pairs = keys
    for changes_made in changes(pairs):
        fit_on_pairs(changes_made["student"], changes_made["pairs"], changes_made["cost"], changes_made["settings"])
    assert len(set(configs)) == len(configs) == 10
    fit_on_pairs(student_of(pairs.model), *[next(changes(pairs))[k] for k in ("pairs", "cost")], SHORT)
    assert configs[-1] == configs[0]  # and the same is found again


def test_score_distillations_that_differ_in_anything_are_other_runs(keys):
    configs, pairs = keys
    for changes_made in changes(pairs):
        fit_by_scores(
            changes_made["student"], changes_made["pairs"], changes_made["cost"], Scoring(changes_made["settings"])
        )
    base = next(changes(pairs))
    adversary = Adversary(weight=1e-3, start=0, body=0.01, rate=1.0, width=8)
    varied = {
        "adversary": adversary,
        "online_rank": 2,
        "w": 2.0,
        "segment": Segment((1.0, 1.0)),
        "online_updates": 1,
        "normalised": False,
        "matched": 0.5,
    }
    for field, value in varied.items():
        fit_by_scores(base["student"], pairs, base["cost"], Scoring(SHORT, **{field: value}))
    assert len(set(configs)) == len(configs) == 17


def test_the_online_model_alone_is_trained_once_for_all_that_start_from_the_same_student(keys):
    configs, pairs = keys
    base = next(changes(pairs))
    for before, rate in ((SHORT, 1.0), (SHORT, 2.0), (SHORT.with_seed(1), 2.0)):
        scoring = Scoring(SHORT, before=before, online_rate=rate)
        fit_by_scores(base["student"], pairs, base["cost"], scoring)
    before, after = configs[::2], configs[1::2]
    assert before[0] == before[1] != before[2] and len(set(after)) == 3


def test_loras_by_scores_are_known_by_the_networks_that_they_learn_from(keys):
    configs, pairs = keys
    base, style = next(changes(pairs)), student_of(pairs.model, 2)
    plain = pairs.model.network
    for networks in ((plain, plain), (style, plain), (plain, style), (style, style)):
        fit_by_scores(base["student"], pairs, base["cost"], Scoring(SHORT), networks)
    assert len(set(configs)) == len(configs) == 4


def test_tiny_decoders_are_known_by_their_matcher_and_their_form(keys):
    configs, pairs = keys
    decoded(pairs)
    base = {"loss": "features", "matcher": matcher(0), "width": 8, "blocks": 1}
    other = {"matcher": matcher(1), "loss": "l1", "width": 16, "blocks": 2, "fooling": 0.1, "critic_start": 5}
    other["critic"] = PatchCritic(r1=0.1)
    for changes_made in ({}, *({name: value} for name, value in other.items())):
        tiny_decoder(pairs, {}, SHORT, **base | changes_made)
    assert len(set(configs)) == len(configs) == 8

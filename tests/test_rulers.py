"""The second rulers: independent samples, standardised features, the spectrum, known damage, and rows of all of it."""

import math
from itertools import combinations
from types import SimpleNamespace

import pytest
import torch

from distill_lib.diffusion.pixels import from_patches, to_bytes
from distill_lib.diffusion.schedules import OURS, Schedule
from distill_lib.measure import features as features_module
from distill_lib.measure import independent
from distill_lib.measure.corruptions import CORRUPTIONS, Pool, kept_classes
from distill_lib.measure.distances import mmd2
from distill_lib.measure.features import Features, early, features_of, joined, moments, reference
from distill_lib.measure.independent import Sampled, independent_samples, labels
from distill_lib.measure.metrics import Reader
from distill_lib.measure.readers.extractor import Extractor
from distill_lib.measure.rows import Estimate, tidy
from distill_lib.measure.rulers import OF_NETWORKS, Rulers, world_values
from distill_lib.measure.spectrum import fine_share, in_band, sharpness_ratio, spectrum
from distill_lib.networks.adapter import Network
from distill_lib.networks.unet import build_unet
from distill_lib.worlds.captions import attributes, names_held_out
from distill_lib.worlds.pictures import WORLDS, Pictures, render_pictures
from distill_lib.worlds.scenes import draw_scenes


@pytest.fixture(scope="module")
def reader():
    torch.manual_seed(0)
    return Reader(Extractor(4, 3, width=8).eval().requires_grad_(False))


@pytest.fixture(scope="module")
def net():
    torch.manual_seed(0)
    unet = build_unet(resolution=16, n_classes=4, channels=(16, 32)).eval().requires_grad_(False)
    return Network(unet, bf16=False)


def solids(n, start=0):
    return render_pictures(WORLDS["plain"], 5, torch.arange(start, start + n))[0]


# ------------------------------------------------------------------------------------------------ independent samples


def test_labels_are_drawn_by_lot_and_the_streams_do_not_meet():
    first, other = labels(4000, 4), labels(4000, 4, stream="truth")
    counts = torch.bincount(first, minlength=4)
    assert counts.tolist() != [1000] * 4
    # multinomial: chi square of 3 degrees is below 16 with probability 0.999
    assert ((counts - 1000).square() / 1000).sum() < 16
    assert (first == other).double().mean().item() == pytest.approx(0.25, abs=4 * math.sqrt(0.25 * 0.75 / 4000))
    assert torch.equal(labels(100, 4), first[:100]) and not torch.equal(labels(100, 4, seed=1), first[:100])


def test_samples_are_counted_kept_and_of_their_own_stream(net, runs, monkeypatch):
    monkeypatch.setattr(independent, "_PART", 4)
    sampled = Sampled(net, 2, 0.0)
    six = independent_samples(sampled, 6)
    assert six.shape == (6, 3, 16, 16) and six.dtype == torch.uint8
    assert torch.equal(independent_samples(sampled, 4), six[:4])
    assert not torch.equal(independent_samples(sampled, 4, stream="truth"), six[:4])
    assert not torch.equal(independent_samples(sampled, 4, seed=1), six[:4])
    monkeypatch.setattr(independent, "sample_by", lambda *_: pytest.fail("these are kept"))
    assert torch.equal(independent_samples(sampled, 6), six)


def darker(x):
    """A decoder for another adapter of the same weights."""
    return from_patches(0.5 * x)


def test_what_changes_the_pictures_of_the_same_weights_is_part_of_the_key(net, runs):
    known = independent_samples(Sampled(net, 2, 0.0), 3)
    grid = {"schedule": Schedule(0.9 * OURS.alpha + 0.1)}  # with signal at its end, as a network of epsilon needs
    changes = grid, grid | {"predicts": "epsilon"}, {"decode": darker}
    drawn = [independent_samples(Sampled(net.like(net.module, **change), 2, 0.0), 3) for change in changes]
    for first, second in combinations([known, *drawn], 2):
        assert not torch.equal(first, second)


def test_an_unknown_stream_and_sampler_are_refused(net):
    with pytest.raises(ValueError, match="stream='other' is unknown; choose one of student, truth"):
        independent_samples(Sampled(net, 2, 0.0), 2, stream="other")
    with pytest.raises(ValueError, match="sampler='heun' is unknown"):
        independent_samples(Sampled(net, 2, 0.0, "heun"), 2)


# ------------------------------------------------------------------------------------------------ features


def test_the_moments_of_a_stream_are_those_of_all_of_it():
    x = 1e4 + torch.randn(100, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    parts = [moments(part) for part in x.split(30)]
    whole = parts[0]
    for part in parts[1:]:
        whole = joined(whole, part)
    assert whole.count == 100
    assert torch.allclose(whole.mean, x.mean(0), rtol=1e-12)
    assert torch.allclose(whole.covariance, x.T.cov(), rtol=1e-8)
    assert torch.equal(whole.first(2).covariance, whole.covariance[:2, :2])


def test_features_are_standard_and_see_blur_that_the_last_layer_may_not(reader):
    image = solids(40)
    f = features_of(reader, image)
    assert f.shape == (40, 64 + 2 * (8 + 16))
    assert torch.equal(f[:, :64], reader.read(image)["64"])
    assert torch.allclose(f[:, 64:], early(reader.net, image))
    z = Features(reader, moments(f))(image)
    assert torch.allclose(z.mean(0), torch.zeros(112, dtype=torch.float64), atol=1e-9)
    assert torch.allclose(z.std(0), torch.ones(112, dtype=torch.float64), atol=1e-9)
    flat = image[:1].repeat(40, 1, 1, 1)
    assert torch.equal(Features(reader, moments(features_of(reader, flat)))(flat), torch.zeros_like(z))


def test_early_features_of_a_linear_filter_halve_with_contrast_where_the_norm_would_hide_it(reader):
    image = solids(6)
    grey = to_bytes((image.float() / 127.5 - 1) / 2)
    spread = slice(8, 16)  # standard deviations over places of the first layer
    ratio = early(reader.net, grey)[:, spread] / early(reader.net, image)[:, spread]
    assert ratio.mean().item() == pytest.approx(0.5, abs=0.08)  # padding sees grey, not black, at the rim


def test_reference_is_rendered_once_in_parts(reader, runs, monkeypatch):
    monkeypatch.setattr(features_module, "_PART", 16)
    result = reference(reader, "plain", 40)
    image = render_pictures(WORLDS["plain"], 1002, torch.arange(40))[0]
    f = features_of(reader, image)
    assert result.count == 40
    assert torch.allclose(result.mean, f.mean(0)) and torch.allclose(result.covariance, f.T.cov(), atol=1e-8)
    monkeypatch.setattr(features_module, "render_pictures", lambda *_: pytest.fail("they are kept"))
    assert torch.equal(reference(reader, "plain", 40).mean, result.mean)


def test_reference_of_two_objects_is_of_what_prompts_ask_for(reader, runs):
    index = torch.arange(24)
    content = attributes(draw_scenes(WORLDS["captioned"], 1002, index), WORLDS["captioned"])
    kept = index[~names_held_out(content)]
    result = reference(reader, "captioned", 24)
    assert result.count == len(kept) < 24
    f = features_of(reader, render_pictures(WORLDS["captioned"], 1002, kept)[0])
    assert torch.allclose(result.mean, f.mean(0))


class Doubled(Extractor):
    """The same weights, other answers."""

    def forward(self, image):
        features, *rest = super().forward(image)
        return 2 * features, *rest


def test_a_reader_of_another_class_with_the_same_weights_has_moments_of_its_own(reader, runs):
    other = Doubled(4, 3, width=8)
    other.load_state_dict(reader.net.state_dict())
    first, second = (reference(judge, "plain", 8).mean[:64] for judge in (reader, Reader(other)))
    assert torch.allclose(second, 2 * first) and not torch.equal(first, second)


# ------------------------------------------------------------------------------------------------ spectrum


def wave(cycles, side=32):
    x = torch.arange(side) / side
    grey = 0.5 * torch.sin(2 * math.pi * cycles * x)
    return to_bytes(grey.expand(2, 3, side, side))


def test_the_power_of_a_wave_lies_at_its_cycles():
    for cycles in (3, 5, 9, 12):
        power = spectrum(wave(cycles))
        assert power.argmax() == cycles
        share = fine_share(wave(cycles))
        assert share > 0.99 if cycles > 8 else share < 0.01  # a Hann window spreads a line by one cycle


def test_white_noise_has_as_much_power_everywhere():
    noise = to_bytes(0.2 * torch.randn(64, 3, 32, 32, generator=torch.Generator().manual_seed(0)))
    power = spectrum(noise)[2:]
    assert power.std() < 0.1 * power.mean()
    k = torch.fft.fftfreq(32, 1 / 32)
    outside = ((k[:, None].square() + k.square()) > 49).double().mean().item()
    assert fine_share(noise) == pytest.approx(outside, abs=0.02)


def test_a_step_at_the_rim_is_no_edge():
    ramp = to_bytes(torch.linspace(-1, 1, 32).expand(1, 3, 32, 32))
    assert fine_share(ramp) < 1e-3  # without a window 3 % of a ramp


def test_the_band_of_sharpness_refuses_blur_and_noise():
    image = solids(8)
    assert in_band(sharpness_ratio(image, image))
    grain = image.float() + 12 * torch.randn(image.shape)
    assert not in_band(sharpness_ratio(grain.clamp(0, 255).to(torch.uint8), image))
    assert not in_band(0.89) and not in_band(1.11)


# ------------------------------------------------------------------------------------------------ corruptions


@pytest.fixture(scope="module")
def pool():
    image = solids(80)
    label = torch.arange(80) % 32
    return Pool(Pictures(image, label, tuple(map(str, range(32)))), solids(10, 500))


@pytest.mark.parametrize("name", CORRUPTIONS)
def test_damage_of_strength_0_is_none_and_any_other_is_some_in_the_order_of_strength(name, pool):
    damage, real = CORRUPTIONS[name], pool.first(40)
    assert torch.equal(damage(pool, 40, 0.0), real)
    changed = [(damage(pool, 40, s) != real).flatten(1).any(1).sum().item() for s in (0.3, 0.5)]
    assert 0 < changed[0] <= changed[1]
    assert damage(pool, 40, 0.3).shape == real.shape


def test_noise_and_colour_are_as_strong_as_they_say(pool):
    grey = Pool(
        Pictures(torch.full((20, 3, 32, 32), 128, dtype=torch.uint8), torch.arange(20) % 4, tuple("abcd")), None
    )
    noisy = CORRUPTIONS["noise"](grey, 20, 0.1).float() / 127.5 - 1
    assert noisy.std().item() == pytest.approx(0.1, rel=0.02)
    shifted = CORRUPTIONS["colour"](grey, 20, 0.1).float() / 127.5 - 1
    assert shifted.mean((0, 2, 3)).tolist() == pytest.approx([0.104, 0.004, -0.096], abs=0.004)


def test_dropped_classes_never_come_and_more_of_them_hold_the_fewer(pool):
    few, many = kept_classes(32, 0.5), kept_classes(32, 0.1)
    assert (len(few), len(many)) == (16, 29) and set(few.tolist()) < set(many.tolist())
    image = CORRUPTIONS["dropped"](pool, 32, 0.5)
    number = [next(i for i, real in enumerate(pool.real.image) if torch.equal(real, item)) for item in image]
    assert set(pool.real.label[number].tolist()) <= set(few.tolist())


def test_copies_are_training_pictures(pool):
    image = CORRUPTIONS["copied"](pool, 40, 0.5)
    assert torch.equal(image[:10], pool.training) and torch.equal(image[10:20], pool.training)
    assert torch.equal(image[20:], pool.first(40)[20:])


def test_a_pool_that_is_too_small_is_refused(pool):
    with pytest.raises(ValueError, match="n=81 pictures of a pool of 80"):
        CORRUPTIONS["blur"](pool, 81, 0.5)
    with pytest.raises(ValueError, match="pictures of the 16 classes that are kept, n=60; take a larger pool"):
        CORRUPTIONS["dropped"](pool, 60, 0.5)


# ------------------------------------------------------------------------------------------------ rows


def test_values_of_equal_sets_are_perfect_and_rows_hold_their_errors(reader):
    real = solids(64)
    features = Features(reader, moments(features_of(reader, solids(200, 100))))
    values = world_values(features, real, real.clone())
    assert values["precision"] == values["recall"] == values["coverage"] == 1
    assert values["sharpness_ratio"] == values["fine_ratio"] == 1
    assert abs(values["mmd_world"].value) <= 1e-9 + 2 * values["mmd_world"].error
    rows = tidy({"fid_inf": Estimate(1.0, 0.5), "recall": 1.0}, method="ddim", n=64)
    assert rows == [
        {"method": "ddim", "n": 64, "metric": "fid_inf", "value": 1.0, "error": 0.5},
        {"method": "ddim", "n": 64, "metric": "recall", "value": 1.0},
    ]


def test_rows_of_a_network_compare_it_with_the_teachers_other_noise(net, reader, runs):
    features = Features(reader, moments(features_of(reader, solids(200, 100))))
    rulers = Rulers.of_classes(features, Sampled(net, 4, 1.0), 32)
    rows = {row["metric"]: row for row in rulers.rows("ddim", Sampled(net, 2, 0.0))}
    assert set(rows) == set(OF_NETWORKS) and all("error" in row for row in rows.values())
    columns = {"method": "ddim", "steps": 2, "w": 0.0, "nfe": 2, "seed": 0}
    assert all(row.items() >= columns.items() for row in rows.values())
    assert (rows["fid_inf"]["n"], rows["mmd_teacher"]["n"]) == (32, 16)  # half as many of the truth
    z = [features(independent_samples(Sampled(net, k, 0.0), 16, 0, of)) for k, of in ((2, "student"), (4, "truth"))]
    assert rows["mmd_teacher"]["value"] == mmd2(*z).value
    assert rulers.truth(0.0) is rulers.truth(0.0)
    own = {row["metric"]: row for row in rulers.rows("teacher", Sampled(net, 4, 0.0))}["mmd_teacher"]
    assert Estimate(own["value"], own["error"]).within(3)


def test_only_what_is_asked_for_is_drawn_and_measured(net, reader):
    features = Features(reader, moments(features_of(reader, solids(200, 100))))
    drawn = []

    def draw(sampled, stream):
        drawn.append((sampled.n_steps, sampled.w, stream))
        return solids(32, 300)

    rulers = Rulers(features, draw, Sampled(net, 8, 0.0), seed=5)
    rows = rulers.measure("ddim", {1: net, 2: net}, [0.0, 1.0], metrics=["fid_inf"])
    assert drawn == [(1, 0.0, "student"), (2, 0.0, "student"), (1, 1.0, "student"), (2, 1.0, "student")]
    assert [(row["metric"], row["nfe"], row["seed"]) for row in rows] == [("fid_inf", n, 5) for n in (1, 2, 2, 4)]
    with pytest.raises(ValueError, match="recall needs real pictures"):
        rulers.rows("ddim", Sampled(net, 1, 0.0), ["recall"])


def test_recall_is_the_share_of_as_many_real_pictures_that_lie_among_the_samples(net):
    line = torch.arange(32)[:, None].double()  # pictures of one number, which is their feature
    far = torch.where(line < 24, line, 200 + line)
    rulers = Rulers(
        SimpleNamespace(last=lambda image: image), lambda *_: line, Sampled(net, 8, 0.0), real=lambda n: far[:n]
    )
    (row,) = rulers.rows("ddim", Sampled(net, 2, 1.0), ["recall"])
    assert row["value"] == 24 / 32 and row["n"] == 32 and "error" not in row

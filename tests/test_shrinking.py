"""Measures of what was made smaller give the numbers that follow from their formulas."""

import copy
import dataclasses
import math

import pytest
import torch

from distill_lib.diffusion.pixels import to_bytes
from distill_lib.experiments.compression import held_out_pairs
from distill_lib.experiments.sdxs_task import SdxsTask
from distill_lib.measure import compression
from distill_lib.measure.compression import DECODERS, UNETS, Probe, decoder_rows, meta_unets
from distill_lib.measure.metrics import psnr
from distill_lib.measure.rows import select
from distill_lib.networks.pipeline import open_pipeline
from distill_lib.networks.pruning import SDXS_512, Cut, prune
from distill_lib.report.compression import (
    difference,
    over_levels,
    over_noise,
    removal_table,
    small_units,
    sweep,
    tap_table,
    trade,
    zoomed,
)
from distill_lib.run.true_scale import SD_21
from distill_lib.sdxs.tiny_decoder import DECODER_LOSSES, tiny_decoder
from distill_lib.shipped import pretrained
from distill_lib.teachers.latents import decoded, teacher_pairs
from distill_lib.worlds.captions import drawn_attributes, say


class FakeBenchmark:
    """Prompts whose judges say nothing."""

    seed, prompts = 0, say(drawn_attributes(4, 0))


@pytest.fixture
def model(small_pipeline, runs):
    return open_pipeline(small_pipeline[0], bf16=False)


@pytest.fixture
def held(model):
    return teacher_pairs(model, say(drawn_attributes(4, 0)), 2, 1.0, 5, "teacher")


@pytest.fixture
def benchmark(monkeypatch):
    monkeypatch.setattr(compression, "picture_rows", lambda _benchmark, image, truth, provenance: [])
    return FakeBenchmark()


def pictures(seed=0, n=4, side=16):
    return (torch.rand(n, 3, side, side, generator=torch.Generator().manual_seed(seed)) * 200 + 20).to(torch.uint8)


def test_a_difference_of_one_grey_level_has_its_known_ratio():
    image = pictures()
    assert psnr(image + 1, image) == pytest.approx(20 * math.log10(255), abs=1e-4)
    assert psnr(image, image) == math.inf


def test_pooled_pictures_keep_their_means_and_lose_all_else():
    image = pictures()
    pooled = compression.pooled(image, 4)
    assert pooled.shape == image.shape and pooled.dtype == torch.uint8
    squares = pooled.unfold(2, 4, 4).unfold(3, 4, 4)
    assert (squares == squares[..., :1, :1]).all()
    means = image.float().unfold(2, 4, 4).unfold(3, 4, 4).mean((-1, -2))
    assert (squares[..., 0, 0].float() - means).abs().max() <= 0.5
    assert torch.equal(compression.pooled(pooled, 4), pooled)
    assert torch.equal(compression.pooled(image, 1), image)


def test_a_prediction_of_another_size_has_the_error_of_its_factor(model, held):
    probe = Probe(held, [1, 512, 1024], 3)
    for factor in (0.0, 0.9, 1.0):
        student = model.network.like(copy.deepcopy(model.network.module))
        for last in student.module.conv_out.parameters():
            last.mul_(factor)
        rows = probe.prediction_rows(student, "tiny")
        assert [row["value"] for row in rows] == pytest.approx([(1 - factor) ** 2] * 3, abs=1e-6)
    assert [row["t"] for row in rows] == [1 / 1024, 0.5, 1.0]


def test_a_prompt_that_says_nothing_changes_nothing(model, held):
    assert all(row["value"] > 0 for row in Probe(held, [1, 512], 3).prompt_rows("teacher"))
    silent = dataclasses.replace(held, prompts=[""] * len(held))
    rows = Probe(silent, [1, 512], 3).prompt_rows("teacher")
    assert [row["value"] for row in rows] == pytest.approx([0, 0], abs=1e-9)


def test_latents_held_back_are_made_as_the_shipped_ones_but_of_other_noise(model, monkeypatch):
    recipe = {"teacher_steps": 2, "w": 1.0, "seed": 300, "solver": "unipc"}
    monkeypatch.setattr(pretrained, "made", lambda name: {"pairs-scenes": {"config": recipe}}[name])
    prompts = say(drawn_attributes(3, 0))
    result = held_out_pairs("scenes", model, prompts, 1)
    assert torch.equal(result.x, teacher_pairs(model, prompts, 2, 1.0, result.seed, "again", "unipc").x)
    assert result.seed not in (300, held_out_pairs("scenes", model, prompts, 0).seed)


def test_the_large_decoder_is_itself_and_a_darker_one_is_as_far_as_it_is_darker(model, held, benchmark):
    decode, vae = model.network.decode, model.pipe.vae
    truth = decoded(held)
    rows, image = decoder_rows(benchmark, held, decode, vae.decoder, truth, "large", 1)
    assert torch.equal(image, truth)
    assert {row["metric"] for row in rows} == {"sharpness_kept", "params", "seconds"}
    assert select(rows, metric="sharpness_kept")[0]["value"] == 1
    assert select(rows, metric="params")[0]["value"] == sum(p.numel() for p in vae.decoder.parameters())
    loud, dull = (lambda z, by=by: by * decode(z) for by in (0.2, 0.1))  # an untrained decoder leaves [-1, 1]
    truth = to_bytes(loud(held.x))
    rows, image = decoder_rows(benchmark, held, dull, vae.decoder, truth, "dull", 1)
    value = {row["metric"]: row["value"] for row in rows}
    assert torch.equal(image, to_bytes(dull(held.x)))
    assert value["sharpness_kept"] == pytest.approx(0.25, rel=0.05)
    assert value["psnr"] == pytest.approx(10 * math.log10(4 / dull(held.x).square().mean().item()), rel=0.02)
    assert value["psnr_coarse"] > value["psnr"]


def test_variants_are_arguments_of_the_trainings(held, monkeypatch):
    for function, variants in ((tiny_decoder, DECODERS), (SdxsTask.small_unet, UNETS)):
        known = function.__kwdefaults__
        assert all(set(choice) <= set(known) for choice in variants.values())
        settings = [tuple(sorted((known | choice).items(), key=str)) for choice in variants.values()]
        assert len(set(settings)) == len(settings)
    assert {choice.get("loss") for choice in DECODERS.values()} == set(DECODER_LOSSES)


# --- drawing


def test_the_middle_is_enlarged_and_equal_pictures_differ_by_grey():
    image = pictures()
    assert torch.equal(zoomed(image)[..., ::2, ::2], image[..., 4:12, 4:12])
    assert torch.equal(zoomed(image, 1), image)
    assert (difference(image, image) == 128).all()
    assert (difference(image + 3, image, 4) == 140).all()


def row(metric, value, **more):
    return {"method": "a", "metric": metric, "value": value, "seed": 0} | more


def test_tables_show_millions_milliseconds_and_the_median_over_noise():
    result = small_units([row("params", 2_500_000), row("seconds", 0.004), row("fid", 3.0)])
    assert [(item["metric"], item["value"]) for item in result] == [
        ("millions", pytest.approx(2.5)),
        ("milliseconds", pytest.approx(4)),
        ("fid", 3.0),
    ]
    levels = [row("e", value, t=t, seed=seed) for seed in (0, 1) for t, value in enumerate([1.0, 9.0, 2.0 + seed])]
    result = over_levels([row("fid", 3.0), *levels])
    assert result == [row("fid", 3.0), row("e", 2.0), row("e", 3.0, seed=1)]


def test_a_sweep_places_its_values_evenly_and_levels_across():
    rows = [row("fid", 10 + x, weight=x, seed=seed) for x in (0.0, 0.1, 10.0) for seed in (0, 1)]
    rows.append({"method": "large", "metric": "fid", "value": 1.0, "seed": 0})
    (ax,) = sweep(rows, "weight", ["fid"], 0.1, "title").axes
    line, base, level = ax.lines
    assert line.get_xydata().tolist() == [[0, 10], [1, 10.1], [2, 20]]
    assert base.get_xydata().tolist() == [[1, 10.1]]
    assert level.get_ydata()[0] == 1.0
    assert [tick.get_text() for tick in ax.get_xticklabels()] == ["0", "0.1", "10"]


def test_a_trade_has_a_point_for_each_method_that_has_both_metrics():
    rows = [row(metric, value, seed=seed) for metric in ("psnr", "fid") for seed, value in enumerate((1.0, 3.0))]
    rows.append(row("fid", 5.0, method="large"))
    (ax,) = trade(rows, [("psnr", "fid")], "title", ("fid",)).axes
    assert [container.lines[0].get_xydata().tolist() for container in ax.containers] == [[[2.0, 2.0]]]
    assert (ax.get_xscale(), ax.get_yscale()) == ("linear", "log")


def test_lines_over_noise_leave_out_what_is_zero():
    rows = [row("e", value, t=t) for t, value in ((0.5, 2.0), (1.0, 4.0))] + [row("e", 0.0, t=0.5, method="teacher")]
    rows.append(row("size", 7.0, t=0.5, method="teacher"))
    (ax,) = over_noise(rows, "e", "size", "title").axes
    assert [line.get_xydata().tolist() for line in ax.lines] == [[[0.5, 2.0], [1.0, 4.0]], [[0.5, 7.0]]]


def test_the_table_of_a_cut_names_what_goes_and_adds_up():
    both = meta_unets(SD_21, SDXS_512)
    header, lines = removal_table(*both)
    stages = {name: (before, after) for name, before, after in lines}
    assert header == ["stage", "before", "after"]
    assert [name for name, (_, after) in stages.items() if after == "removed"] == ["down 4", "middle", "up 1"]
    assert stages["up 4"][0].startswith("3 ResNets, 3 Transformers of depth 1") and stages["up 4"][1].startswith(
        "2 ResNets:"
    )
    for column in (1, 2):
        parts = [float(line[column].split()[-2]) for line in lines if line[column] != "removed"]
        assert sum(parts[:-1]) == pytest.approx(parts[-1], abs=0.1)


def test_the_table_of_taps_pairs_a_stage_with_the_one_that_it_came_from(model):
    whole = model.network.module
    _, lines = tap_table(whole, prune(whole, Cut(middle="removed")))
    assert all(student_block == teacher_block for student_block, teacher_block in lines) and len(lines) == 4
    _, lines = tap_table(*meta_unets(SD_21, SDXS_512))
    assert ("up_blocks.0.attentions.1", "up_blocks.1.attentions.2") in lines

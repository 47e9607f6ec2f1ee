"""Measures of control on scenes whose maps are known."""

import pytest
import torch

from distill_lib.measure.control import ControlBenchmark, Readers, diversity, drawn, recoloured
from distill_lib.measure.readers.attributes import AttributeReader
from distill_lib.measure.readers.geometry import Geometry
from distill_lib.measure.systems import System
from distill_lib.networks.controlnet import Controlled, build_control
from distill_lib.networks.pipeline import open_pipeline
from distill_lib.worlds.captions import attributes, drawn_attributes, names_held_out
from distill_lib.worlds.pictures import WORLDS
from distill_lib.worlds.scenes import draw_scenes


@pytest.fixture
def control_benchmark(small_pipeline, runs):
    torch.manual_seed(0)
    model = open_pipeline(small_pipeline[0], bf16=False)
    return ControlBenchmark.of(model, "captioned", 3, 1, Readers(AttributeReader(8, 64).eval(), Geometry(8)))


def values(rows):
    return {row["metric"]: row["value"] for row in rows}


def test_other_prompts_keep_what_a_map_shows_and_change_the_rest():
    wanted_attributes = drawn_attributes(64, 3)
    others = recoloured(wanted_attributes, 4)
    assert others.shape == (4, 64, 2, 4)
    assert torch.equal(others[..., [0, 3]], wanted_attributes[..., [0, 3]].expand(4, -1, -1, -1))
    assert not any(names_held_out(group).any() for group in others)
    every = torch.cat([wanted_attributes[None], others])
    for a in range(5):
        for b in range(a):
            assert (every[a] != every[b]).flatten(1).any(1).all()
    assert not (others[..., 1] == wanted_attributes[..., 1]).all((0, 2)).any()  # colours change


def test_diversity_is_the_mean_square_difference_of_all_pairs():
    black = torch.zeros(2, 3, 4, 4, dtype=torch.uint8)
    white = black + 255
    assert diversity([black, black]) == 0
    assert diversity([black, white]) == pytest.approx(4)  # (1 - -1)^2
    assert diversity([black, black, white]) == pytest.approx(8 / 3)


def test_scenes_are_held_out_and_their_true_pictures_have_all_edges(control_benchmark):
    scenes = draw_scenes(WORLDS["captioned"], 7001, torch.arange(64))
    wanted_attributes = attributes(scenes, WORLDS["captioned"])
    assert torch.equal(control_benchmark.wanted_attributes, wanted_attributes[~names_held_out(wanted_attributes)][:3])
    result = values(control_benchmark.rows(control_benchmark.image, {}))
    assert result["edge_f1"] == 1 and "psnr" not in result
    other = values(control_benchmark.rows(control_benchmark.image.roll(1, 0), {}))
    assert other["edge_f1"] < 0.8 and other["psnr"] < 25
    assert control_benchmark.mask.max() <= 1 and (control_benchmark.mask.float().amax((1, 2)) == 1).all()


def test_psnr_is_ten_times_the_logarithm(control_benchmark):
    moved = (control_benchmark.image.int() + torch.where(control_benchmark.image > 127, -51, 51)).to(
        torch.uint8
    )  # a fifth of the range
    assert values(control_benchmark.rows(moved, {}))["psnr"] == pytest.approx(
        10 * torch.tensor(25.0).log10().item(), rel=1e-4
    )


def test_pictures_depend_on_map_noise_and_weights_and_are_kept(control_benchmark):
    torch.manual_seed(5)
    control = build_control(control_benchmark.model.network.module, 4)
    for part in (*control.controlnet_down_blocks, control.controlnet_cond_embedding.conv_out):
        torch.nn.init.normal_(part.weight, std=0.3)
    net = Controlled(control_benchmark.model.network, control)
    system = System(control_benchmark.model, net, 1, 0.0)
    maps = control_benchmark.maps("edges")
    image = drawn(system, control_benchmark.prompts, maps)
    assert torch.equal(image, drawn(system, control_benchmark.prompts, maps))
    others = [drawn(system, control_benchmark.prompts, 1 - maps), drawn(system, control_benchmark.prompts, maps, 1)]
    torch.nn.init.zeros_(control.controlnet_down_blocks[0].weight)
    others += [
        drawn(system, control_benchmark.prompts, maps),
        drawn(System(control_benchmark.model, control_benchmark.model.network, 1, 0.0), control_benchmark.prompts),
    ]
    assert not any(torch.equal(image, other) for other in others)


def test_rows_of_a_system_hold_every_metric_once(control_benchmark):
    system, columns = (
        System(control_benchmark.model, control_benchmark.model.network, 2, 1.0),
        {"method": "teacher", "seed": 0},
    )
    rows = control_benchmark.rows_of(system, "", columns) + control_benchmark.spread(system, "", 2, 2, columns)
    rows += control_benchmark.seconds(system, "", 1, columns)
    metrics = [row["metric"] for row in rows]
    assert len(set(metrics)) == len(metrics) and {"diversity", "diversity_prompt", "seconds", "edge_f1"} <= set(metrics)
    assert rows[0]["nfe"] == 4 and all(torch.tensor(row["value"]).isfinite() for row in rows)
    bounds = control_benchmark.bounds({"autoencoder": control_benchmark.model.network.decode}, {"seed": 0})
    assert {row["method"] for row in bounds} == {"real", "autoencoder"}

"""Looks: the same scenes, their layouts, and who reads them."""

import math
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from distill_lib.engine import store
from distill_lib.engine.loop import TrainSettings, finish
from distill_lib.engine.trainable import Bare
from distill_lib.measure import styles
from distill_lib.measure.distances import Moments, mmd2
from distill_lib.measure.readers.extractor import called_look, look_codes, scene_examples
from distill_lib.measure.readers.layout import Layout, layout_iou, read_layout, train_layout, true_layout
from distill_lib.measure.rows import select
from distill_lib.measure.styles import Looks, Readers, world_of
from distill_lib.worlds.looks import clay
from distill_lib.worlds.pictures import WORLDS
from distill_lib.worlds.scenes import LOOKS, draw_scenes, render

TWO = [WORLDS[world_of(look)] for look in LOOKS]


# ---------------------------------------------------------------------------------------------------------- the world


def test_all_looks_show_the_same_scenes_and_no_two_are_alike():
    index = torch.arange(6)
    result = [render(draw_scenes(spec, 0, index), spec) for spec in TWO]
    assert all(torch.equal(result[0].masks, item.masks) and torch.equal(result[0].depth, item.depth) for item in result)
    for i, item in enumerate(result):
        assert all((item.image - other.image).abs().mean() > 0.1 for other in result[:i])


def test_clay_is_dark_where_it_turns_away_from_light_or_camera_and_bare_where_no_solid_is():
    toward = torch.tensor([[[0.0, 1.0, 0.0]]])
    normal = torch.tensor([[[0.0, 1.0, 0.0], [0.0, -1.0, 0.0], [0.0, 1.0, 0.0], [1.0, 0.0, 0.0], [1.0, 0.0, 0.0]]])
    facing, owner = torch.tensor([[1.0, 1.0, 0.0, 1.0, 1.0]]), torch.tensor([[0, 0, 0, -1, -2]])
    albedo = torch.full((1, 5, 3), 0.5)
    lit, away, rim, table, wall = clay(albedo, normal, toward, facing, owner)[0]
    assert (lit > away).all() and (lit > rim).all()
    assert torch.allclose(away / lit, torch.full((3,), 0.45)) and torch.allclose(rim / lit, torch.full((3,), 0.35))
    again = clay(0 * albedo, -normal, toward, 0 * facing, owner)[0]
    assert torch.equal(again[3:], torch.stack([table, wall]))  # neither light nor paint reaches them


def test_an_unknown_look_has_no_world():
    with pytest.raises(ValueError, match="look='oil': the world is drawn as photo, sketch, clay"):
        world_of("oil")


# ------------------------------------------------------------------------------------------------------- who reads it


def test_looks_are_written_as_codes_that_stay_what_they_were_for_two():
    three, two = look_codes(LOOKS), look_codes(["photo", "sketch"])
    assert [code.tolist() for code in three.values()] == [[3, -3], [-3, 3], [-3, -3]]
    assert {look: code.tolist() for look, code in two.items()} == {"photo": [3], "sketch": [-3]}


def test_lessons_of_three_looks_end_in_their_codes(runs):
    _, _, values, weights = scene_examples(TWO, 3, 5)
    wanted = torch.stack([*look_codes(LOOKS).values()]).repeat_interleave(3, 0)
    assert torch.equal(values[:, -2:], wanted) and bool((weights[:, -2:] == 1).all())


class Constant(nn.Module):
    """An extractor that answers what it is given: a picture's first pixel picks a row of `answers`."""

    def __init__(self, answers):
        super().__init__()
        self.answers = nn.Parameter(answers)

    def forward(self, image):
        index = ((image[:, 0, 0, 0] + 1) * 127.5).round().long()
        return index, index, self.answers[index]


def test_a_picture_is_called_by_the_nearest_code():
    rest = torch.tensor([9.0, 9.0])  # blur and grain, and a factor before, have no say
    answers = torch.tensor([[7.0, 2.0, -2.0], [7.0, -1.0, 1.5], [7.0, -4.0, -1.0], [7.0, 0.5, -0.5]])
    net = Constant(torch.cat([answers, rest.expand(4, 2)], 1))
    image = torch.arange(4, dtype=torch.uint8)[:, None, None, None].expand(4, 3, 2, 2)
    assert called_look(net, image, LOOKS).tolist() == [0, 1, 2, 0]


# ---------------------------------------------------------------------------------------------------------- the layout


def test_a_layout_is_left_before_right_and_that_of_every_look():
    index = torch.arange(24)
    result = [true_layout(spec, 3, index) for spec in TWO]
    assert torch.equal(result[0], result[1]) and torch.equal(result[0], result[2])
    across = torch.arange(64.0)
    middle = (result[0].float() * across).sum((2, 3)) / result[0].float().sum((2, 3))
    assert bool((middle[:, 0] < middle[:, 1]).all())


def test_overlap_is_the_mean_over_both_solids():
    true = torch.zeros(4, 2, 4, 4, dtype=torch.bool)
    true[:3, :, :2] = True  # 8 pixels each
    result = true.clone()
    result[1, 1] = true[0, 0].roll(1, 0)  # half of the right one, and 4 others
    result[2] = ~true[2]
    assert layout_iou(result, true).tolist() == pytest.approx([1, (1 + 4 / 12) / 2, 0, 1])
    assert torch.equal(layout_iou(result, true), layout_iou(true, result))


def test_a_reader_of_layouts_learns_and_a_world_of_one_object_has_none(runs, monkeypatch):
    small = [replace(spec, resolution=16) for spec in TWO]
    settings = TrainSettings(steps=150, batch_size=16, lr=5e-3, warmup=5, ema=0.9, bf16=False)
    torch.manual_seed(0)
    net = Layout(8)
    run = store.Run("layout", {}, train_layout)
    finish(Bare(net), train_layout(Bare(net), small, 24, settings, run), run, "layout")
    image = (render(draw_scenes(small[2], 0, torch.arange(24)), small[2]).image * 127.5 + 127.5).to(torch.uint8)
    true = true_layout(small[2], 0, torch.arange(24)) > 0.5
    assert layout_iou(read_layout(net, image), true).mean() > layout_iou(true.roll(1, 0), true).mean() + 0.1
    with pytest.raises(ValueError, match="two named objects; this world has 1"):
        true_layout(WORLDS["textured"], 0, torch.arange(2))


# -------------------------------------------------------------------------------------------------------- the measures


class Bright(nn.Module):
    """A reader of layouts that takes bright pixels for the left solid and dark ones for the right one."""

    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.ones(1))

    def forward(self, image):
        grey = self.scale * image.mean(1)
        return torch.stack([grey, -grey], 1)


@pytest.fixture
def measured(runs, monkeypatch):
    """Looks of four scenes, with readers that need no training: distances are differences of pixels."""
    monkeypatch.setattr(styles, "Reader", lambda net: net)
    monkeypatch.setattr(styles, "fid", lambda reader, a, b: (a.float() - b.float()).abs().mean().item())
    monkeypatch.setattr(styles, "reference", lambda reader, world, count: Moments(torch.zeros(3), torch.eye(3), count))
    monkeypatch.setattr(styles, "Features", lambda reader, real: lambda image: image.double().mean((2, 3)) / 255)
    monkeypatch.setattr(styles, "called_look", lambda net, image, names: torch.tensor([1, 1, 1, 2]))
    monkeypatch.setattr(styles, "read_attributes", lambda net, image: looks.shows)
    looks = Looks(None, Readers(None, Bright(), None), 4, 8, 2.0, 3)
    return looks


def of(rows, metric):
    (value,) = [row["value"] for row in rows if row["metric"] == metric]
    return value


def test_a_true_picture_is_at_its_place_in_its_look(measured):
    true, photo = measured.real["sketch"], measured.real["photo"]
    rows = measured.rows("true", true, "sketch", true, scale=0.5)
    assert of(rows, "fid_look") == 0 and of(rows, "layout") == 1 and of(rows, "prompt_accuracy") == 1
    assert of(rows, "style") == 0.75 and of(measured.rows("x", true, "clay", true), "style") == 0.25
    assert {row["kind"] for row in rows} == {"sketch"} and {row["scale"] for row in rows} == {0.5}
    assert of(measured.rows("x", true, "sketch", photo), "layout") < 1


def test_the_distance_to_a_look_is_to_other_scenes_and_holds_its_error(measured):
    features, other = measured.others("sketch")
    assert not torch.equal(other, measured.real["sketch"]) and len(other) == 4
    (row,) = select(measured.rows("x", measured.real["sketch"], "sketch", measured.real["photo"]), metric="mmd_look")
    wanted = mmd2(features(measured.real["sketch"]), features(other))
    assert (row["value"], row["error"]) == (wanted.value, wanted.error)
    assert measured.look_distance(255 - other, "sketch").value > wanted.value


def test_prompts_are_what_the_scenes_show_and_seeds_have_their_own(measured):
    assert len(measured.prompts) == 4 and {len(image) for image in measured.real.values()} == {4}
    other = Looks(None, measured.readers, 4, 8, 2.0, 4)
    assert other.prompts != measured.prompts and not torch.equal(other.real["clay"], measured.real["clay"])


def test_a_decoder_that_gives_back_what_went_in_loses_nothing(measured):
    measured.model = SimpleNamespace(latents=lambda part: part.float() / 127.5 - 1)
    rows = measured.decoder_rows({"same": lambda z: z, "dark": lambda z: z - 10 / 127.5}, ["clay"])
    values = {(row["method"], row["metric"]): row["value"] for row in rows}
    assert values["same", "psnr"] > 60 and values["same", "sharpness_kept"] == pytest.approx(1)
    assert values["dark", "psnr"] == pytest.approx(20 * math.log10(2 * 127.5 / 10), abs=1e-3)

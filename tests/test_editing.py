"""Edits change what is asked for and nothing else, and their metrics see what their names say."""

import pytest
import torch
from closed_forms import Gaussian, fake_network

from distill_lib.diffusion.samplers import sample, trajectory
from distill_lib.diffusion.schedules import step_grid
from distill_lib.measure.editing import Edits, redraw, seam
from distill_lib.worlds.captions import names_held_out


@pytest.fixture(scope="module")
def edits():
    return {kind: Edits.drawn("captioned", kind, 24, 0) for kind in ("colour", "shape")}


def test_one_attribute_of_one_solid_changes_and_is_no_pair_held_out(edits):
    for column, kind in ((1, "colour"), (0, "shape")):
        edit = edits[kind]
        changed = edit.was != edit.wanted_attributes
        assert (changed.sum((1, 2)) == 1).all() and changed[..., column].any(1).all()
        assert not names_held_out(edit.wanted_attributes).any()
        assert changed[:, 0].any() and changed[:, 1].any()  # the left one, and the right one


def test_nothing_else_of_a_picture_changes_but_shade(edits):
    """A recoloured solid keeps its outline; outside the region only shadows of a reshaped one may move."""
    for kind, share in (("colour", 0.0), ("shape", 0.02)):
        edit = edits[kind]
        differs = (edit.before != edit.after).any(1, keepdim=True).float()
        assert (differs * (1 - edit.region)).mean() <= share
        assert (differs * edit.region).sum() > 0


def test_regions_are_boxes(edits):
    region = edits["shape"].region
    rows, columns = region.amax(3).sum((1, 2)), region.amax(2).sum((1, 2))
    assert torch.equal(region.sum((1, 2, 3)), rows * columns)


def test_redrawing_from_the_start_is_sampling_and_later_it_is_the_last_steps():
    x, eps = torch.randn(2, 3, 4, 4), torch.randn(2, 3, 4, 4)
    assert torch.allclose(redraw(fake_network, x, eps, 4, 0), sample(fake_network, eps, 4), atol=1e-5)
    exact = Gaussian(0.3, 0.5)
    states = trajectory(exact, eps, step_grid(4))
    noised = redraw(exact, x, eps, 4, 1)
    assert noised.shape == x.shape and not torch.allclose(noised, states[-1])
    with pytest.raises(ValueError, match="first=4: of 4 steps, 0 to 3"):
        redraw(exact, x, eps, 4, 4)


def test_little_noise_gives_the_picture_back():
    x, eps = torch.randn(2, 3, 4, 4), torch.randn(2, 3, 4, 4)
    few, many = ((redraw(Gaussian(0.0, 1.0), x, eps, 64, first) - x).square().mean() for first in (62, 16))
    assert few < 0.1 * many


class Reads:
    """A reader that finds what it is told."""

    def __init__(self, result):
        self.result = result

    def parameters(self):
        return iter([torch.zeros(1)])

    def __call__(self, image):
        kinds = (4, 8, 3, 2)
        logits = torch.zeros(len(image), 2, sum(kinds))
        start = 0
        for k, size in enumerate(kinds):
            logits.scatter_(2, start + self.result[..., k : k + 1], 1.0)
            start += size
        return logits


def test_metrics_of_the_true_edit_and_of_none(edits):
    edit = edits["colour"]
    right = edit.judged(edit.after, Reads(edit.wanted_attributes))
    assert right["edit_success"] == 1 and right["paired_target"] == 0 and right["seam"] == pytest.approx(1)
    assert right["outside"] == 0
    none = edit.judged(edit.before, Reads(edit.was))
    assert none["edit_success"] == 0 and none["outside"] == 0 and none["paired_target"] > 0
    rows = edit.rows(edit.before, Reads(edit.was), {"method": "source", "seed": 3})
    assert {row["metric"]: row["value"] for row in rows} == none
    assert all(row["method"] == "source" and row["seed"] == 3 and row["n"] == 24 for row in rows)


def test_the_distance_to_the_true_edit_in_features_is_of_the_region_alone(edits):
    edit = edits["shape"]

    def features(image):  # pixels as features: the square error
        return image.double().flatten(1)

    reads = Reads(edit.wanted_attributes)
    assert "feature_target" not in edit.judged(edit.after, reads)
    spoiled = torch.where(edit.region > 0, edit.after, 255 - edit.after)
    assert edit.judged(spoiled, reads, features)["feature_target"] == 0
    apart = (edit.before.double() - edit.after.double()) * edit.region
    result = edit.judged(edit.before, reads, features)["feature_target"]
    assert result == pytest.approx(apart.square().mean().item()) and result > 0


def test_a_patch_that_was_pasted_in_shows_a_seam():
    truth = (100 + 2 * torch.arange(16)).expand(2, 3, 16, 16).to(torch.uint8)
    mask = torch.zeros(2, 1, 16, 16)
    mask[..., 4:12, 4:12] = 1
    pasted = torch.where(mask > 0, 200, truth.float()).to(torch.uint8)
    assert seam(truth, truth, mask) == pytest.approx(1)
    assert seam(pasted, truth, mask) > 5

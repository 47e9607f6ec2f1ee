"""What is measured of text-to-image is what its name says, for all methods alike."""

import pytest
import torch

from distill_lib.attributes import AttributeReader
from distill_lib.evaluation import sample_pictures
from distill_lib.extractor import Extractor
from distill_lib.metrics import Reader, paired
from distill_lib.pipelines import open_pipeline
from distill_lib.prompting import Judges, Prompted, alignment, real_pictures
from distill_lib.small_diffusion import build_clip
from distill_lib.worlds.captions import drawn_attributes, names_held_out, say
from distill_lib.worlds.datasets import WORLDS, render_pictures

SIZES = {"width": 16, "layers": 1, "tower": 8, "seed": 0}


@pytest.fixture
def judges():
    torch.manual_seed(0)
    return Judges(Reader(Extractor(6, 3, 8, 64).eval()), AttributeReader(8).eval(), build_clip(SIZES, 64).eval())


@pytest.fixture
def prompted(small_pipeline, judges, runs):
    return Prompted(open_pipeline(small_pipeline[0], bf16=False), judges, "captioned", 8, 4, 1.0, seed=3)


def test_everybody_gets_the_same_prompts_and_noise(prompted):
    net = prompted.told.network
    image = prompted.pictures(net, 2, 0.0)
    assert torch.equal(image, sample_pictures(net, 2, 0.0, prompted.told.states(prompted.prompts), seed=3))
    assert image.shape == (8, 3, 64, 64) and image.dtype == torch.uint8
    assert prompted.pictures(net, 2, 0.0) is image  # drawn once, read once
    for method in ("dpm++", "unipc"):
        assert not torch.equal(prompted.pictures(net, 2, 0.0, method), image)


def test_rows_compare_with_the_teacher_at_the_same_strength_or_at_the_one_named(prompted):
    net = prompted.told.network
    same = {row["metric"]: row for row in prompted.rows("ddim", net, 4, 1.0)}
    assert same["paired"]["value"] == 0 and same["fid_teacher"]["value"] == pytest.approx(0, abs=1e-6)
    assert same["clip"]["nfe"] == 8  # a guided pair
    other = {row["metric"]: row["value"] for row in prompted.rows("ddim", net, 2, 0.0)}
    assert other["paired"] == pytest.approx(paired(prompted.pictures(net, 2, 0.0), prompted.truth(0.0)).mean().item())
    held = {row["metric"]: row["value"] for row in prompted.rows("regression", net, 2, 0.0, truth_w=1.0)}
    assert held["paired"] == pytest.approx(paired(prompted.pictures(net, 2, 0.0), prompted.truth()).mean().item())
    wanted = {"fid", "kid", "precision", "recall", "clip", "sharpness", "attribute_accuracy", "prompt_accuracy"}
    assert set(other) == wanted | {"fid_teacher", "paired"}


def test_unseen_prompts_name_a_held_out_pair_and_others_do_not(small_pipeline, judges, runs):
    told = open_pipeline(small_pipeline[0])
    for unseen in (False, True):
        asked = Prompted(told, judges, "captioned", 16, 4, 1.0, unseen=unseen).asked
        assert (names_held_out(asked) == unseen).all() and len(asked) == 16


def test_real_pictures_hold_what_prompts_ask_for_and_bound_what_a_model_can_reach(prompted):
    image, shows = real_pictures("captioned", 6, 0)
    other, unseen = real_pictures("captioned", 6, 0, unseen=True)
    assert not names_held_out(shows).any() and names_held_out(unseen).all() and image.shape == other.shape
    rows = prompted.floor_rows(many=16)
    assert [row["n"] for row in rows if row["metric"] == "floor_fid"] == [8, 16]
    assert {row["method"] for row in rows} == {"real", "autoencoder"}
    told = {row["metric"]: row["value"] for row in rows if row["method"] == "real"}
    assert told["prompt_accuracy"] == prompted.judged(prompted.real, prompted.shows)["prompt_accuracy"]


def test_alignment_is_the_cosine_of_each_picture_with_its_own_prompt(judges):
    image, _ = render_pictures(WORLDS["captioned"], 0, torch.arange(3))
    prompts = say(drawn_attributes(3, 0))
    both = alignment(judges.clip, image, prompts)
    for i in range(3):
        alone = alignment(judges.clip, image[i : i + 1], prompts[i : i + 1])
        assert both[i].item() == pytest.approx(alone.item(), abs=1e-5)
    assert both.abs().max() <= 1.0001

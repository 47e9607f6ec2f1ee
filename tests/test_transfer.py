"""Style transfer: with one network it is a round trip, and what is measured is what its name says."""

import pytest
import torch
from closed_forms import tiny_unet

from distill_lib.measure import transfer
from distill_lib.measure.metrics import Reader
from distill_lib.measure.transfer import PairedScenes, evaluations, probe
from distill_lib.networks.adapter import Network
from distill_lib.networks.unet import student_of
from distill_lib.shipped import pretrained
from distill_lib.worlds.pictures import WORLDS
from distill_lib.worlds.scenes import class_names


@pytest.fixture
def pair(runs):
    return Network(tiny_unet().requires_grad_(False), bf16=False)


def pictures(n=6):
    return torch.randint(0, 256, (n, 3, 8, 8), dtype=torch.uint8), torch.arange(n) % 3


def test_with_many_steps_a_picture_comes_back_and_with_few_less_so(pair):
    image, label = pictures()
    back = {n: transfer.transfer((pair, n), (pair, n), image, label) for n in (4, 128)}
    error = {n: (x.float() - image.float()).square().mean().item() for n, x in back.items()}
    assert error[128] < 0.2 * error[4]


def test_the_encoder_is_told_the_class_of_the_picture_and_the_decoder_the_wanted_one(pair, monkeypatch):
    seen = []

    def spied(*inputs, **named):
        seen.append(named["class_labels"])
        return pair.module(*inputs, **named)

    monkeypatch.setattr(pair, "forward", spied)  # no hook, which would be part of the key
    image, label = pictures(3)
    transfer.transfer((pair, 2), (pair, 2), image, label, w=1.0, target=torch.tensor([1, 2, 0]))
    assert [k.tolist() for k in seen[:2]] == [[0, 1, 2]] * 2  # alone: w = 0
    assert [k.tolist() for k in seen[2:]] == [[1, 2, 0, 3, 3, 3]] * 2  # and the null class


def test_a_transfer_is_kept_and_another_one_is_not_taken_for_it(pair, monkeypatch):
    image, label = pictures()
    first = transfer.transfer((pair, 2), (pair, 2), image, label)
    others = [
        transfer.transfer((pair, 4), (pair, 2), image, label),
        transfer.transfer((pair, 2), (pair, 2), image, label, w=1.0),
        transfer.transfer((pair, 2), (pair, 2), image, label, target=label.flip(0)),
        transfer.transfer((pair, 2), (pair, 2), image.flip(0), label),
    ]
    assert not any(torch.equal(first, other) for other in others)
    monkeypatch.setattr(transfer, "encode", None)
    assert torch.equal(transfer.transfer((pair, 2), (pair, 2), image, label), first)


@pytest.mark.parametrize("w, count", [(0.0, 4 + 4), (1.0, 4 + 8)])
def test_a_pair_pays_twice_for_guided_steps_and_a_student_never(pair, w, count):
    student = Network(student_of(pair.module), bf16=False)
    assert evaluations((pair, 4), (pair, 4), w) == count
    assert evaluations((student, 4), (student, 4), w) == 8


@pytest.fixture(scope="module")
def paired_scenes():
    return PairedScenes("textured", "sketch", 96, Reader(pretrained.extractor("looks")), pretrained.geometry(), seed=1)


def values(rows):
    return {row["metric"]: row["value"] for row in rows}


def test_the_true_sketch_is_a_perfect_transfer_and_the_photo_is_none(paired_scenes):
    truth, source = (values(paired_scenes.rows(image, {})) for image in (paired_scenes.truth, paired_scenes.image))
    assert truth["fid_target"] == pytest.approx(0, abs=1e-6) and truth["paired_target"] == 0
    assert truth["style"] > 0.95 and source["style"] < 0.05
    assert source["fid_target"] > 10 and source["paired_target"] > 0.05
    for result in (truth, source):
        assert result["iou"] > 0.85 and result["depth_error"] < 0.25


def test_another_scene_keeps_no_shape(paired_scenes):
    moved = values(paired_scenes.rows(paired_scenes.truth.roll(1, 0), {}))
    assert moved["iou"] < 0.5 and moved["fid_target"] == pytest.approx(0, abs=1e-6)


def test_the_class_asked_for_decides_the_accuracy(paired_scenes):
    wanted = paired_scenes.as_next_shape()
    named, other, done = (
        values(result.rows(image, {}))["accuracy"]
        for result, image in (
            (paired_scenes, paired_scenes.image),
            (wanted, paired_scenes.image),
            (wanted, wanted.truth),
        )
    )
    assert named > 0.9 and other < 0.05 and done > 0.9


def test_the_next_shape_stands_where_the_old_one_stood_with_its_colour_and_texture(paired_scenes):
    wanted, names = paired_scenes.as_next_shape(), class_names(WORLDS["textured"])
    for label, other in zip(paired_scenes.label.tolist(), wanted.label.tolist(), strict=True):
        assert names[label].split()[:2] == names[other].split()[:2] and names[label] != names[other]
    assert torch.equal(wanted.image, paired_scenes.image) and not torch.equal(wanted.truth, paired_scenes.image)
    both = ((wanted.mask > 0.5) & (paired_scenes.mask > 0.5)).flatten(1).sum(1)
    assert (both > 0.5 * (paired_scenes.mask > 0.5).flatten(1).sum(1)).all()
    outside = (wanted.mask == 0) & (paired_scenes.mask == 0)
    same = (wanted.depth == paired_scenes.depth) & outside
    assert same.sum() > 0.95 * outside.sum()


@pytest.mark.parametrize("other_world", ["cluttered", "plain"])
def test_two_worlds_that_differ_in_more_than_their_look_are_refused(other_world):
    with pytest.raises(ValueError, match=f"textured and {other_world} differ in more than their look"):
        PairedScenes("textured", other_world, 8, Reader(pretrained.extractor("looks")), None)


def test_unrelated_pictures_are_of_the_class_and_of_other_noise(pair):
    label = torch.tensor([0, 1, 2, 0])
    first = transfer.unrelated((pair, 2), label, 1.0, seed=0)
    assert torch.equal(first, transfer.unrelated((pair, 2), label, 1.0, seed=0))
    assert not torch.equal(first, transfer.unrelated((pair, 2), label, 1.0, seed=1))
    assert not torch.equal(first[0], first[3]) and first.dtype == torch.uint8


def test_the_probe_tells_pictures_that_it_has_not_seen(paired_scenes):
    direction, threshold = probe(paired_scenes.reader, paired_scenes.image[:48], paired_scenes.truth[:48])
    unseen = paired_scenes.image[48:].clone(), paired_scenes.truth[48:].clone()
    called = [(paired_scenes.reader.read(image)["64"] @ direction > threshold).float().mean() for image in unseen]
    assert called[0] < 0.1 and called[1] > 0.9

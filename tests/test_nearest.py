"""Neighbours and diversity, against the plain double loop and on sets made by hand."""

from dataclasses import replace

import pytest
import torch
from real_folders import picture_folder

from distill_lib.measure import memorisation
from distill_lib.measure.memorisation import nearest, novelty, pairwise, unseen, with_counts
from distill_lib.worlds.pictures import DatasetSpec, load


def draw(n, seed=0):
    return torch.randint(0, 256, (n, 3, 4, 4), dtype=torch.uint8, generator=torch.Generator().manual_seed(seed))


def test_the_nearest_is_that_of_the_double_loop_whatever_the_chunk(monkeypatch):
    image, among = draw(7), draw(50, 1)
    all_of_them = torch.cdist(image.flatten(1).double() / 127.5, among.flatten(1).double() / 127.5)
    for chunk in (1000, 8):
        monkeypatch.setattr(memorisation, "_CHUNK", chunk)
        distance, number = nearest(image, among)
        assert torch.allclose(distance.double(), all_of_them.amin(1), rtol=1e-4)
        assert torch.equal(number, all_of_them.argmin(1))


def test_a_copied_picture_is_found_at_distance_0():
    among = draw(50, 1)
    distance, number = nearest(among[[13, 2]], among)
    assert distance.max() < 0.02 and number.tolist() == [13, 2]


def test_a_copy_has_no_novelty_and_a_new_picture_has_that_of_its_neighbours():
    training, other = draw(50, 1), draw(50, 2)
    result = novelty(torch.cat([training[:2], draw(3, 3)]), training, other)
    assert result[:2].max() < 0.01
    assert torch.allclose(result[2:], nearest(draw(3, 3), training)[0] / nearest(draw(3, 3), other)[0])


def test_unseen_pictures_of_a_world_are_as_many_and_none_is_of_the_training():
    pictures = load(DatasetSpec(name="textured", count=32))
    other = unseen(pictures)
    assert len(other) == 32 and other.names == pictures.names
    assert nearest(other.image, pictures.image)[0].min() > 0.1


def test_unseen_pictures_of_real_data_are_its_test_pictures(tmp_path, monkeypatch):
    monkeypatch.setenv("DISTILL_FOLDER", str(picture_folder(tmp_path / "data")))
    spec = DatasetSpec(name="folder", count=1000)
    assert torch.equal(unseen(load(spec)).image, load(replace(spec, split="test")).image)


def test_as_many_of_each_class_as_wanted_and_no_more_than_there_are():
    label = torch.tensor([2, 0, 2, 1, 2, 0])
    assert with_counts(label, torch.tensor([1, 3, 2])).tolist() == [1, 3, 0, 2]


class Fixed:
    """A reader that takes the first pixels of a picture for its features."""

    def read(self, image):
        return {"64": image.flatten(1)[:, :2].double()}


def test_diversity_is_the_mean_distance_within_classes():
    image = torch.zeros(5, 3, 4, 4, dtype=torch.uint8)
    image[:, 0, 0, 0] = torch.tensor([0, 3, 100, 100, 7], dtype=torch.uint8)
    image[1, 0, 0, 1] = 4
    label = torch.tensor([0, 0, 1, 1, 2])  # 5 apart, 0 apart, alone
    assert pairwise(Fixed(), image, label) == pytest.approx(2.5)
    with pytest.raises(ValueError, match="5 pictures hold no two of one class"):
        pairwise(Fixed(), image, torch.arange(5))

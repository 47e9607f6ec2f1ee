"""Pictures by one door: the world's cache, and readers that say what is wrong with a folder."""

import gzip
from dataclasses import replace

import pytest
import torch
from real_folders import cifar_bytes, fashion_folder, idx_bytes

from distill_lib.diffusion.pixels import from_patches
from distill_lib.worlds import pictures as datasets
from distill_lib.worlds.pictures import WORLDS, DatasetSpec, Pictures, load, render_pictures

IMAGES, LABELS = "train-images-idx3-ubyte", "train-labels-idx1-ubyte"


def sentence(error):
    assert "\n" not in str(error.value) and len(str(error.value)) < 300
    return True


# ------------------------------------------------------------------------------------------------ the world


def test_pictures_of_the_world_come_from_the_cache_the_second_time(runs, monkeypatch):
    spec = DatasetSpec(name="plain", count=40, seed=3)
    first = load(spec)
    monkeypatch.setattr(datasets, "render_pictures", None)  # rendering again would fail
    second = load(spec)
    assert torch.equal(first.image, second.image) and torch.equal(first.label, second.label)
    assert first.names == second.names and len(second) == 40
    assert first.image.shape == (40, 3, 32, 32) and first.image.dtype == torch.uint8


def test_other_pictures_have_another_cache(runs):
    a = load(DatasetSpec(name="plain", count=4))
    assert not torch.equal(load(DatasetSpec(name="plain", count=4, seed=1)).image, a.image)
    assert not torch.equal(load(DatasetSpec(name="textured", count=4)).image, a.image)
    assert torch.equal(load(DatasetSpec(name="plain", count=2)).image, a.image[:2])


def test_rendering_in_pieces_gives_the_pictures_of_their_numbers():
    spec = WORLDS["textured"]
    whole, scenes = render_pictures(spec, 0, torch.arange(70))  # in three pieces
    part, _ = render_pictures(spec, 0, torch.tensor([69, 3]))
    assert torch.equal(part, whole[[69, 3]])
    assert len(scenes) == 70


def test_a_batch_is_the_pictures_in_patches_between_minus_1_and_1():
    image = torch.randint(0, 256, (5, 3, 8, 8), dtype=torch.uint8)
    image[0, 0, 0, 0], image[0, 0, 0, 1] = 0, 255
    pictures = Pictures(image, torch.arange(5), tuple("abcde"))
    x, label = pictures.batch(torch.tensor([0, 4, 0]))
    assert x.shape == (3, 12, 4, 4) and x.dtype == torch.float32
    assert label.tolist() == [0, 4, 0]
    assert x.min() == -1 and x.max() == 1
    # uint8 -> [-1, 1] -> uint8 loses nothing
    assert torch.equal((from_patches(x) * 127.5 + 127.5).round().to(torch.uint8), image[[0, 4, 0]])


# ------------------------------------------------------------------------------------------------ files


def write_idx(folder, n=6, compress=True, cut=0, labels=None):
    """Files of Fashion-MNIST's form: picture i has the grey i everywhere and the class i."""
    folder.mkdir(exist_ok=True)
    grey = torch.arange(n, dtype=torch.uint8)[:, None, None].repeat(1, 28, 28)
    image, label = idx_bytes(grey, torch.arange(n if labels is None else labels, dtype=torch.uint8))
    for name, data in ((IMAGES, image[: len(image) - cut]), (LABELS, label)):
        if compress:
            (folder / f"{name}.gz").write_bytes(gzip.compress(data, mtime=0))
        else:
            (folder / name).write_bytes(data)
    return DatasetSpec(name="fashion_mnist", folder=str(folder))


@pytest.mark.parametrize("compress", [True, False])
def test_idx_files_are_read_compressed_or_not(compress, tmp_path):
    pictures = load(write_idx(tmp_path / "deep", compress=compress))
    assert pictures.image.shape == (6, 3, 32, 32)
    assert pictures.label.tolist() == list(range(6)) and pictures.label.dtype == torch.int64
    assert pictures.names[5] == "sandal" and len(pictures.names) == 10
    for i in range(6):
        assert (pictures.image[i, :, 2:30, 2:30] == i).all()
        assert pictures.image[i].sum() == 3 * 28 * 28 * i  # the padding is black


def test_count_limits_the_pictures(tmp_path):
    spec = write_idx(tmp_path)
    assert len(load(DatasetSpec(name=spec.name, folder=spec.folder, count=4))) == 4


def test_test_pictures_are_read_from_files_of_their_own(tmp_path):
    spec = write_idx(tmp_path)
    for name in (IMAGES, LABELS):
        (tmp_path / f"{name}.gz").rename(tmp_path / f"{name.replace('train', 't10k')}.gz")
    assert len(load(replace(spec, split="test"))) == 6
    with pytest.raises(ValueError, match=f"incomplete: {IMAGES}"):
        load(spec)
    with pytest.raises(ValueError, match="split='valid' is unknown; choose train or test"):
        load(replace(spec, split="valid"))


def test_the_environment_names_the_folder_unless_the_specification_does(tmp_path, monkeypatch):
    spec = write_idx(tmp_path / "here")
    monkeypatch.setenv("DISTILL_FOLDER", spec.folder)
    assert len(load(DatasetSpec(name="fashion_mnist"))) == 6
    with pytest.raises(ValueError, match="needs a folder"):
        load(DatasetSpec(name="fashion_mnist", folder=str(tmp_path / "elsewhere")))


def test_truncated_idx_data_end_in_a_sentence(tmp_path):
    with pytest.raises(ValueError, match=rf"{IMAGES} below {tmp_path} is truncated.*fetch it again") as error:
        load(write_idx(tmp_path, cut=100))
    assert sentence(error)


def test_a_file_that_is_no_idx_file_ends_in_a_sentence(tmp_path):
    spec = write_idx(tmp_path)
    (tmp_path / f"{IMAGES}.gz").write_bytes(gzip.compress(b"<html>not found</html>" * 9, mtime=0))
    with pytest.raises(ValueError, match="truncated or not an IDX file") as error:
        load(spec)
    assert sentence(error)


@pytest.mark.parametrize("case", ["broken off", "garbled"])
@pytest.mark.parametrize("name", [IMAGES, LABELS])
def test_a_download_that_went_wrong_ends_in_a_sentence(name, case, tmp_path):
    spec = write_idx(tmp_path)
    path = tmp_path / f"{name}.gz"
    data = path.read_bytes()
    path.write_bytes(data[:-12] if case == "broken off" else data[:12] + b"\xff" * 9 + data[21:])
    with pytest.raises(ValueError, match=name) as error:
        load(spec)
    assert sentence(error)


def test_fewer_labels_than_pictures_end_in_a_sentence(tmp_path):
    with pytest.raises(ValueError, match=LABELS) as error:
        load(write_idx(tmp_path, labels=4))
    assert sentence(error)


def test_a_missing_file_is_named(tmp_path):
    spec = write_idx(tmp_path)
    (tmp_path / f"{LABELS}.gz").unlink()
    with pytest.raises(ValueError, match=rf"incomplete: {LABELS}.* is missing below {tmp_path}") as error:
        load(spec)
    assert sentence(error)


def write_cifar(folder, cut=0):
    """Five files of three pictures; picture i has class i % 10, and red, green and blue planes i, i + 1, i + 2."""
    for k in range(5):
        i = torch.arange(3 * k, 3 * k + 3, dtype=torch.uint8)
        planes = (i[:, None] + torch.arange(3, dtype=torch.uint8)).repeat_interleave(1024, 1)
        rows = cifar_bytes(planes, i % 10)
        (folder / f"data_batch_{k + 1}.bin").write_bytes(rows[: len(rows) - cut])
    return DatasetSpec(name="cifar10", folder=str(folder))


def test_cifar10_is_read_from_its_binary_files(tmp_path):
    pictures = load(write_cifar(tmp_path))
    assert pictures.image.shape == (15, 3, 32, 32)
    assert pictures.label.tolist() == [i % 10 for i in range(15)]
    assert pictures.names[3] == "cat"
    for i in range(15):
        assert [plane.unique().tolist() for plane in pictures.image[i]] == [[i], [i + 1], [i + 2]]


def test_the_test_batch_of_cifar10_is_a_file_of_its_own(tmp_path):
    spec = write_cifar(tmp_path)
    (tmp_path / "data_batch_2.bin").rename(tmp_path / "test_batch.bin")
    assert load(replace(spec, split="test")).label.tolist() == [3, 4, 5]


def test_truncated_cifar10_ends_in_a_sentence(tmp_path):
    with pytest.raises(ValueError, match=f"CIFAR-10 below {tmp_path} is truncated") as error:
        load(write_cifar(tmp_path, cut=7))
    assert sentence(error)


def test_a_missing_file_of_cifar10_is_named(tmp_path):
    spec = write_cifar(tmp_path)
    (tmp_path / "data_batch_3.bin").unlink()
    with pytest.raises(ValueError, match=r"data_batch_3\.bin"):
        load(spec)


def test_an_unknown_name_is_answered_with_the_known_ones():
    with pytest.raises(ValueError, match=r"dataset='mnist' is unknown.*cluttered.*cifar10.*folder") as error:
        load(DatasetSpec(name="mnist"))
    assert sentence(error)


@pytest.mark.parametrize("folder", ["", "/no/such/folder"])
@pytest.mark.parametrize("name", ["fashion_mnist", "cifar10", "folder"])
def test_a_missing_folder_ends_in_a_sentence(name, folder):
    with pytest.raises(ValueError, match=f"dataset='{name}' needs a folder.*'{folder}' is not a folder") as error:
        load(DatasetSpec(name=name, folder=folder))
    assert sentence(error)


def test_a_count_that_leaves_nothing_is_refused():
    with pytest.raises(ValueError, match="count=0 leaves no pictures"):
        load(DatasetSpec(name="fashion_mnist", count=0))


# ------------------------------------------------------------------------------------------------ which data it is


def test_the_fingerprint_is_of_the_content_and_not_of_place_form_or_count(tmp_path):
    packed, plain = write_idx(tmp_path / "packed"), write_idx(tmp_path / "plain", compress=False)
    result = load(packed).fingerprint
    assert len(result) == 12 and int(result, 16) >= 0
    assert load(plain).fingerprint == load(replace(packed, count=2)).fingerprint == result
    assert datasets.fingerprint("fashion_mnist", plain.folder) == result


@pytest.mark.parametrize("name", ["picture", "label"])
def test_one_changed_byte_is_other_data_and_is_seen_in_the_same_process(name, tmp_path):
    spec = write_idx(tmp_path, compress=False)
    before = load(spec)
    path = tmp_path / (IMAGES if name == "picture" else LABELS)
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    assert load(spec).fingerprint != before.fingerprint


def test_worlds_need_no_fingerprint_and_are_told_apart_by_name_seed_and_count(runs):
    a, b = (load(DatasetSpec(name="plain", count=4, seed=seed)) for seed in (0, 1))
    assert a.fingerprint == "" and datasets.identity(a) == {"name": "plain", "seed": 0, "count": 4}
    assert datasets.identity(a) != datasets.identity(b)


def test_the_identity_of_real_data_does_not_hold_its_place(tmp_path):
    a, b = load(write_idx(tmp_path / "a")), load(write_idx(tmp_path / "b"))
    assert datasets.identity(a) == datasets.identity(b)
    assert datasets.identity(a)["data"] == a.fingerprint
    assert datasets.identity(range(5)) == {"count": 5, "data": range(5)}  # data of other kinds


def test_results_name_a_world_by_its_name_and_real_data_by_its_content(tmp_path, monkeypatch):
    assert datasets.data_name("textured") == "textured"
    monkeypatch.setenv("DISTILL_FOLDER", str(fashion_folder(tmp_path / "idx", 20, 10)))
    splits = [datasets.fingerprint("fashion_mnist", split=split) for split in ("train", "test")]
    assert datasets.data_name("fashion_mnist") == f"fashion_mnist-{splits[0]}-{splits[1]}" and splits[0] != splits[1]


def test_real_data_is_checked_as_a_whole_before_anything_runs(tmp_path):
    folder = fashion_folder(tmp_path / "idx", 20, 64)
    assert datasets.check_real("fashion_mnist", str(folder)) == folder.resolve()
    (folder / "t10k-labels-idx1-ubyte.gz").write_bytes(b"")
    with pytest.raises(ValueError, match="t10k-labels-idx1-ubyte"):
        datasets.check_real("fashion_mnist", str(folder))


def test_few_test_pictures_are_refused_before_anything_runs(tmp_path):
    with pytest.raises(ValueError, match="has 63 test pictures; metrics need 64 or more") as error:
        datasets.check_real("fashion_mnist", str(fashion_folder(tmp_path / "idx", 20, 63)))
    assert sentence(error)


@pytest.mark.parametrize("folder", ["", "/no/such/folder", "a\0b", "~no_such_user/x", "x" * 5000])
def test_a_folder_that_is_none_ends_in_a_sentence(folder, monkeypatch):
    monkeypatch.delenv("DISTILL_FOLDER", raising=False)
    with pytest.raises(ValueError, match="'folder' needs a folder of its files") as error:
        datasets.check_real("folder", folder)
    assert sentence(error)

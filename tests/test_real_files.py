"""Files of known names, as people have them: two answers, none, half of one, or something else under the name."""

import gzip
import os
import pickle
import struct

import pytest
import torch
from real_folders import cifar_bytes, cifar_folder, fashion_folder, idx_bytes, noise

from distill_lib.worlds import files
from distill_lib.worlds.pictures import DatasetSpec, load

NAMES = [f"{part}-{file_kind}-ubyte" for part in ("train", "t10k") for file_kind in ("images-idx3", "labels-idx1")]
IMAGES, LABELS = NAMES[:2]


def read(folder, name="fashion_mnist", split="train"):
    return load(DatasetSpec(name=name, folder=str(folder), split=split))


def refused(folder, match, name="fashion_mnist", split="train"):
    with pytest.raises(ValueError, match=match) as error:
        read(folder, name, split)
    text = str(error.value)
    assert "\n" not in text and len(text) < 400
    return text


def unpack(folder):
    for path in folder.glob("*.gz"):
        path.with_suffix("").write_bytes(gzip.decompress(path.read_bytes()))
        path.unlink()


def digits(folder, n=6):
    """Files of MNIST, whose names are those of Fashion-MNIST."""
    fashion_folder(folder, n, n)
    unpack(folder)
    return folder


# ------------------------------------------------------------------------------------------------ which file is meant


@pytest.mark.parametrize("split", ["train", "test"])
def test_mnist_beside_fashion_mnist_is_refused_with_both_paths(split, tmp_path):
    """torchvision's ./data: unpacked digits beside packed clothes."""
    (tmp_path / "FashionMNIST").mkdir()
    (tmp_path / "MNIST").mkdir()
    clothes = fashion_folder(tmp_path / "FashionMNIST" / "raw", 8, 8)
    other = digits(tmp_path / "MNIST" / "raw")
    message = refused(tmp_path, "two folders hold such files", split=split)
    assert str(clothes) in message and str(other) in message and "\n" not in message
    assert len(read(clothes.parent, split=split)) == 8 and len(read(other, split=split)) == 6


@pytest.mark.parametrize("first", [[5, 0, 4, 1, 9, 2, 1, 3, 1, 4, 3, 5], [7, 2, 1, 0, 4, 1, 4, 9, 5, 9, 0, 6]])
def test_mnist_alone_is_known_by_its_first_labels(first, tmp_path):
    """Its files have the names and sizes of Fashion-MNIST's."""
    label = torch.tensor([*first, 3, 3, 3], dtype=torch.uint8)
    image, labels = idx_bytes(noise(15, 784, 0).reshape(-1, 28, 28), label)
    write(tmp_path, image, labels)
    refused(tmp_path, "holds MNIST, digits under the names of Fashion-MNIST; name the other folder")


def test_files_in_the_folder_itself_and_below_it_are_refused_too(tmp_path):
    folder = digits(tmp_path / "data")
    fashion_folder(folder / "FashionMNIST", 8, 8)
    refused(folder, "two folders hold such files")


@pytest.mark.parametrize("moved", [NAMES[2:], [LABELS], [NAMES[2]]])
def test_a_set_in_two_folders_is_refused(moved, tmp_path):
    """Training pictures here and test pictures or labels there may be of two sets."""
    folder = digits(tmp_path / "data")
    (folder / "more").mkdir()
    for name in moved:
        (folder / name).rename(folder / "more" / name)
    refused(folder, "two folders hold such files")


def test_packed_and_unpacked_files_of_the_same_bytes_are_one_answer(tmp_path):
    folder = fashion_folder(tmp_path / "raw", 8, 8)
    for path in list(folder.glob("*.gz")):
        path.with_suffix("").write_bytes(gzip.decompress(path.read_bytes()))
    assert len(read(folder)) == 8


@pytest.mark.parametrize("name", [IMAGES, LABELS])
def test_packed_and_unpacked_files_of_other_bytes_are_refused_with_both_paths(name, tmp_path):
    folder = fashion_folder(tmp_path / "raw", 8, 8)
    data = bytearray(gzip.decompress((folder / f"{name}.gz").read_bytes()))
    data[-1] = (data[-1] + 1) % 10
    (folder / name).write_bytes(data)
    message = refused(folder, "hold different bytes")
    assert f"{folder / name} and {folder / name}.gz" in message


def test_a_file_in_a_folder_of_its_own_name_is_found(tmp_path):
    """Kaggle unpacks each file into a folder that is named like it."""
    folder = digits(tmp_path / "archive")
    for name in NAMES:
        (folder / name).rename(folder / "part")
        (folder / name).mkdir()
        (folder / "part").rename(folder / name / name)
    assert len(read(folder)) == len(read(folder, split="test")) == 6


def test_hidden_folders_do_not_count(tmp_path):
    folder = fashion_folder(tmp_path / "data", 8, 8)
    for name in (".ipynb_checkpoints", "__MACOSX", ".git"):
        digits(folder / name)
    assert len(read(folder)) == 8


# ------------------------------------------------------------------------------------------------ what a file holds


def write(folder, image=None, label=None):
    """Files of six pictures, the given bytes in the place of the good ones."""
    good = idx_bytes(noise(6, 784, 0).reshape(-1, 28, 28), torch.arange(6, dtype=torch.uint8))
    for name, part, data in zip((IMAGES, LABELS), (image, label), good, strict=True):
        (folder / name).write_bytes(data if part is None else part)


@pytest.mark.parametrize("size", [0, 1, 3, 4, 7, 8, 15, 16, 17])
@pytest.mark.parametrize("name", [IMAGES, LABELS])
def test_a_short_file_ends_in_a_sentence(name, size, tmp_path):
    write(tmp_path)
    (tmp_path / name).write_bytes((tmp_path / name).read_bytes()[:size] if size < 14 else bytes(size))
    refused(tmp_path, name)


@pytest.mark.parametrize(
    "image",
    [
        struct.pack(">4I", 2049, 6, 28, 28) + bytes(6 * 784),  # labels' magic number
        struct.pack(">4I", 2051, 7, 28, 28) + bytes(6 * 784),
        struct.pack(">4I", 2051, 6, 28, 28) + bytes(6 * 784 + 1),
        struct.pack(">4I", 2051, 2**32 - 1, 2**32 - 1, 2**32 - 1),
        struct.pack(">4I", 2051, 24, 14, 14) + bytes(6 * 784),
        struct.pack(">4I", 2051, 0, 28, 28),
        struct.pack(">4I", 2051, 6, 0, 28),
    ],
)
def test_a_head_that_does_not_fit_the_pictures_is_refused(image, tmp_path):
    write(tmp_path, image=image)
    assert str(tmp_path) in refused(tmp_path, f"{IMAGES} below")


@pytest.mark.parametrize(
    "label, message",
    [
        (struct.pack(">2I", 2051, 6) + bytes(range(6)), "not an IDX file of labels"),
        (struct.pack(">2I", 2049, 5) + bytes(range(6)), "not an IDX file of labels"),
        (struct.pack(">2I", 2049, 5) + bytes(range(5)), "holds 5 labels for 6 pictures"),
        (struct.pack(">2I", 2049, 6) + bytes([0, 1, 10, 3, 4, 5]), "label 10 at item 2, and the classes are 0 to 9"),
        (struct.pack(">2I", 2049, 6) + bytes([0, 1, 2, 3, 4, 255]), "label 255 at item 5"),
    ],
)
def test_labels_that_do_not_fit_are_refused(label, message, tmp_path):
    write(tmp_path, label=label)
    refused(tmp_path, f"{LABELS} .*{message}")


def test_a_file_that_unpacks_to_more_than_any_set_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(files, "_MOST", 2**20)
    folder = fashion_folder(tmp_path / "raw", 8, 8)
    (folder / f"{IMAGES}.gz").write_bytes(gzip.compress(bytes(2**22), 9, mtime=0))
    refused(folder, f"{IMAGES}.gz unpacks to more than 1 MiB")


@pytest.mark.parametrize("data", [b"", b"\x1f\x8b", b"no gzip at all", gzip.compress(b"x" * 999, mtime=0)[:-9]])
def test_a_packed_file_that_is_none_ends_in_a_sentence(data, tmp_path):
    folder = fashion_folder(tmp_path / "raw", 8, 8)
    (folder / f"{IMAGES}.gz").write_bytes(data)
    refused(folder, IMAGES)


def test_a_link_that_leads_nowhere_ends_in_a_sentence(tmp_path):
    write(tmp_path)
    (tmp_path / IMAGES).unlink()
    for target in ("gone", IMAGES):  # the second leads to itself
        (tmp_path / IMAGES).symlink_to(tmp_path / target)
        refused(tmp_path, f"{IMAGES} is a link that leads nowhere")
        (tmp_path / IMAGES).unlink()


def test_a_pipe_or_a_folder_under_the_name_of_a_file_ends_in_a_sentence(tmp_path):
    write(tmp_path)
    (tmp_path / IMAGES).unlink()
    (tmp_path / IMAGES).mkdir()
    refused(tmp_path, f"{IMAGES} .* is missing below")
    (tmp_path / IMAGES).rmdir()
    os.mkfifo(tmp_path / IMAGES)
    refused(tmp_path, f"{IMAGES} is no file")


def test_what_may_not_be_read_ends_in_a_sentence(tmp_path, monkeypatch):
    """Tests may run as root, who may read everything."""
    write(tmp_path)

    def denied(*_):
        raise PermissionError(13, "Permission denied")

    with monkeypatch.context() as patch:
        patch.setattr(type(tmp_path), "open", denied)
        refused(tmp_path, f"{IMAGES} cannot be read: Permission denied; make it readable")
    monkeypatch.setattr(files.os, "scandir", denied)
    refused(tmp_path, f"{tmp_path} cannot be listed: Permission denied")


# ------------------------------------------------------------------------------------------------ CIFAR-10


def test_two_sets_of_cifar10_are_refused_with_both_paths(tmp_path):
    a, b = (cifar_folder(tmp_path / name, 3) for name in "ab")
    message = refused(tmp_path, "two folders hold such files", "cifar10")
    assert str(a) in message and str(b) in message
    assert len(read(a, "cifar10")) == 15


def test_a_label_beyond_the_classes_of_cifar10_is_refused(tmp_path):
    folder = cifar_folder(tmp_path / "c", 3)
    (folder / "data_batch_2.bin").write_bytes(cifar_bytes(noise(3, 3072, 0), torch.tensor([1, 77, 2]).to(torch.uint8)))
    refused(folder, r"data_batch_2\.bin .*label 77 at item 1", "cifar10")


def test_files_of_cifar10_that_are_whole_only_together_are_refused(tmp_path):
    folder = cifar_folder(tmp_path / "c", 3)
    (folder / "data_batch_1.bin").write_bytes(bytes(3073 - 100))
    (folder / "data_batch_2.bin").write_bytes(bytes(3073 + 100))
    refused(folder, r"truncated: data_batch_1\.bin has 2973 bytes", "cifar10")
    (folder / "data_batch_1.bin").write_bytes(b"")
    refused(folder, r"data_batch_1\.bin has 0 bytes", "cifar10")


class Poison:
    """Writes a file when it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


def test_the_pickled_version_of_cifar10_is_named_and_never_opened(tmp_path):
    folder, harm = tmp_path / "cifar-10-batches-py", tmp_path / "harm"
    folder.mkdir()
    for name in [*(f"data_batch_{i}" for i in range(1, 6)), "test_batch", "batches.meta"]:
        (folder / name).write_bytes(pickle.dumps(Poison(harm)))
    for split in ("train", "test"):
        refused(tmp_path, r"binary version \(cifar-10-binary\.tar\.gz; .*pickled and never opened", "cifar10", split)
    assert not harm.exists()
    pickle.loads(pickle.dumps(Poison(harm)))
    assert harm.exists()  # it would have

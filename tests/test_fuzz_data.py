"""Files, pictures and folders of any bytes: sane pictures, or one short sentence; the folder stays as it was."""

import gzip
import io
import os
import shutil
import tempfile
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from fuzzing import answer, few
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from real_folders import cifar_bytes, idx_bytes, noise

from distill_lib.worlds import folders
from distill_lib.worlds import pictures as datasets
from distill_lib.worlds.pictures import DatasetSpec, load

NAMES = ("train-images-idx3-ubyte", "train-labels-idx1-ubyte")
GOOD = idx_bytes(noise(5, 784, 0).reshape(-1, 28, 28), torch.arange(5, dtype=torch.uint8))
PACKED = gzip.compress(GOOD[0], mtime=0)


def everything(folder):
    """Paths, sizes, times and bytes of all that lies below a folder."""
    paths = sorted(folder.rglob("*"))
    return [(p, p.lstat().st_size, p.lstat().st_mtime_ns, p.read_bytes() if p.is_file() else b"") for p in paths]


def read(name, folder, split="train"):
    """Real data of a folder, or None; the folder stays as it was."""
    before = everything(folder)
    pictures = answer(lambda: load(DatasetSpec(name=name, folder=str(folder), split=split)))
    assert everything(folder) == before
    if pictures is not None:
        n = len(pictures)
        assert n > 0 and pictures.image.shape == (n, 3, 32, 32) and pictures.image.dtype == torch.uint8
        assert pictures.label.shape == (n,) and pictures.label.dtype == torch.int64
        assert 0 <= pictures.label.min() and pictures.label.max() < len(pictures.names)
        assert len(pictures.fingerprint) == 12
    return pictures


@pytest.fixture(scope="module")
def place():
    """A folder for every example: made, filled, read and removed."""
    top = Path(tempfile.mkdtemp())
    numbers = iter(range(10**6))

    def make():
        folder = top / str(next(numbers))
        folder.mkdir()
        return folder

    yield make
    datasets._read_once.cache_clear()
    shutil.rmtree(top)


def edited(data):
    """Strategy: bytes that are random, cut, lengthened, or have some bytes exchanged, most of them in the head."""
    at = st.integers(0, 23) | st.integers(0, max(0, len(data) - 1))

    def exchange(pairs):
        buffer = bytearray(data)
        for place, value in pairs:
            if place < len(buffer):
                buffer[place] = value
        return bytes(buffer)

    return st.one_of(
        st.just(data),
        st.binary(max_size=64),
        st.integers(0, len(data)).map(lambda n: data[:n]),
        st.binary(min_size=1, max_size=32).map(lambda more: data + more),
        st.lists(st.tuples(at, st.integers(0, 255)), min_size=1, max_size=4).map(exchange),
    )


# ------------------------------------------------------------------------------------------------ files


@few(80)
@given(image=edited(GOOD[0]), label=edited(GOOD[1]), packed=st.booleans(), spoil=edited(PACKED))
def test_idx_files(place, image, label, packed, spoil):
    folder = place()
    (folder / NAMES[0]).write_bytes(image)
    if packed:
        (folder / NAMES[0]).rename(folder / f"{NAMES[0]}.gz")
        (folder / f"{NAMES[0]}.gz").write_bytes(spoil)
    (folder / NAMES[1]).write_bytes(label)
    pictures = read("fashion_mnist", folder)
    if not packed and (image, label) == GOOD:
        assert pictures is not None and len(pictures) == 5


@few(25)
@given(data=edited(cifar_bytes(noise(2, 3072, 0), torch.tensor([1, 9], dtype=torch.uint8))), number=st.integers(1, 5))
def test_cifar10_files(place, data, number):
    folder = place()
    for i in range(1, 6):
        good = cifar_bytes(noise(1, 3072, i), torch.tensor([i], dtype=torch.uint8))
        (folder / f"data_batch_{i}.bin").write_bytes(data if i == number else good)
    read("cifar10", folder)


NAME = st.sampled_from([*NAMES, *(f"{n}.gz" for n in NAMES), "raw", ".x", "train", "a", "x.png", "data_batch_1.bin"])


@few(40)
@given(
    tree=st.lists(st.tuples(st.lists(NAME, max_size=2), NAME, st.sampled_from(["file", "folder", "link"])), max_size=8),
    kind=st.sampled_from(datasets.REAL),
    split=st.sampled_from(["train", "test"]),
)
def test_folders_of_any_shape(place, tree, kind, split):
    folder = place()
    for above, name, contents in tree:
        path = folder.joinpath(*above, name)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            if contents == "folder":
                path.mkdir()
            elif contents == "link":
                path.symlink_to(folder.joinpath(*above[::-1]))
            elif not os.path.lexists(path):
                path.write_bytes(GOOD[name.startswith(NAMES[1])])
        except OSError:
            continue  # a file stands where a folder should be
    read(kind, folder, split)


# ------------------------------------------------------------------------------------------------ pictures


def saved(mode, kind, seed):
    """The bytes of a small picture of a mode, or b"" where the format does not hold it."""
    values = np.random.default_rng(seed).integers(0, 256, (12, 9, 4), dtype=np.uint8)
    picture = Image.fromarray(values, "RGBA")
    if mode == "I;16":
        picture = Image.fromarray(values[..., :2].copy().view(np.uint16)[..., 0])
    elif mode in ("I", "F"):
        picture = picture.convert("L").convert(mode)
    elif mode != "RGBA":
        picture = picture.convert("RGB").convert(mode) if mode not in ("LA", "PA") else picture.convert("LA")
    out = io.BytesIO()
    try:
        picture.save(out, kind)
    except (OSError, ValueError, KeyError):
        return b""
    return out.getvalue()


KINDS = {"PNG": "png", "GIF": "gif", "BMP": "bmp", "TIFF": "tif", "JPEG": "jpg", "WEBP": "webp", "PPM": "ppm"}
with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    MODES = ("1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "YCbCr", "LAB", "HSV", "I", "I;16", "F")
    SAVED = {(mode, kind): saved(mode, kind, 0) for mode in MODES for kind in KINDS}
    SAVED = {key: data for key, data in SAVED.items() if data}


@pytest.mark.parametrize("mode, kind", SAVED)
def test_a_whole_picture_of_every_mode_and_format(mode, kind, tmp_path):
    path = tmp_path / f"x.{KINDS[kind]}"
    path.write_bytes(SAVED[mode, kind])
    image = answer(lambda: folders.read_picture(path))
    assert (image is None) == (mode == "F" and kind in ("TIFF", "PPM"))  # of no known range


@few(150)
@given(key=st.sampled_from(sorted(SAVED)), suffix=st.sampled_from(sorted(KINDS.values())), data=st.data())
def test_pictures_with_flipped_bytes(place, key, suffix, data):
    path = place() / f"x.{suffix}"
    path.write_bytes(data.draw(edited(SAVED[key])))
    before = everything(path.parent)
    image = answer(lambda: folders.read_picture(path))
    assert everything(path.parent) == before
    assert image is None or (image.shape == (3, 32, 32) and image.dtype == torch.uint8)


@few(8)
@given(
    names=st.lists(st.text(st.characters(exclude_characters="/\0", codec="utf-8"), min_size=1, max_size=8), max_size=3),
    keys=st.lists(st.sampled_from(sorted(SAVED)), min_size=1, max_size=4),
    spoil=st.none() | st.binary(max_size=40),
    split=st.sampled_from(["train", "test"]),
)
def test_folders_of_pictures(place, names, keys, spoil, split):
    folder = place()
    for name in {*names, "a"} - {".", ".."}:
        (folder / name).mkdir()
        for i in range(11):
            mode, kind = keys[i % len(keys)]
            (folder / name / f"{i}.{KINDS[kind].upper()}").write_bytes(SAVED[mode, kind])
        if spoil is not None:
            (folder / name / "last.png").write_bytes(spoil)
    read("folder", folder, split)

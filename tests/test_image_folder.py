"""A folder of pictures as people have them: every kind of picture becomes what one sees, and the rest is refused."""

import numpy as np
import pytest
import torch
from PIL import Image

from distill_lib.worlds.folders import read_picture
from distill_lib.worlds.pictures import DatasetSpec, load

GREYS = [10 * i for i in range(20)]


def plain(folder, greys=GREYS, names=("a", "b")):
    """A folder of classes with a picture of each grey."""
    for name in names:
        (folder / name).mkdir(parents=True)
        for grey in greys:
            Image.fromarray(np.full((32, 32), grey, dtype=np.uint8)).save(folder / name / f"{grey:03}.png")
    return folder


def read(folder, split="train"):
    return load(DatasetSpec(name="folder", folder=str(folder), split=split))


def refused(folder, match):
    with pytest.raises(ValueError, match=match) as error:
        read(folder)
    text = str(error.value)
    assert "\n" not in text and len(text) < 400
    return text


def seen(picture, path, **options):
    """A picture after it was saved and read."""
    picture.save(path, **options)
    image = read_picture(path)
    assert image.shape == (3, 32, 32) and image.dtype == torch.uint8
    return image


# ------------------------------------------------------------------------------------------------ classes and splits


def test_a_sub_folder_is_a_class_and_every_tenth_of_its_pictures_is_for_testing(tmp_path):
    folder = plain(tmp_path)
    (folder / "a" / "notes.txt").write_text("no picture")
    train, test = read(folder), read(folder, "test")
    assert train.names == test.names == ("a", "b")
    for label in (0, 1):
        greys = [sorted(x.max().item() for x in part.image[part.label == label]) for part in (train, test)]
        assert greys == [[g for g in GREYS if g not in (90, 190)], [90, 190]]
    assert train.image.shape == (36, 3, 32, 32) and train.fingerprint != test.fingerprint


def test_the_first_few_pictures_are_of_all_classes(tmp_path):
    """Pictures are read class by class; a count would otherwise cut off whole classes."""
    folder = plain(tmp_path, names=("a", "b", "c", "d"))
    few = load(DatasetSpec(name="folder", folder=str(folder), count=24))
    assert set(few.label.tolist()) == {0, 1, 2, 3}
    whole = read(folder)
    assert torch.equal(few.image, whole.image[:24]) and few.fingerprint == whole.fingerprint


@pytest.mark.parametrize("other", ["test", "val", "validation"])
def test_folders_train_and_test_are_the_split(other, tmp_path):
    plain(tmp_path / "train")
    plain(tmp_path / other, [7])
    train, test = read(tmp_path), read(tmp_path, "test")
    assert len(train) == 40 and train.names == test.names == ("a", "b")
    assert test.image.unique().tolist() == [7] and sorted(test.label.tolist()) == [0, 1]


def test_a_split_with_other_classes_is_refused(tmp_path):
    plain(tmp_path / "train")
    plain(tmp_path / "test", [7], names=("a", "c"))
    refused(tmp_path, "the class 'b' .* is in the train part alone")


def test_a_training_folder_without_test_pictures_is_refused(tmp_path):
    plain(tmp_path / "train")
    assert str(tmp_path / "train") in refused(tmp_path, "holds train/ and neither test/ nor val/")


def test_pictures_beside_train_and_test_are_refused(tmp_path):
    plain(tmp_path / "train")
    plain(tmp_path / "test", [7])
    plain(tmp_path, names=("more",))
    refused(tmp_path, "holds pictures in 'more' beside train/")


def test_classes_called_train_and_test_are_classes(tmp_path):
    assert read(plain(tmp_path, names=("test", "train"))).names == ("test", "train")


def test_hidden_and_empty_folders_and_hidden_files_do_not_count(tmp_path):
    folder = plain(tmp_path)
    for name in (".ipynb_checkpoints", "__MACOSX", ".git"):
        plain(folder / name / "deep")
        plain(folder, names=()), (folder / name / "x.png").write_bytes(b"")
    for name in ("empty", "docs"):
        (folder / name).mkdir()
    (folder / "docs" / "read.me").write_text("no picture")
    (folder / "a" / "._000.png").write_bytes(b"a Mac's")
    assert read(folder).names == ("a", "b") and len(read(folder)) == 36


def test_suffixes_may_be_upper_case_and_of_many_kinds(tmp_path):
    folder = plain(tmp_path, GREYS[:9])
    for name in ("X.PNG", "x.JPG", "x.Jpeg", "x.bmp", "x.TIF", "x.tiff", "x.gif", "x.webp", "x.ppm"):
        for part in ("a", "b"):
            Image.new("RGB", (32, 32), (99, 99, 99)).save(folder / part / name)
    train = read(folder)
    assert len(train) + len(read(folder, "test")) == 36
    assert sum((x.float() - 99).abs().max() < 3 for x in train.image) == 16


def test_a_kind_of_picture_that_is_not_read_is_no_empty_class(tmp_path):
    folder = plain(tmp_path)
    (folder / "c").mkdir()
    (folder / "c" / "x.HEIC").write_bytes(b"a telephone's")
    refused(folder, r"c/x\.HEIC is of a kind that is not read here")


@pytest.mark.parametrize("names", [(), ("a",)])
def test_fewer_than_two_classes_are_refused(names, tmp_path):
    refused(plain(tmp_path, names=names), "sub-folder")


def test_a_class_of_few_pictures_is_named(tmp_path):
    folder = plain(tmp_path)
    plain(folder, GREYS[:9], names=("c",))
    refused(folder, "the class 'c' .* has 9 pictures to train on; give it 10 or more")


def test_pictures_one_level_too_deep_are_refused(tmp_path):
    plain(tmp_path / "animals")
    refused(tmp_path, "animals/a holds pictures one level too deep")


def test_links_that_leave_the_folder_are_refused_and_those_inside_are_followed(tmp_path):
    folder, other = plain(tmp_path / "mine"), plain(tmp_path / "other")
    (folder / "a" / "x.png").symlink_to(folder / "b" / "000.png")
    assert len(read(folder)) == 37
    (folder / "a" / "y.png").symlink_to(other / "a" / "000.png")
    refused(folder, r"a/y\.png is a link that leaves the folder")
    (folder / "a" / "y.png").unlink()
    (folder / "c").symlink_to(other / "a")
    refused(folder, "mine/c is a link that leaves the folder")
    (folder / "c").unlink()
    (folder / "a" / "z.png").symlink_to(folder / "gone.png")
    refused(folder, r"a/z\.png is a link that leads nowhere")


def test_a_folder_named_like_a_picture_is_refused(tmp_path):
    folder = plain(tmp_path)
    (folder / "a" / "x.png").mkdir()
    refused(folder, r"a/x\.png is named like a picture and is no file")


# ------------------------------------------------------------------------------------------------ pictures


def test_a_wide_picture_is_cropped_in_the_middle(tmp_path):
    array = np.zeros((32, 96, 3), dtype=np.uint8)
    array[:, 32:64] = (255, 128, 0)  # only the middle third is coloured
    image = seen(Image.fromarray(array), tmp_path / "x.png")
    assert [plane.unique().tolist() for plane in image] == [[255], [128], [0]]


@pytest.mark.parametrize("suffix", ["png", "tif", "pgm"])
def test_sixteen_bits_are_scaled_to_eight(suffix, tmp_path):
    """255 * v / 65535 = v / 257; what lies above 255 of 65535 is not white."""
    for value, wanted in ((0, 0), (257, 1), (32896, 128), (65535, 255)):
        array = np.full((32, 32), value, dtype=np.uint16)
        assert seen(Image.fromarray(array), tmp_path / f"x.{suffix}").unique().tolist() == [wanted]


def test_values_of_unknown_range_are_refused(tmp_path):
    for array, message in (
        (np.full((9, 9), 70000, np.int32), "16 bits"),
        (np.ones((9, 9), np.float32), "floating-point"),
    ):
        Image.fromarray(array).save(tmp_path / "x.tif")
        with pytest.raises(ValueError, match=rf"x\.tif .*{message}"):
            read_picture(tmp_path / "x.tif")


@pytest.mark.parametrize("turn, corner", [(1, (0, 0)), (2, (0, 31)), (3, (31, 31)), (4, (31, 0)), (6, (0, 31))])
def test_a_picture_is_turned_as_its_exif_says(turn, corner, tmp_path):
    """The mark is at the top left of the stored picture; after a quarter turn to the right it is at the top right."""
    array = np.zeros((32, 32, 3), dtype=np.uint8)
    array[:8, :8] = 255
    exif = Image.Exif()
    exif[0x0112] = turn
    image = seen(Image.fromarray(array), tmp_path / "x.png", exif=exif)
    assert image[:, corner[0], corner[1]].min() == 255 and (image > 127).sum() == 3 * 64


def test_what_is_transparent_lies_on_white(tmp_path):
    half = Image.new("RGBA", (32, 32), (200, 0, 0, 0))
    half.paste((0, 0, 0, 255), (0, 0, 16, 32))
    palette = Image.new("P", (32, 32), 1)
    palette.putpalette([0, 0, 0, 0, 0, 255])
    grey = Image.new("LA", (32, 32), (0, 0))
    assert seen(half, tmp_path / "x.png")[:, 0].unique().tolist() == [0, 255]
    assert seen(palette, tmp_path / "y.png", transparency=1).unique().tolist() == [255]
    assert seen(palette, tmp_path / "z.gif", transparency=1).unique().tolist() == [255]
    assert seen(grey, tmp_path / "w.png").unique().tolist() == [255]
    assert seen(palette, tmp_path / "v.png")[:, 0, 0].tolist() == [0, 0, 255]


@pytest.mark.parametrize("mode, colour, suffix", [("1", 1, "png"), ("L", 255, "png"), ("CMYK", (0, 0, 0, 0), "jpg")])
def test_every_mode_becomes_rgb(mode, colour, suffix, tmp_path):
    assert seen(Image.new(mode, (32, 32), colour), tmp_path / f"x.{suffix}").min() >= 253


@pytest.mark.parametrize("suffix", ["gif", "png", "webp", "tif"])
def test_an_animation_shows_its_first_frame(suffix, tmp_path):
    frames = [Image.new("RGB", (32, 32), colour) for colour in ("black", "white", "red")]
    assert seen(frames[0], tmp_path / f"x.{suffix}", save_all=True, append_images=frames[1:]).max() <= 2


def test_a_picture_of_too_many_pixels_is_refused_unread(tmp_path, monkeypatch):
    Image.new("1", (300, 300)).save(tmp_path / "x.png")
    for most in (80_000, 30_000):  # Pillow warns of the first and refuses the second
        monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", most)
        with pytest.raises(ValueError, match=r"x\.png has more than 0 million pixels"):
            read_picture(tmp_path / "x.png")


@pytest.mark.parametrize("keep", [0, 20, 60, 0.5, 0.9])
@pytest.mark.parametrize("suffix", ["png", "jpg", "bmp", "webp"])
def test_a_truncated_picture_is_named(suffix, keep, tmp_path):
    folder = plain(tmp_path)
    path = folder / "b" / f"x.{suffix}"
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (40, 40, 3), dtype=np.uint8)).save(path)
    data = path.read_bytes()
    path.write_bytes(data[: keep if keep >= 1 or keep == 0 else int(keep * len(data))])
    assert str(path) in refused(folder, "is no readable picture: .*; remove or replace it")


def test_another_format_than_the_allowed_is_not_opened(tmp_path):
    """An EPS file is a program, which Pillow would hand to Ghostscript."""
    (tmp_path / "x.png").write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\n")
    with pytest.raises(ValueError, match=r"x\.png is no readable picture: it is of no kind that is read here"):
        read_picture(tmp_path / "x.png")

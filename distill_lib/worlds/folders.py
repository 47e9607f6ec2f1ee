"""A folder of pictures, one sub-folder a class: as it is, or split into train/ and test/ (or val/).

    folder/cat/1.png, folder/dog/1.jpg ..                every tenth picture of a class, by name, is for testing
    folder/train/cat/1.png .., folder/test/cat/7.png ..  the same classes in both

Every picture becomes 32 x 32 RGB: turned as its EXIF says, 16 bits scaled to 8, what is transparent laid on white, of
an animation the first frame, cropped to the middle square, scaled by Lanczos. Hidden files, hidden folders and folders
without pictures do not count; links that leave the folder are refused. Nothing is written.
"""

import os
import warnings
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps, UnidentifiedImageError
from torch import Tensor

from distill_lib.engine.messages import line, place, short
from distill_lib.worlds.files import entries

SIDE = 32
"""Pixels of a picture's side."""
CLASS_LEAST = 10
"""Training pictures of a class at least; of a folder that is not split, one of ten is for testing."""
_FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "TIFF", "GIF", "AVIF", "PPM")  # no others: EPS, say, is run by Ghostscript
_SUFFIXES = {".png", ".apng", ".jpg", ".jpeg", ".jpe", ".jfif", ".webp", ".bmp", ".tif", ".tiff", ".gif", ".avif"}
_SUFFIXES |= {".ppm", ".pgm", ".pbm"}
_OTHERS = {".heic", ".heif", ".svg", ".psd", ".eps", ".jp2", ".jxl", ".tga", ".exr", ".dng", ".npy"}
_TESTS = ("test", "val", "valid", "validation")


def image_folder(folder: Path, split: str) -> tuple[Tensor, Tensor, tuple[str, ...]]:
    """The pictures of a folder, mixed (always in the same way), so that any first so many are of all classes.

    Returns:
        Pictures uint8 (N, 3, 32, 32), classes (N,) numbered in the order of their names, the names.

    Raises:
        ValueError: there are fewer than two classes, or few pictures of one; the halves of a split hold other classes;
            a file cannot be read as a picture, or lies outside the folder.
    """
    parts = _parts(folder)
    by_part = {name: _classes(part, folder) for name, part in parts.items()}
    names = _checked(folder, by_part)
    classes = by_part["test" if split == "test" and "test" in by_part else "train"]
    pairs = []
    for label, name in enumerate(names):
        paths = classes[name]
        if len(parts) == 1:
            paths = [path for number, path in enumerate(paths) if (number % 10 == 9) == (split == "test")]
        pairs += [(path, label) for path in paths]
    mixed = torch.randperm(len(pairs), generator=torch.Generator().manual_seed(0)).tolist()
    image = torch.stack([read_picture(pairs[i][0]) for i in mixed])
    return image, torch.tensor([pairs[i][1] for i in mixed]), tuple(names)


def _parts(folder: Path) -> dict[str, Path]:
    """The folder of the training classes, and that of the test classes where there is one."""
    inside = {entry.name: Path(entry.path) for entry in entries(folder) if os.path.isdir(entry.path)}
    holding = {name for name, path in inside.items() if any(os.path.isdir(entry.path) for entry in entries(path))}
    test = next((name for name in _TESTS if name in holding), "")
    if "train" not in holding:
        return {"train": folder}
    if not test:
        raise ValueError(
            f"{place(folder)} holds train/ and neither test/ nor val/; add one with the same classes, or name "
            f"{place(folder / 'train')} itself, of which every tenth picture is then for testing"
        )
    beside = [name for name in sorted(set(inside) - {"train", *_TESTS}) if _pictures(inside[name], folder)]
    if beside:
        raise ValueError(f"{place(folder)} holds pictures in {short(beside[0])} beside train/; move it away")
    parts = {"train": inside["train"], "test": inside[test]}
    for path in parts.values():
        _check_inside(path, folder)
    return parts


def _classes(part: Path, folder: Path) -> dict[str, list[Path]]:
    """The pictures of each class, by name."""
    classes = {}
    for entry in entries(part):
        if os.path.isdir(entry.path):
            _check_inside(Path(entry.path), folder)
            pictures = _pictures(Path(entry.path), folder)
            for deeper in entries(Path(entry.path)):
                if os.path.isdir(deeper.path) and _pictures(Path(deeper.path), folder):
                    raise ValueError(
                        f"{place(deeper.path)} holds pictures one level too deep; a class is a folder of pictures, so "
                        f"move them up, or name {place(entry.path)} as the folder"
                    )
            if pictures:
                classes[entry.name] = pictures
        elif not os.path.exists(entry.path):
            raise ValueError(f"{place(entry.path)} is a link that leads nowhere; remove it")
    return classes


def _pictures(folder: Path, top: Path) -> list[Path]:
    """The pictures in a folder, by name; a file that Pillow cannot read everywhere is not passed over."""
    paths = []
    for entry in entries(folder):
        suffix = os.path.splitext(entry.name)[1].lower()
        if suffix in _OTHERS:
            raise ValueError(f"{place(entry.path)} is of a kind that is not read here; save it as PNG, or remove it")
        if suffix in _SUFFIXES:
            _check_inside(Path(entry.path), top)
            if not os.path.isfile(entry.path):
                raise ValueError(f"{place(entry.path)} is named like a picture and is no file; rename or remove it")
            paths.append(Path(entry.path))
    return paths


def _check_inside(path: Path, top: Path) -> None:
    if not path.is_symlink():
        return
    if not os.path.exists(path):
        raise ValueError(f"{place(path)} is a link that leads nowhere; remove it")
    if not path.resolve().is_relative_to(top.resolve()):
        raise ValueError(f"{place(path)} is a link that leaves the folder; put the pictures there themselves")


def _checked(folder: Path, classes: dict[str, dict[str, list[Path]]]) -> list[str]:
    """The names of the classes, in order; raises where they are too few, too small or not those of the test part."""
    train = classes["train"]
    if not train:
        raise ValueError(f"no pictures in {place(folder)}: it should hold one sub-folder of .png or .jpg files a class")
    if len(train) < 2:
        raise ValueError(
            f"{place(folder)} holds pictures of one class alone, {short(next(iter(train)))}; guidance needs two or "
            "more, each in a sub-folder of its own"
        )
    if small := [name for name, paths in train.items() if len(paths) < CLASS_LEAST]:
        raise ValueError(
            f"the class {short(small[0])} in {place(folder)} has {len(train[small[0]])} pictures to train on; give it "
            f"{CLASS_LEAST} or more, or remove its folder"
        )
    if "test" in classes and set(classes["test"]) != set(train):
        odd = min(set(classes["test"]) ^ set(train))
        where = "test" if odd in classes["test"] else "train"
        raise ValueError(f"the class {short(odd)} in {place(folder)} is in the {where} part alone; both need the same")
    return sorted(train)


def read_picture(path: Path, side: int = SIDE) -> Tensor:
    """A picture as the head of this module says, uint8 (3, side, side).

    Raises:
        ValueError: the file is broken, of values whose range is unknown, or of more pixels than a picture has.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(path, formats=_FORMATS) as file:
                picture = _on_white(ImageOps.exif_transpose(file))
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        most = Image.MAX_IMAGE_PIXELS or 0
        raise ValueError(f"{place(path)} has more than {most // 10**6} million pixels; make it smaller") from error
    except Exception as error:  # Pillow's readers pass on whatever a broken file makes them trip over
        reason = line(error, 100) if str(error) else type(error).__name__
        reason = "it is of no kind that is read here" if isinstance(error, UnidentifiedImageError) else reason
        raise ValueError(f"{place(path)} is no readable picture: {reason}; remove or replace it") from error
    least = min(picture.size)
    left, top = (picture.width - least) // 2, (picture.height - least) // 2
    picture = picture.crop((left, top, left + least, top + least)).resize((side, side), Image.Resampling.LANCZOS)
    return torch.from_numpy(np.array(picture)).movedim(2, 0).contiguous()


def in_eight_bits(picture: Image.Image) -> Image.Image:
    """16 bits scaled to 8: 65535 / 257 = 255. Pillow would cut off what is above 255, which is nearly all.

    Raises:
        ValueError: its values have no known range, or take more than 16 bits.
    """
    if picture.mode == "F":
        raise ValueError("its values are floating-point numbers, of no known range, so save it with 8 or 16 bits")
    if not picture.mode.startswith("I"):
        return picture
    values = np.asarray(picture).astype(np.int64)
    if values.min() < 0 or values.max() > 65535:
        raise ValueError("its values take more than 16 bits, so save it with 8 or 16")
    return Image.fromarray((values / 257).round().astype(np.uint8))


def _on_white(picture: Image.Image) -> Image.Image:
    """As RGB in eight bits, what is transparent on white."""
    picture = in_eight_bits(picture)
    if picture.has_transparency_data:
        picture = picture.convert("RGBA")
        white = Image.new("RGBA", picture.size, "white")
        picture = Image.alpha_composite(white, picture)
    return picture.convert("RGB")

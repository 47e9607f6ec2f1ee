"""Pictures with classes, from the embedded world or from a folder, by one door: `load(DatasetSpec(...))`.

The world is rendered once and kept in `runs/cache`, so that a training step only looks pictures up. Real data is read
from the folder that the specification names, or else the environment variable DISTILL_FOLDER.
"""

import gzip
import os
import struct
import zlib
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn.functional import pad

from distill_lib.models import to_patches
from distill_lib.store import cached
from distill_lib.worlds.scenes import Scenes, SceneSpec, class_names, draw_scenes, render

__all__ = ["REAL", "WORLDS", "DatasetSpec", "Pictures", "load", "render_pictures", "rendered_once"]

WORLDS = {
    "plain": SceneSpec(texture=0, tiles=0, clutter=0),
    "textured": SceneSpec(clutter=0),
    "cluttered": SceneSpec(),
    "sketch": SceneSpec(clutter=0, look="sketch"),
    "captioned": SceneSpec(objects=2, resolution=64),
    "captioned-sketch": SceneSpec(objects=2, resolution=64, look="sketch"),
    "captioned-clay": SceneSpec(objects=2, resolution=64, look="clay"),
    "icons": SceneSpec(texture=0, clutter=0, resolution=16),
}
"""The named settings of the world, easiest first; `sketch` is `textured` drawn by hand, `captioned` has two objects
and two other looks, `icons` are small enough that many networks can be trained on them."""

REAL = ("fashion_mnist", "cifar10", "folder")
"""The kinds of real data."""

_FASHION = ("t-shirt", "trouser", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag", "ankle boot")
_CIFAR10 = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
_CHUNK = 32  # scenes rendered at a time: small enough that the rays stay in the processor's cache


@dataclass(frozen=True, kw_only=True)
class DatasetSpec:
    """Which pictures: a name of WORLDS, or one of REAL, read from `folder`.

    seed is that of the scenes of a world; split, train or test, is of real data alone: a world never repeats itself.
    """

    name: str = "cluttered"
    count: int = 65_536
    seed: int = 0
    folder: str = ""
    split: str = "train"


@dataclass(frozen=True)
class Pictures:
    """image (N, 3, R, R) uint8, label (N,) int64, and what the classes are called."""

    image: Tensor
    label: Tensor
    names: tuple[str, ...]
    spec: DatasetSpec = field(default_factory=DatasetSpec)

    def __len__(self) -> int:
        return len(self.image)

    def batch(self, index: Tensor, device: torch.device | str = "cpu") -> tuple[Tensor, Tensor]:
        """Data x (B, 12, R/2, R/2) in [-1, 1] and classes (B,) of the pictures `index` (B,)."""
        image = self.image[index].to(device).float() / 127.5 - 1
        return to_patches(image), self.label[index].to(device)


def load(spec: DatasetSpec) -> Pictures:
    """The pictures that `spec` names.

    Raises:
        ValueError: unknown name, or files missing; the sentence says what is allowed and what to do.
    """
    if spec.name in WORLDS:
        key = {"name": spec.name, "count": spec.count, "seed": spec.seed} | asdict(WORLDS[spec.name])
        tensors = cached("pictures", key, lambda: _render_all(spec), load)
        return Pictures(tensors["image"], tensors["label"], tuple(class_names(WORLDS[spec.name])), spec)
    if spec.name not in REAL:
        raise ValueError(f"dataset={spec.name!r} is unknown; choose one of {', '.join([*WORLDS, *REAL])}")
    if spec.split not in ("train", "test"):
        raise ValueError(f"split={spec.split!r} is unknown; choose train or test")
    where = spec.folder or os.environ.get("DISTILL_FOLDER", "")
    if not where or not Path(where).is_dir():
        raise ValueError(f"dataset={spec.name!r} needs a folder of its files; {where!r} is not a folder")
    read = dict(zip(REAL, (_fashion_mnist, _cifar10, _image_folder), strict=True))[spec.name]
    image, label, names = read(Path(where), spec.split)
    return Pictures(image[: spec.count], label[: spec.count], tuple(names), spec)


def render_pictures(spec: SceneSpec, seed: int, index: Tensor) -> tuple[Tensor, Scenes]:
    """Pictures `index` of a seed as uint8 (N, 3, R, R), and the scenes behind them."""
    scenes = draw_scenes(spec, seed, index)
    parts = [render(draw_scenes(spec, seed, part), spec).image for part in index.split(_CHUNK)]
    return (torch.cat(parts) * 127.5 + 127.5).round().to(torch.uint8), scenes


def rendered_once(spec: SceneSpec, seed: int, count: int) -> tuple[Tensor, Scenes]:
    """`render_pictures` of the first `count` scenes of a seed; the pictures are kept in `runs/cache`."""
    make = lambda: {"image": render_pictures(spec, seed, torch.arange(count))[0]}  # noqa: E731
    image = cached("scenes", {"spec": spec, "seed": seed, "count": count}, make, render_pictures)["image"]
    return image, draw_scenes(spec, seed, torch.arange(count))


def _render_all(spec: DatasetSpec) -> dict[str, Tensor]:
    image, scenes = render_pictures(WORLDS[spec.name], spec.seed, torch.arange(spec.count))
    return {"image": image, "label": scenes.labels(WORLDS[spec.name])}


def _find(folder: Path, stem: str, what: str) -> bytes:
    for name in (stem, f"{stem}.gz"):
        for path in sorted(folder.rglob(name)):
            try:
                return gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
            except (EOFError, OSError, zlib.error) as error:
                raise ValueError(f"{path} cannot be read, {stem} is broken: {error}; fetch it again") from error
    raise ValueError(f"{what} is incomplete: {stem} (or {stem}.gz) is missing below {folder}")


def _fashion_mnist(folder: Path, split: str) -> tuple[Tensor, Tensor, tuple[str, ...]]:
    """The IDX files of Fashion-MNIST, 28 x 28 grey, padded to 32 x 32 and repeated to three channels."""
    stem = {"train": "train", "test": "t10k"}[split]
    hint = "Fashion-MNIST (Debian: apt install dataset-fashion-mnist; elsewhere: torchvision.datasets.FashionMNIST)"
    raw = _find(folder, f"{stem}-images-idx3-ubyte", hint)
    labels = _find(folder, f"{stem}-labels-idx1-ubyte", hint)
    magic, count, rows, columns = struct.unpack(">4I", raw[:16])
    if magic != 2051 or len(raw) != 16 + count * rows * columns:
        raise ValueError(f"{stem}-images-idx3-ubyte below {folder} is truncated or not an IDX file; fetch it again")
    if len(labels) != 8 + count:
        raise ValueError(f"{stem}-labels-idx1-ubyte below {folder} does not hold {count} labels; fetch it again")
    image = torch.frombuffer(bytearray(raw[16:]), dtype=torch.uint8).reshape(count, 1, rows, columns)
    image = pad(image, (2, 2, 2, 2)).expand(-1, 3, -1, -1).contiguous()
    return image, torch.frombuffer(bytearray(labels[8:]), dtype=torch.uint8).long(), _FASHION


def _cifar10(folder: Path, split: str) -> tuple[Tensor, Tensor, tuple[str, ...]]:
    """CIFAR-10's binary version (data_batch_1.bin .., test_batch.bin): a label byte, then 3 x 32 x 32 bytes."""
    names = {"train": [f"data_batch_{i}.bin" for i in range(1, 6)], "test": ["test_batch.bin"]}[split]
    raw = b"".join(_find(folder, name, "CIFAR-10, binary version") for name in names)
    if len(raw) % 3073:
        raise ValueError(f"CIFAR-10 below {folder} is truncated: {len(raw)} bytes are no multiple of 3073")
    rows = torch.frombuffer(bytearray(raw), dtype=torch.uint8).reshape(-1, 3073)
    return rows[:, 1:].reshape(-1, 3, 32, 32).contiguous(), rows[:, 0].long(), _CIFAR10


def _image_folder(folder: Path, split: str, resolution: int = 32) -> tuple[Tensor, Tensor, list[str]]:
    """One sub-folder a class; pictures are cropped to a square and scaled to 32 x 32. Every tenth is a test picture."""
    names = sorted(p.name for p in folder.iterdir() if p.is_dir())
    images, labels = [], []
    for label, name in enumerate(names):
        paths = [p for p in (folder / name).iterdir() if p.suffix.lower() in {".png", ".jpg", ".jpeg", ".webp"}]
        for number, path in enumerate(sorted(paths)):
            if (number % 10 == 9) != (split == "test"):
                continue
            try:
                picture = Image.open(path).convert("RGB")
            except OSError as error:
                raise ValueError(f"{path} is no readable picture: {error}; remove or replace it") from error
            side = min(picture.size)
            left, top = (picture.width - side) // 2, (picture.height - side) // 2
            picture = picture.crop((left, top, left + side, top + side)).resize((resolution, resolution), Image.LANCZOS)
            images.append(torch.from_numpy(np.array(picture)).movedim(2, 0))
            labels.append(label)
    if not images:
        few = " (every tenth of a class is for testing)" if split == "test" else ""
        raise ValueError(f"no pictures in {folder}{few}: it should hold one sub-folder of .png or .jpg files a class")
    return torch.stack(images), torch.tensor(labels), names

"""Pictures with classes, from the embedded world or from a folder, by one door: `load(DatasetSpec(...))`.

The world is rendered once and kept in `runs/cache`, so that a training step only looks pictures up. Real data is read
from the folder that the specification names, or else the environment variable DISTILL_FOLDER, and is identified by a
hash of its content: a run or a cache of one folder is never found again for another.
"""

import hashlib
import os
from collections.abc import Callable, Sized
from dataclasses import asdict, dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from distill_lib.diffusion.pixels import to_patches, to_unit
from distill_lib.engine.messages import place, short
from distill_lib.engine.store import cached
from distill_lib.worlds.files import below, cifar10, fashion_mnist
from distill_lib.worlds.folders import image_folder
from distill_lib.worlds.scenes import Scenes, SceneSpec, class_names, draw_scenes, rendered
from distill_lib.worlds.studio import StudioSpec

WORLDS = {
    "plain": SceneSpec(texture=0, tiles=0, clutter=0),
    "textured": SceneSpec(clutter=0),
    "cluttered": SceneSpec(),
    "sketch": SceneSpec(clutter=0, look="sketch"),
    "captioned": SceneSpec(objects=2, resolution=64),
    "captioned-sketch": SceneSpec(objects=2, resolution=64, look="sketch"),
    "captioned-clay": SceneSpec(objects=2, resolution=64, look="clay"),
    "icons": SceneSpec(texture=0, clutter=0, resolution=16),
    "studio": StudioSpec(),
    "studio-sketch": StudioSpec(look="sketch"),
    "studio-clay": StudioSpec(look="clay"),
}
"""The named settings of the world, easiest first; `sketch` is `tune_texture` drawn by hand, `captioned` has two objects
and two other looks, `icons` are small enough that many networks can be trained on them. `studio` is another world, a
room with two objects, a poster and clutter, in the same three looks."""
_READERS: dict[str, Callable[[Path, str], tuple[Tensor, Tensor, tuple[str, ...]]]] = {
    "fashion_mnist": fashion_mnist,
    "cifar10": cifar10,
    "folder": image_folder,
}
REAL = tuple(_READERS)
"""The kinds of real data."""
LEAST_HELD_OUT = 64
"""Test pictures of real data at least: two sets of them are compared with each other, of 32 in the smallest profile."""


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


def fingerprint(name: str, folder: str = "", split: str = "train") -> str:
    """Hash of all pictures, classes and names of a split of real data, 12 hexadecimal digits; raises as `load`."""
    return load(DatasetSpec(name=name, folder=folder, split=split)).fingerprint


@dataclass(frozen=True)
class Pictures:
    """image (N, 3, R, R) uint8, label (N,) int64, and what the classes are called.

    `fingerprint` is of real data alone, of all pictures that the split holds, however many of them are here; what a
    world shows follows from its name, seed and code.
    """

    image: Tensor
    label: Tensor
    names: tuple[str, ...]
    spec: DatasetSpec = field(default_factory=DatasetSpec)
    fingerprint: str = ""

    def __len__(self) -> int:
        return len(self.image)

    def batch(self, index: Tensor, device: torch.device | str = "cpu") -> tuple[Tensor, Tensor]:
        """Data x (B, 12, R/2, R/2) in [-1, 1] and classes (B,) of the pictures `index` (B,)."""
        image = to_unit(self.image[index].to(device))
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
        raise ValueError(f"dataset={short(spec.name)} is unknown; choose one of {', '.join([*WORLDS, *REAL])}")
    if spec.count < 1:
        raise ValueError(f"count={spec.count} leaves no pictures; take 1 or more")
    if spec.split not in ("train", "test"):
        raise ValueError(f"split={short(spec.split)} is unknown; choose train or test")
    image, label, names, fingerprint = _read(spec.name, spec.folder, spec.split)
    return Pictures(image[: spec.count], label[: spec.count], names, spec, fingerprint)


def data_name(world: str) -> str:
    """What results call their data: a world's name; of real data also the fingerprints of training and test pictures.

    Raises:
        ValueError: real data that cannot be read, as `load`.
    """
    if world not in REAL:
        return world
    return f"{world}-{fingerprint(world)}-{fingerprint(world, split='test')}"


def identity(pictures: Sized) -> Any:
    """What the key of a run says of its data: of `Pictures` which, and of real data the fingerprint; else all of it."""
    if not isinstance(pictures, Pictures):
        return {"count": len(pictures), "data": pictures}
    which = {"name": pictures.spec.name, "seed": pictures.spec.seed, "count": len(pictures)}
    return which | ({"data": pictures.fingerprint} if pictures.fingerprint else {})


def check_real(dataset: str, folder: str) -> Path:
    """Read real data once, so that whatever is wrong with it is said before anything runs.

    Returns:
        The folder, absolute.

    Raises:
        ValueError: unknown kind, no folder, files that cannot be used, or too few test pictures.
    """
    if dataset not in REAL:
        raise ValueError(f"DATASET={short(dataset)} is unknown; choose one of {', '.join(REAL)}")
    where = _folder(dataset, folder)
    load(DatasetSpec(name=dataset, folder=str(where)))
    count = len(load(DatasetSpec(name=dataset, folder=str(where), split="test")))
    if count < LEAST_HELD_OUT:
        tenth = ", a tenth of each class unless there is a folder test/" if dataset == "folder" else ""
        raise ValueError(
            f"{place(where)} has {count} test pictures{tenth}; metrics need {LEAST_HELD_OUT} or more, so add pictures"
        )
    return where


def render_pictures(spec: SceneSpec, seed: int, index: Tensor) -> tuple[Tensor, Scenes]:
    """Pictures `index` of a seed as uint8 (N, 3, R, R), and the scenes behind them."""
    scenes = draw_scenes(spec, seed, index)
    return rendered(spec, scenes)[0], scenes


def rendered_once(spec: SceneSpec, seed: int, count: int) -> tuple[Tensor, Scenes]:
    """`render_pictures` of the first `count` scenes of a seed; the pictures are kept in `runs/cache`."""
    make = lambda: {"image": render_pictures(spec, seed, torch.arange(count))[0]}  # noqa: E731
    image = cached("scenes", {"spec": spec, "seed": seed, "count": count}, make, render_pictures)["image"]
    return image, draw_scenes(spec, seed, torch.arange(count))


def _render_all(spec: DatasetSpec) -> dict[str, Tensor]:
    image, scenes = render_pictures(WORLDS[spec.name], spec.seed, torch.arange(spec.count))
    return {"image": image, "label": scenes.labels(WORLDS[spec.name])}


def _folder(name: str, folder: str) -> Path:
    """The folder of real data, absolute; by the environment unless it is named."""
    where = os.path.expanduser(folder or os.environ.get("DISTILL_FOLDER", ""))
    if not where or not os.path.isdir(where):
        raise ValueError(
            f"dataset={name!r} needs a folder of its files (FOLDER=..); {short(where, 120)} is not a folder"
        )
    return Path(where).resolve()


def _read(name: str, folder: str, split: str) -> tuple[Tensor, Tensor, tuple[str, ...], str]:
    where = _folder(name, folder)
    return _read_once(name, where, split, _stamp(where))


@lru_cache(maxsize=2)
def _read_once(name: str, folder: Path, split: str, stamp: str) -> tuple[Tensor, Tensor, tuple[str, ...], str]:
    """Pictures, classes and names of a split, and their hash; kept while the files stay as `stamp` says."""
    image, label, names = _READERS[name](folder, split)
    digest = hashlib.sha256(repr((tuple(image.shape), names)).encode())
    digest.update(image.numpy())
    digest.update(label.numpy())
    return image, label, names, digest.hexdigest()[:12]


def _stamp(folder: Path) -> str:
    """Hash of the paths, sizes and times of all files below a folder."""
    digest = hashlib.sha256()
    for entry in below(folder):
        # of a link that leads nowhere its own: the reader says what is wrong with it
        status = os.stat(entry.path, follow_symlinks=os.path.exists(entry.path))
        digest.update(os.fsencode(entry.path) + b"\0%d %d\0" % (status.st_size, status.st_mtime_ns))
    return digest.hexdigest()

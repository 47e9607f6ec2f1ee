"""Real data in files of known names: Fashion-MNIST (IDX) and CIFAR-10 (its binary version), below one folder.

What is read must be the one answer: files of these names in two folders (torchvision keeps MNIST beside Fashion-MNIST,
under equal names) are refused, as is a file that is there twice, packed and unpacked, with different bytes. Nothing is
ever unpickled, and nothing is written.
"""

import gzip
import math
import os
import struct
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path

import torch
from torch import Tensor
from torch.nn.functional import pad

from distill_lib.engine.messages import place

_FASHION = ("t-shirt", "trouser", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag", "ankle boot")
_CIFAR10 = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
_IDX = ("train-images-idx3-ubyte", "train-labels-idx1-ubyte", "t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte")
_DIGITS = ([5, 0, 4, 1, 9, 2, 1, 3, 1, 4, 3, 5], [7, 2, 1, 0, 4, 1, 4, 9, 5, 9, 0, 6])
"""The first labels of MNIST's training and test files, whose names are those of Fashion-MNIST."""
_BATCHES = (*(f"data_batch_{i}.bin" for i in range(1, 6)), "test_batch.bin")
_MOST = 2**28  # bytes of a file, unpacked: five times the largest of these sets
_SYSTEM = ("__MACOSX", "__pycache__", "@eaDir", "lost+found", "$RECYCLE.BIN", "System Volume Information")


def hidden(name: str) -> bool:
    """Whether a file or folder is kept by a system or a program, and is no one's data."""
    return name.startswith(".") or name in _SYSTEM


def entries(folder: Path) -> list[os.DirEntry[str]]:
    """What a folder holds, by name, without what is hidden.

    Raises:
        ValueError: it cannot be listed.
    """
    try:
        with os.scandir(folder) as listing:
            return sorted((e for e in listing if not hidden(e.name)), key=lambda e: e.name)
    except OSError as error:
        raise ValueError(f"{place(folder)} cannot be listed: {error.strerror}; make it readable") from error


def fashion_mnist(folder: Path, split: str) -> tuple[Tensor, Tensor, tuple[str, ...]]:
    """The IDX files of Fashion-MNIST below a folder.

    Returns:
        Pictures uint8 (N, 3, 32, 32), from 28 x 28 grey, padded and repeated; classes (N,); their names.

    Raises:
        ValueError: a file is missing, ambiguous, unreadable, or not what its name says.
    """
    base = _set_folder(folder, _IDX)
    stem = {"train": "train", "test": "t10k"}[split]
    hint = "Fashion-MNIST (Debian: apt install dataset-fashion-mnist; elsewhere: torchvision.datasets.FashionMNIST)"
    raw, count = _idx(base, folder, f"{stem}-images-idx3-ubyte", hint, (2051, 28, 28))
    labels, named = _idx(base, folder, f"{stem}-labels-idx1-ubyte", hint, (2049,))
    if named != count:
        raise ValueError(
            f"{stem}-labels-idx1-ubyte below {place(base)} holds {named} labels for {count} pictures; fetch both again"
        )
    label = torch.frombuffer(bytearray(labels), dtype=torch.uint8).long()
    _check_labels(label, _FASHION, f"{stem}-labels-idx1-ubyte below {place(base)}")
    if label[:12].tolist() in _DIGITS:
        raise ValueError(f"{place(base)} holds MNIST, digits under the names of Fashion-MNIST; name the other folder")
    image = torch.frombuffer(bytearray(raw), dtype=torch.uint8).reshape(count, 1, 28, 28)
    return pad(image, (2, 2, 2, 2)).expand(-1, 3, -1, -1).contiguous(), label, _FASHION


def cifar10(folder: Path, split: str) -> tuple[Tensor, Tensor, tuple[str, ...]]:
    """CIFAR-10's binary version (data_batch_1.bin .., test_batch.bin): a label byte, then 3 x 32 x 32 bytes.

    Returns:
        Pictures uint8 (N, 3, 32, 32), classes (N,), their names.

    Raises:
        ValueError: a file is missing, ambiguous, unreadable, or not what its name says.
    """
    base = _set_folder(folder, _BATCHES)
    pickled = next((p for p in _files(folder) if p.name in {"data_batch_1", "test_batch", "batches.meta"}), None)
    hint = "CIFAR-10, binary version"
    if pickled:
        hint = (
            f"CIFAR-10 in its binary version (cifar-10-binary.tar.gz; {place(pickled)} is of the Python version, "
            "which is pickled and never opened)"
        )
    parts = []
    for name in _BATCHES[:5] if split == "train" else _BATCHES[5:]:
        data = _bytes(base, folder, name, hint)
        if not data or len(data) % 3073:
            raise ValueError(
                f"CIFAR-10 below {place(base)} is truncated: {name} has {len(data)} bytes, not 3073 a picture; "
                "fetch it again"
            )
        rows = torch.frombuffer(bytearray(data), dtype=torch.uint8).reshape(-1, 3073)
        _check_labels(rows[:, 0].long(), _CIFAR10, f"{name} below {place(base)}")
        parts.append(rows)
    rows = torch.cat(parts)
    return rows[:, 1:].reshape(-1, 3, 32, 32).contiguous(), rows[:, 0].long(), _CIFAR10


def below(folder: Path) -> Iterator[os.DirEntry[str]]:
    """Everything below a folder but folders themselves; links are not followed. Raises as `entries`."""
    todo = [folder]
    while todo:
        for entry in entries(todo.pop()):
            if entry.is_dir(follow_symlinks=False):
                todo.append(Path(entry.path))
            else:
                yield entry


def _files(folder: Path) -> Iterator[Path]:
    return (Path(entry.path) for entry in below(folder) if not os.path.isdir(entry.path))


def _set_folder(folder: Path, stems: Iterable[str]) -> Path:
    """The one folder that holds files of these names, packed or not; `folder` itself where none does.

    A folder that is named like the file in it (as Kaggle unpacks) does not count.
    """
    names, homes = {*stems, *(f"{stem}.gz" for stem in stems)}, {}
    for path in _files(folder):
        if path.name in names:
            above = path.parent
            wrapped = above != folder and above.name.removesuffix(".gz") == path.name.removesuffix(".gz")
            homes.setdefault(above.parent if wrapped else above, path)
    if len(homes) > 1:
        first, other = list(homes.values())[:2]
        raise ValueError(
            f"two folders hold such files, and only one can be meant: {place(first)} and {place(other)}; "
            "name the folder of the right one, or move the other away"
        )
    return next(iter(homes), folder)


def _bytes(base: Path, folder: Path, stem: str, content: str) -> bytes:
    """The unpacked content of a file that lies in `base`, plain, packed, or both with the same bytes."""
    names = (stem, f"{stem}.gz")
    paths = [p for name in names for p in (base / name, *(base / outer / name for outer in names)) if _is_there(p)]
    if not paths:
        raise ValueError(f"{content} is incomplete: {stem} (or {stem}.gz) is missing below {place(folder)}")
    first, *others = [(path, _unpacked(path)) for path in paths]
    for path, data in others:
        if data != first[1]:
            raise ValueError(
                f"{place(first[0])} and {place(path)} hold different bytes, and only one can be meant; remove the other"
            )
    return first[1]


def _is_there(path: Path) -> bool:
    return os.path.lexists(path) and not os.path.isdir(path)


def _unpacked(path: Path) -> bytes:
    if not os.path.exists(path):
        raise ValueError(f"{place(path)} is a link that leads nowhere; fetch the file again")
    if not os.path.isfile(path):
        raise ValueError(f"{place(path)} is no file; remove it, or fetch the file again")
    try:
        with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as file:
            data = file.read(_MOST + 1)
    except (EOFError, OSError, zlib.error) as error:
        reason = getattr(error, "strerror", None) or error
        raise ValueError(f"{place(path)} cannot be read: {reason}; make it readable, or fetch it again") from error
    if len(data) > _MOST:
        raise ValueError(f"{place(path)} unpacks to more than {_MOST >> 20} MiB, as no such set does; fetch it again")
    return data


def _idx(base: Path, folder: Path, stem: str, content: str, form: tuple[int, ...]) -> tuple[bytes, int]:
    """The values of an IDX file and the number of its items; `form` is its magic number, then an item's shape."""
    data = _bytes(base, folder, stem, content)
    magic, *shape = form
    head = 8 + 4 * len(shape)
    header = struct.unpack(f">{head // 4}I", data[:head]) if len(data) >= head else (0,) * (head // 4)
    count = header[1]
    if header[0] != magic or len(data) != head + count * math.prod(header[2:]):
        raise ValueError(
            f"{stem} below {place(base)} is truncated or not an IDX file of {'pictures' if shape else 'labels'} "
            f"({len(data)} bytes); fetch it again"
        )
    if not count or list(header[2:]) != shape:
        form_found = " x ".join(map(str, header[2:]))
        held = f"pictures of {form_found}, not 28 x 28" if count else "no items"
        raise ValueError(f"{stem} below {place(base)} holds {held}; {content.partition(' (')[0]}'s are meant")
    return data[head:], count


def _check_labels(label: Tensor, names: tuple[str, ...], where: str) -> None:
    if label.max() >= len(names):
        at = int((label >= len(names)).nonzero()[0, 0])
        raise ValueError(
            f"{where} has the label {int(label[at])} at item {at}, and the classes are 0 to {len(names) - 1}; "
            "fetch it again"
        )

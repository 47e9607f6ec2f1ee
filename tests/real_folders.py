"""The formats of real data, and folders of them with random pictures."""

import gzip
import struct
from pathlib import Path

import torch
from PIL import Image


def noise(n, size, seed):
    """n pictures as one block of bytes."""
    return torch.randint(0, 256, (n, size), dtype=torch.uint8, generator=torch.Generator().manual_seed(seed))


def idx_bytes(image: torch.Tensor, label: torch.Tensor) -> tuple[bytes, bytes]:
    """The two files of an IDX set: pictures uint8 (N, 28, 28) and classes uint8, of any number."""
    head = struct.pack(">4I", 2051, len(image), 28, 28), struct.pack(">2I", 2049, len(image))
    return head[0] + image.numpy().tobytes(), head[1] + label.numpy().tobytes()


def cifar_bytes(image: torch.Tensor, label: torch.Tensor) -> bytes:
    """A binary file of CIFAR-10: pictures uint8 (N, 3072) and classes uint8 (N,)."""
    return torch.cat([label[:, None], image], 1).numpy().tobytes()


def cifar_folder(folder: Path, n=40) -> Path:
    """CIFAR-10's binary files: a training batch five times, and a test batch, of n random pictures each."""
    folder.mkdir()
    for k, name in enumerate([*(f"data_batch_{i}" for i in range(1, 6)), "test_batch"]):
        label = torch.arange(n, dtype=torch.uint8) % 10
        (folder / f"{name}.bin").write_bytes(cifar_bytes(noise(n, 3072, k), label))
    return folder


def fashion_folder(folder: Path, n: int, n_test: int) -> Path:
    """Fashion-MNIST's compressed IDX files."""
    folder.mkdir()
    for k, (stem, count) in enumerate({"train": n, "t10k": n_test}.items()):
        label = torch.arange(count).to(torch.uint8) % 10
        files = idx_bytes(noise(count, 784, k).reshape(-1, 28, 28), label)
        for name, data in zip(("images-idx3", "labels-idx1"), files, strict=True):
            (folder / f"{stem}-{name}-ubyte.gz").write_bytes(gzip.compress(data, 1, mtime=0))
    return folder


def picture_folder(folder: Path, seed=0, n=220, names=("x", "y", "z")) -> Path:
    """A folder of PNG files, n random pictures of 36 x 32 in each of its classes."""
    for k, name in enumerate(names):
        (folder / name).mkdir(parents=True)
        for i, picture in enumerate(noise(n, 36 * 32 * 3, 10 * seed + k).reshape(n, 32, 36, 3)):
            Image.fromarray(picture.numpy()).save(folder / name / f"{i:03}.png", compress_level=0)
    return folder

"""Folders in the formats of real data, with random pictures."""

import gzip
import struct
from pathlib import Path

import torch


def noise(n, size, seed):
    """n pictures as one block of bytes."""
    return torch.randint(0, 256, (n, size), dtype=torch.uint8, generator=torch.Generator().manual_seed(seed))


def cifar_folder(folder: Path, n=40) -> Path:
    """CIFAR-10's binary files: a training batch five times, and a test batch, of n random pictures each."""
    folder.mkdir()
    for k, name in enumerate([*(f"data_batch_{i}" for i in range(1, 6)), "test_batch"]):
        rows = noise(n, 3073, k)
        rows[:, 0] = torch.arange(n) % 10
        (folder / f"{name}.bin").write_bytes(rows.numpy().tobytes())
    return folder


def fashion_folder(folder: Path, n: int, n_test: int) -> Path:
    """Fashion-MNIST's compressed IDX files."""
    folder.mkdir()
    for k, (stem, count) in enumerate({"train": n, "t10k": n_test}.items()):
        label = torch.arange(count, dtype=torch.uint8) % 10
        files = {
            "images-idx3": struct.pack(">4I", 2051, count, 28, 28) + noise(count, 784, k).numpy().tobytes(),
            "labels-idx1": struct.pack(">2I", 2049, count) + label.numpy().tobytes(),
        }
        for name, data in files.items():
            (folder / f"{stem}-{name}-ubyte.gz").write_bytes(gzip.compress(data, 1))
    return folder

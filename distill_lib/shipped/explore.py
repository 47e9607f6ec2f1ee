"""The pictures of notebooks/explore.ipynb: a shipped student of stage one and its teacher's guided pair, drawn once.

One sheet, notebooks/explore.webp, without loss. Its rows are network, w and steps, the last one fastest; its columns
are classes and noises, the latter fastest: `place` says which picture lies where. `make explore` draws it again.
"""

import argparse
from itertools import product

import numpy as np
import torch
from PIL import Image

from distill_lib.diffusion.noise import normal
from distill_lib.diffusion.pixels import to_bytes
from distill_lib.diffusion.samplers import sample
from distill_lib.engine.files import atomic
from distill_lib.networks.adapter import Network, denoiser
from distill_lib.paths import ROOT
from distill_lib.shipped import pretrained
from distill_lib.worlds.pictures import WORLDS
from distill_lib.worlds.scenes import class_names

SHEET = ROOT / "notebooks" / "explore.webp"
WORLD, SIDE = "textured", 32
NETWORKS = ("pair", "student")
WS = (0.0, 1.0, 2.0, 4.0)
STEPS = (1, 2, 4, 8, 32)
CLASSES = (5, 17, 42, 80)
"""Numbers of the classes that are drawn: each of another shape."""
NOISES = 2
_SEED = 2302  # of the noise, which is the same everywhere in a column


def names() -> list[str]:
    """What the classes are called."""
    return [class_names(WORLDS[WORLD])[number] for number in CLASSES]


def load_network(name: str) -> Network:
    """One of NETWORKS, in float32; the teacher is evaluated as a guided pair."""
    load = pretrained.student if name == "student" else pretrained.teacher
    return Network(load(WORLD).requires_grad_(False), bf16=False)


def drawn(net: Network, w: float, n_steps: int) -> np.ndarray:
    """A row of the sheet, (SIDE, columns * SIDE, 3)."""
    label = torch.tensor(CLASSES).repeat_interleave(NOISES)
    z_T = normal(_SEED, "explore", 0, torch.arange(len(label)), net.shape)
    picture = to_bytes(net.decode(sample(denoiser(net, label, w), z_T, n_steps)))
    return picture.permute(2, 0, 3, 1).reshape(SIDE, -1, 3).numpy()


def row(network: str, w: float, n_steps: int) -> int:
    """Which row of the sheet holds a network at a strength and a number of steps."""
    return (NETWORKS.index(network) * len(WS) + WS.index(w)) * len(STEPS) + STEPS.index(n_steps)


def read_sheet() -> np.ndarray:
    """The sheet, (rows * SIDE, columns * SIDE, 3)."""
    return np.asarray(Image.open(SHEET).convert("RGB"))


def pictures(sheet: np.ndarray, network: str, w: float, n_steps: int, kind: int) -> np.ndarray:
    """The pictures of one class side by side, (SIDE, NOISES * SIDE, 3); `kind` counts in CLASSES."""
    top, left = row(network, w, n_steps) * SIDE, kind * NOISES * SIDE
    return sheet[top : top + SIDE, left : left + NOISES * SIDE]


def main(arguments: list[str] | None = None) -> None:
    """Command line: draw the sheet."""
    argparse.ArgumentParser(prog="distill_lib.run explore", description=main.__doc__).parse_args(arguments)
    rows = []
    for network in NETWORKS:
        net = load_network(network)
        rows += [drawn(net, w, n_steps) for w, n_steps in product(WS, STEPS)]
    with atomic(SHEET) as part:
        Image.fromarray(np.concatenate(rows)).save(part, format="webp", lossless=True, quality=100, method=6)
    print(f"{SHEET.relative_to(ROOT)}: {SHEET.stat().st_size / 1e3:.0f} kB; now give the command `make exercises`")

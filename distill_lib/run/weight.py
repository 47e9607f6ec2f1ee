"""The weight of published notebooks: GitHub shows those of at most 1.5 MB, and most of it is pictures.

In a notebook above the limit each channel of each picture is rounded to multiples of a step q below white,

    c' = 255 - q round((255 - c) / q),    |c - c'| <= q / 2

with the smallest q of STEPS that is enough. The figures in figures/ keep all their bits.
"""

import base64
import copy
import io

import nbformat
import numpy as np
from nbformat import NotebookNode
from PIL import Image

LIMIT = 1_500_000
"""Bytes of a notebook's file."""
STEPS = (1, 2, 4, 6, 8, 10, 12)
"""Of 255; 1 only stores a picture better."""
_PNG = "image/png"


def size(notebook: NotebookNode) -> int:
    """Bytes of the file of a notebook."""
    return len(nbformat.writes(notebook).encode())


def light(notebook: NotebookNode, limit: int = LIMIT) -> NotebookNode:
    """The notebook with its pictures rounded as little as brings it below the limit, or by the largest step.

    A notebook below the limit is returned as it is.
    """
    lighter, steps = notebook, iter(STEPS)
    while size(lighter) > limit and (step := next(steps, None)):
        lighter = copy.deepcopy(notebook)
        for data in (output.get("data", {}) for cell in lighter.cells for output in cell.get("outputs", [])):
            if _PNG in data:
                data[_PNG] = base64.b64encode(coarser(base64.b64decode(data[_PNG]), step)).decode() + "\n"
    return lighter


def coarser(png: bytes, step: int) -> bytes:
    """A picture on white with its channels rounded as in the formula."""
    picture = Image.open(io.BytesIO(png)).convert("RGBA")
    flat = Image.alpha_composite(Image.new("RGBA", picture.size, "white"), picture).convert("RGB")
    below_white = np.round((255 - np.asarray(flat, dtype=float)) / step) * step
    stored = io.BytesIO()
    Image.fromarray((255 - below_white).clip(0, 255).astype(np.uint8)).save(stored, "png", optimize=True)
    return stored.getvalue()

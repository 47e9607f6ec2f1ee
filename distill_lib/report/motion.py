"""Animations for what one picture cannot show: samples on their way to the data, and samples while w slides.

An animation is a list of figures of one size; `gif` makes one file of them.
"""

import io
from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from PIL import Image
from torch import Tensor

from distill_lib.report.grids import grid
from distill_lib.report.style import PALETTE, SCREEN, whole_figure

_COLORS = 256  # of a frame
_SIDE = 3.4  # inches of the plane


def gif(frames: Sequence[Figure], milliseconds: Sequence[int]) -> bytes:
    """Frames as a GIF that begins again at its end.

    Args:
        frames: figures of one size.
        milliseconds: how long each stays.

    Raises:
        ValueError: there is no frame, sizes differ, or not every frame has its time.
    """
    sizes = {tuple(frame.get_size_inches()) for frame in frames}
    if len(sizes) != 1 or len(frames) != len(milliseconds):
        raise ValueError(f"{len(frames)} frames of {len(sizes)} sizes with {len(milliseconds)} times: give equal ones")
    first, *others = [_drawn(frame) for frame in frames]
    file = io.BytesIO()
    first.save(file, "gif", save_all=True, append_images=others, duration=list(milliseconds), loop=0, optimize=True)
    return file.getvalue()


def _drawn(figure: Figure) -> Image.Image:
    figure.set_dpi(SCREEN)
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    picture = Image.fromarray(np.asarray(canvas.buffer_rgba())).convert("RGB")
    return picture.quantize(_COLORS, Image.Quantize.MAXCOVERAGE, dither=Image.Dither.NONE)


def along(states: Tensor, progress: float) -> np.ndarray:
    """The way of each sample up to a share `progress` of the steps, straight within a step.

    Args:
        states: of a sampler, (S + 1, N, 2), from noise to data.
        progress: between 0 and 1.

    Returns:
        points (P, N, 2), the last one where the samples are now.
    """
    path, place = np.asarray(states), progress * (len(states) - 1)
    whole = min(int(place), len(path) - 2)
    now = path[whole] + (place - whole) * (path[whole + 1] - path[whole])
    return np.concatenate([path[: whole + 1], now[None]])


def walks(paths: Mapping[str, Tensor], label: Tensor, per_path: int = 8) -> tuple[list[Figure], list[int]]:
    """Samples in the plane on their way from noise to data, one sampler after the other, and the times of the frames.

    Args:
        paths: the states of each sampler, (S + 1, N, 2), under the words that stand above them.
        label: class of each sample, (N,).
        per_path: frames of a sampler; its last one stays.
    """
    frames, times = [], []
    for title, states in paths.items():
        for k in range(1, per_path + 1):
            frames.append(_plane(along(states, k / per_path), label, title))
            times.append(60 if k < per_path else 1000)
    return frames, times


def _plane(path: np.ndarray, label: Tensor, title: str) -> Figure:
    figure = whole_figure(_SIDE, _SIDE + 0.3, f"Samples in the plane: {title}.")
    ax = figure.add_axes((0.02, 0.02, 0.96, 0.96 * _SIDE / (_SIDE + 0.3)))
    colors = np.array(PALETTE[:6])[np.asarray(label) % 6]
    ax.add_collection(LineCollection(list(path.swapaxes(0, 1)), colors=colors, lw=0.8, alpha=0.6))
    ax.scatter(path[-1, :, 0], path[-1, :, 1], s=9, c=colors, lw=0, zorder=3)
    ax.set(xlim=(-2.6, 2.6), ylim=(-2.6, 2.6), xticks=[], yticks=[])
    ax.spines[:].set_visible(True)
    figure.text(0.5, 0.985, title, ha="center", va="top", fontsize=10)
    return figure


def slide(strips: Mapping[float, Tensor], title: str) -> tuple[list[Figure], list[int]]:
    """Samples (n, 3, R, R) of one noise while w goes up and down again, and the times of the frames."""
    up = {w: grid([[strips[w]]], [f"w = {w:.2f}"], [""], title) for w in sorted(strips)}
    order = [*up, *list(up)[-2:0:-1]]
    ends = {order[0], max(up)}
    return [up[w] for w in order], [700 if w in ends else 150 for w in order]

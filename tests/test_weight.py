"""Published notebooks are light enough for GitHub, and their pictures hardly differ from the drawn ones."""

import base64
import io

import nbformat
import numpy as np
import pytest
from PIL import Image

from distill_lib.paths import ROOT
from distill_lib.run import notebooks
from distill_lib.run.weight import LIMIT, STEPS, coarser, light, size


def png(array: np.ndarray) -> bytes:
    stored = io.BytesIO()
    Image.fromarray(array).save(stored, "png")
    return stored.getvalue()


def notebook_of(picture: bytes):
    data = {"image/png": base64.b64encode(picture).decode()}
    cell = nbformat.v4.new_code_cell("figure", outputs=[nbformat.v4.new_output("display_data", data=data)])
    return nbformat.v4.new_notebook(cells=[cell])


NOISE = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)


@pytest.mark.parametrize("step", STEPS)
def test_no_channel_moves_by_more_than_half_a_step_and_white_stays_white(step):
    array = NOISE.copy()
    array[0] = 255
    rounded = np.asarray(Image.open(io.BytesIO(coarser(png(array), step)))).astype(int)
    assert np.abs(rounded - array).max() <= step / 2
    assert (rounded[0] == 255).all()


def test_a_transparent_picture_stands_on_white():
    picture = np.zeros((4, 4, 4), dtype=np.uint8)
    assert (np.asarray(Image.open(io.BytesIO(coarser(png(picture), 1)))) == 255).all()


def test_a_light_notebook_keeps_its_bytes_and_a_heavy_one_is_rounded_by_the_smallest_step_that_is_enough():
    notebook = notebook_of(png(NOISE))
    assert light(notebook) is notebook
    sizes = {step: size(notebook_of(coarser(png(NOISE), step))) for step in STEPS}
    assert sizes[8] < sizes[4] < sizes[1]
    assert size(light(notebook, sizes[4] + 9)) in range(sizes[4] - 9, sizes[4] + 10)
    assert size(light(notebook, 10)) == pytest.approx(sizes[STEPS[-1]], abs=9)  # as light as it gets


@pytest.mark.parametrize("name", notebooks.names())
def test_a_published_notebook_is_light_enough_for_github(name):
    assert (ROOT / "notebooks" / f"{name}.ipynb").stat().st_size <= LIMIT

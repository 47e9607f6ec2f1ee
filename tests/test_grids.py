"""Every sample of a grid covers whole pixels, on the screen and in a file, and words stand where they belong."""

import io

import numpy as np
import pytest
import torch
from PIL import Image

from distill_lib.report.grids import GAP, enlargement, grid, strip

SIDE = 16


def samples(count, side=SIDE):
    generator = torch.Generator().manual_seed(count)
    return torch.randint(0, 255, (count, 3, side, side), generator=generator, dtype=torch.uint8)


def enlarged(cell, scale):
    return strip(cell).repeat(scale, 0).repeat(scale, 1)


def holds(picture, part):
    """Whether a part lies somewhere in a picture, pixel by pixel."""
    height, width = part.shape[:2]
    places = np.argwhere((picture[: -height or None, : -width or None] == part[0, 0]).all(-1))
    return any(np.array_equal(picture[y : y + height, x : x + width], part) for y, x in places)


@pytest.mark.parametrize("dots", [1, 2])
@pytest.mark.parametrize("counts", [(3,), (2, 2)])
def test_samples_are_enlarged_by_a_whole_number_on_the_screen_and_in_files(counts, dots):
    cells = [samples(count) for count in counts]
    figure = grid([cells, cells[::-1]], ["a", "b, and more words"], ["x"] * len(counts), "title")
    file = io.BytesIO()
    figure.savefig(file, format="png", dpi=dots * 100)
    picture = np.asarray(Image.open(file).convert("RGB"))
    scale = enlargement(SIDE, counts)
    assert scale == 8  # 128 pixels
    for cell in cells:
        assert holds(picture, enlarged(cell, dots * scale))


def test_a_file_has_two_dots_for_each_pixel_of_the_screen():
    figure = grid([[samples(2)]], ["a"], [""], "title")
    file = io.BytesIO()
    figure.savefig(file, format="png")
    screen = Image.open(io.BytesIO(figure._repr_png_()[0]))
    assert Image.open(file).size == tuple(2 * pixels for pixels in screen.size)


@pytest.mark.parametrize(
    "side, counts, scale", [(32, [12], 2), (32, [2] * 6, 2), (64, [8], 1), (64, [40], 1), (28, [1], 4)]
)
def test_the_enlargement_is_the_greatest_that_fits(side, counts, scale):
    assert enlargement(side, counts) == scale


def test_a_strip_has_white_gaps_between_its_samples():
    gapped = strip(samples(3))
    assert gapped.shape == (SIDE, 3 * SIDE + 2 * GAP, 3)
    assert (gapped[:, SIDE : SIDE + GAP] == 255).all()
    assert np.array_equal(gapped[:, -SIDE:], samples(3)[2].permute(1, 2, 0).numpy())


def test_words_stand_below_each_picture_or_are_refused():
    texts = [text.get_text() for text in grid([[samples(2)]], ["a"], [""], "t", under=["one", "two"]).texts]
    assert texts == ["t", "one", "two"]
    with pytest.raises(ValueError, match="1 words for 2 pictures"):
        grid([[samples(2)]], ["a"], [""], "t", under=["one"])


def test_the_alternative_text_names_rows_and_columns():
    figure = grid([[samples(1), samples(1)]], ["teacher"], ["1 step", "2 steps"], "Same noise")
    assert figure.alt == "Pictures: Same noise. Rows: teacher; columns: 1 step, 2 steps."

"""Diagrams can be read: words lie apart and inside, are large enough, and say what networks and files say."""

import json
import re

import pytest
from diffusers import UNet2DConditionModel
from matplotlib.backends.backend_agg import FigureCanvasAgg

from distill_lib.networks.pruning import Cut, prune
from distill_lib.report import diagrams, notebook_map
from distill_lib.report.boxes import FONT, WIDTH, Sheet
from distill_lib.run.notebooks import names

CUT = Cut(middle="removed", innermost=True, finest=True, layers=1)


@pytest.fixture(scope="module")
def pair():
    """A small U-Net of three stages, two units each, attention in two, and what a cut leaves of it."""
    large = UNet2DConditionModel(
        sample_size=8,
        block_out_channels=(8, 8, 8),
        layers_per_block=2,
        norm_num_groups=4,
        cross_attention_dim=8,
        attention_head_dim=4,
        down_block_types=("CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D"),
    )
    return large, prune(large, CUT)


@pytest.fixture(scope="module")
def figures(pair):
    return {
        "two stages": diagrams.two_stages(32),
        "one halving": diagrams.two_steps_and_one(),
        "w": diagrams.way_of_w(),
        "cut": diagrams.removed_blocks(*pair, "a small U-Net"),
        "scores": diagrams.three_networks(),
        "control": diagrams.control_net(),
        "map": notebook_map.notebook_map(),
    }


NAMES = ("two stages", "one halving", "w", "cut", "scores", "control", "map")


def extents(figure):
    """Of all words, the key included, in points of the picture."""
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    (ax,) = figure.axes
    words = [*ax.texts, *([ax.get_legend()] if ax.get_legend() else [])]
    return [part.get_window_extent(canvas.get_renderer()) for part in words]


@pytest.mark.parametrize("name", NAMES)
def test_words_lie_apart_and_on_the_sheet(figures, name):
    boxes = extents(figures[name])
    whole = figures[name].bbox
    assert all(whole.x0 <= box.x0 and box.x1 <= whole.x1 and whole.y0 <= box.y0 and box.y1 <= whole.y1 for box in boxes)
    assert not [(i, k) for i, a in enumerate(boxes) for k, b in enumerate(boxes[:i]) if a.overlaps(b)]


@pytest.mark.parametrize("name", NAMES)
def test_words_are_nine_points_and_more_in_print_of_six_and_a_half_inches(figures, name):
    (ax,) = figures[name].axes
    assert min(text.get_fontsize() for text in ax.texts) * 6.5 / (WIDTH / 10) > 9
    assert FONT * 6.5 / (WIDTH / 10) > 9


@pytest.mark.parametrize("name", NAMES)
def test_a_notebook_shows_a_diagram_with_words_for_who_does_not_see_it(figures, name):
    data, metadata = figures[name]._repr_png_()
    assert data.startswith(b"\x89PNG") and len(metadata["alt"]) > 80 and "\n" not in metadata["alt"]


@pytest.mark.parametrize("name", NAMES)
def test_words_in_a_box_stay_in_it(figures, name):
    (ax,) = figures[name].axes
    canvas = FigureCanvasAgg(figures[name])
    canvas.draw()
    boxes = [patch.get_window_extent() for patch in ax.patches if hasattr(patch, "get_boxstyle")]
    for text in ax.texts:
        words = text.get_window_extent(canvas.get_renderer())
        middle = (words.x0 + words.x1) / 2, (words.y0 + words.y1) / 2
        for box in boxes:
            if box.contains(*middle):
                assert box.x0 < words.x0 and words.x1 < box.x1 and box.y0 < words.y0 and words.y1 < box.y1


def test_words_that_overlap_are_seen_by_these_tests():
    sheet = Sheet(20, "title", "alt")
    sheet.words(10, 10, "first words")
    sheet.words(12, 10, "second words")
    _, a, b = extents(sheet.figure)
    assert a.overlaps(b)


def counted(figure):
    """Boxes that are kept and that are removed, by their letters."""
    (ax,) = figure.axes
    edges = {
        (patch.get_x() + patch.get_width() / 2, patch.get_y() + patch.get_height() / 2): patch
        for patch in ax.patches
        if hasattr(patch, "get_boxstyle")
    }
    result = {"kept": [], "removed": []}
    for text in ax.texts:
        if text.get_text() in ("R", "A"):
            patch = next(p for place, p in edges.items() if place == pytest.approx(text.get_position()))
            result["removed" if patch.get_linestyle() == ":" else "kept"].append(text.get_text())
    return result


def units(net):
    blocks = [*net.down_blocks, *net.up_blocks, *([net.mid_block] if net.mid_block else [])]
    attentions = sum(len(getattr(block, "attentions", [])) for block in blocks)
    return {"R": sum(len(block.resnets) for block in blocks), "A": attentions}


def test_the_units_of_a_cut_are_those_of_the_networks(pair, figures):
    large, small = map(units, pair)
    result = counted(figures["cut"])
    for letter in "RA":
        assert result["kept"].count(letter) == small[letter] > 0
        assert result["removed"].count(letter) == large[letter] - small[letter] > 0


def test_a_cut_of_nothing_removes_nothing(pair):
    assert counted(diagrams.removed_blocks(pair[0], pair[0], "itself"))["removed"] == []


def test_the_chain_of_stage_two_has_each_number_of_steps(figures):
    def chain(figure):
        return [text.get_text() for text in figure.axes[0].texts if re.fullmatch(r"\d+|\.\.\.", text.get_text())]

    assert chain(figures["two stages"]) == ["32", "16", "8", "4", "2", "1"]
    assert chain(diagrams.two_stages(512)) == ["512", "256", "128", "...", "4", "2", "1"]


def test_every_notebook_has_its_place_on_the_map(figures):
    words = [text.get_text().replace("\n", "_").replace(" ", "_") for text in figures["map"].axes[0].texts]
    assert sorted(name for name in words if name in names()) == names()
    numbers = [number for column in notebook_map.COLUMNS.values() for number in column]
    assert len(numbers) == len(set(numbers))


def test_minutes_are_the_most_that_any_seed_took_rounded_up_and_none_without_results(tmp_path):
    made = {"0": {"seconds": 5.0}, "1": {"seconds": 121.0}}
    (tmp_path / "g-fig5.json").write_text(json.dumps({"seconds": 5.0, "made": made}))
    (tmp_path / "g-fig2.json").write_text(json.dumps({"seconds": 90.0}))
    assert notebook_map.minutes("03_step_halving", tmp_path) == 3
    assert notebook_map.minutes("00_start_here", tmp_path) is None

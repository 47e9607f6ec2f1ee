"""Tables and curves say what the rows say."""

import math

import numpy as np
import pytest

from distill_lib.report.curves import curves, dots, panels, training_panels
from distill_lib.report.style import LABELS
from distill_lib.report.tables import (
    markdown_table,
    metric_table,
    over_seeds,
    ratio_sentences,
    spread_table,
    table_1,
    table_of_strength,
)


def rows(method="ours-D", steps=4, w=1.0, metric="fid", values=(10.0,), **more):
    columns = {"method": method, "steps": steps, "w": w, "nfe": steps, "metric": metric} | more
    return [columns | {"seed": seed, "value": value} for seed, value in enumerate(values)]


@pytest.mark.parametrize(
    "values, text",
    [
        ((), ""),
        ((12.345,), "12.3"),
        ((1.0, 3.0), "2 ± 13"),
        ((-2e-10,), "0"),
        ((1e-10, 3e-10), "0 ± 0"),
        ((0.9, 0.9, 0.9), "0.9 ± 0"),
    ],
)
def test_a_cell_is_the_mean_with_half_of_the_interval_over_seeds(values, text):
    """Of 1 and 3 the mean has a standard error of 1, and t(0.975; 1) = 12.7."""
    assert over_seeds(rows(values=values)) == text


def test_a_part_of_table_1_has_a_line_for_each_method_and_step_count_that_has_the_metric():
    result = rows() + rows(metric="is", values=(20.0,)) + rows(metric="fid_teacher", values=(3.0,))
    result += rows(method="ddim", w=0.0) + rows(method="real", metric="floor_fid")
    header, lines = table_1(result, [0.0, 1.0], "fid")
    assert header == ["method", "steps", "evaluations", "w = 0", "w = 1"]
    assert lines == [["distilled student (D)", 4, 4, "", "10"], ["guided pair, DDIM", 4, 4, "10", ""]]
    assert table_1(result, [0.0, 1.0], "is")[1] == [["distilled student (D)", 4, 4, "", "20"]]


def test_the_table_of_one_strength_holds_every_metric_and_no_other_strength():
    result = rows() + rows(metric="seconds", values=(0.5,)) + rows(w=0.0, steps=8)
    header, lines = table_of_strength(result, 1.0)
    assert len(lines) == 1
    line = dict(zip(header, lines[0], strict=True))
    assert (line["evaluations"], line["FID"], line["seconds"], line["recall"]) == (4, "10", "0.5", "")


def test_spreads_over_noise_and_over_trainings_are_told_apart():
    """Values training + noise: each spread sees its own part alone."""
    noise, training = (0.0, 1.0, 5.0), (0.0, 20.0)
    result = [
        row | {"draw": draw, "seed": seed, "value": training[seed] + noise[draw]}
        for draw in range(3)
        for seed, row in enumerate(rows(values=(0.0, 0.0)))
    ]
    header, (line,) = spread_table(result)
    line = dict(zip(header, line, strict=True))
    assert line["mean"] == pytest.approx(12.0)
    assert float(line["spread over noise"]) == pytest.approx(math.sqrt(7), rel=0.05)
    assert float(line["spread over trainings"]) == pytest.approx(20 / math.sqrt(2), rel=0.05)
    _, (spread_line,) = spread_table([row for row in result if row["seed"] == 0])
    assert spread_line[-1] == ""


def test_curves_draw_the_mean_of_the_seeds_against_evaluations():
    result = [row for n in (1, 2) for row in rows(steps=n, values=(n, 3.0 * n))]
    axes = curves(result, ["fid"], [1.0], "title").axes[0]
    assert axes.lines[0].get_xydata().tolist() == [[1.0, 2.0], [2.0, 4.0]]


def test_committed_trainings_lie_behind_the_live_one_in_its_colour_with_their_range_over_seeds():
    def curve(method, seed, values):
        columns = {"method": method, "metric": "loss", "steps": 4, "seed": seed}
        return [columns | {"update": i, "value": value} for i, value in enumerate(values, 1)]

    live = curve("ours-D", 0, [2.0, 1.0]) + curve("ours-S", 0, [3.0, 1.5])
    axes = training_panels(live, curve("ours-D", 0, [1.8, 0.8]) + curve("ours-D", 1, [2.0, 1.2]), "title").axes
    earlier, now = axes[0].lines
    assert earlier.get_xydata() == pytest.approx(np.array([[1, 1.9], [2, 1.0]]))
    assert now.get_xydata().tolist() == [[1, 2], [2, 1]]
    assert tuple(earlier.get_color()) == tuple(now.get_color()) and earlier.get_alpha() < 0.5
    (band,) = axes[0].collections
    assert band.get_paths()[0].get_extents().extents == pytest.approx([1, 0.8, 2, 2.0])
    assert len(axes[1].lines) == 1 and not axes[1].collections


def test_a_table_prints_rounding_as_zero_and_three_digits_of_the_rest():
    text = markdown_table(["a", "b"], [[-9.3e-12, 0.00012345], [1234.5, 7]])
    assert text.splitlines()[2:] == ["| 0 | 0.000123 |", "| 1.23e+03 | 7 |"]
    assert markdown_table(["a"], [["1 ± 2"]]).splitlines()[3:] == ["", "±: half of the 95 % t interval over seeds."]


def test_a_table_of_metrics_has_a_line_for_each_combination_of_its_columns_and_blanks_for_what_is_absent():
    sample_rows = rows(metric="iou", values=(0.5, 0.7)) + rows(method="truth", metric="iou", values=(0.9,))
    for row in sample_rows[2:]:
        del row["w"]
    header, lines = metric_table(sample_rows, ("method", "w"), ("iou", "style"))
    assert header == ["method", "w", LABELS["iou"], LABELS["style"]]
    assert lines == [
        [LABELS["ours-D"], 1.0, "0.6 ± 1.3", ""],
        [LABELS["truth"], "", "0.9", ""],
    ]


def test_panels_draw_a_line_against_evaluations_and_a_level_for_what_has_none_and_for_the_teacher():
    sample_rows = [
        row for n, value in ((2, 1.0), (8, 3.0)) for row in rows(steps=n, metric="iou", values=(value, value + 1))
    ]
    sample_rows += rows(method="teacher", steps=128, metric="iou", values=(6.0, 8.0))
    sample_rows += [{"method": "truth", "metric": "iou", "value": 9.0}]
    (ax,) = panels(sample_rows, ["iou"], "title").axes
    line, *levels = ax.lines
    assert (list(line.get_xdata()), list(line.get_ydata())) == ([2, 8], [1.5, 3.5])
    assert sorted(level.get_ydata()[0] for level in levels) == [7.0, 9.0]


def test_dots_show_the_mean_over_seeds_and_the_range():
    sample_rows = rows(method="a", metric="fid", values=(1.0, 2.0, 6.0)) + rows(method="b", metric="fid", values=(4.0,))
    (ax,) = dots(sample_rows, [("fid", 1.0)], "title").axes
    assert [list(line.get_xdata()) for line in ax.lines] == [[1, 6], [3], [4, 4], [4]]
    assert [tick.get_text() for tick in ax.get_yticklabels()] == ["a", "b"]


@pytest.mark.parametrize(("values", "scale"), [((1.0, 29.0), "linear"), ((1.0, 31.0), "log"), ((0.0, 31.0), "linear")])
def test_dots_that_lie_far_apart_stand_on_a_logarithmic_axis(values, scale):
    sample_rows = [
        row
        for name, value in zip("ab", values, strict=True)
        for row in rows(method=name, metric="fid", values=(value,))
    ]
    (ax,) = dots(sample_rows, [("fid", 1.0)], "title").axes
    assert ax.get_xscale() == scale


def test_a_choice_is_told_apart_in_words_only_where_the_interval_over_seeds_leaves_one_out():
    result = (
        rows("ours", values=[1.0, 2.0, 4.0])
        + rows("twice", values=[2.0, 4.0, 8.1])
        + rows("half", values=[0.5, 1.0, 2.1])
    )
    result += [*rows("either", values=[2.0, 1.0, 4.0]), result[0] | {"metric": "kid", "value": -1.0}]
    twice, half, either = ratio_sentences(result, "ours", "fid")
    assert twice.startswith("FID of twice, beside ours: 2.01 times at w = 1 ([") and twice.endswith("more)")
    assert half.startswith("FID of half, beside ours: 0.508 times") and half.endswith("less)")
    assert either.startswith("FID of either, beside ours: 1 times") and either.endswith("not distinguishable)")


def test_ratios_need_three_seeds_to_be_told_and_seeds_that_both_have():
    two = (
        rows("ours", values=[1.0, 1.0])
        + rows("twice", values=[2.0, 2.0])
        + rows("ours", w=4.0, values=[4.0])
        + rows("twice", w=4.0, values=[2.0, 9.0])
    )
    (both,) = ratio_sentences(two, "ours", "fid")
    assert both == "FID of twice, beside ours: 2 times at w = 1 (2 of 3 seeds); 0.5 times at w = 4 (1 of 3 seeds)"
    assert ratio_sentences(rows("ours", values=[0.0]) + rows("below", values=[-1e-9]), "ours", "fid") == []

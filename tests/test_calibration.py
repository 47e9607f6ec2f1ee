"""What rulers are said to see follows from rows alone, and is drawn from them."""

import pytest
import torch

from distill_lib.measure import calibration
from distill_lib.measure.calibration import PURPOSE, bench, chance, seen_from
from distill_lib.measure.corruptions import CORRUPTIONS, STRENGTHS, Pool
from distill_lib.report.rulers import AXES, answers, purposes


def made_up(seed=0, last=9.0):
    """Rows of every ruler: untouched 1, 2, 3 (standard deviation 1), damage of 3, 7, 5, `last` at growing strength."""
    rows = []
    for metric in PURPOSE:
        columns = {"metric": metric, "seed": seed}
        for n in (32, 64):
            rows += [columns | {"corruption": "none", "strength": 0.0, "n": n, "value": v} for v in (1.0, 2.0, 3.0)]
        for name, strengths in STRENGTHS.items():
            damage = zip(strengths, (3.0, 7.0, 6.5, last), strict=True)
            rows += [columns | {"corruption": name, "strength": s, "n": 64, "value": v} for s, v in damage]
    return rows


def test_damage_is_seen_from_where_it_stays_beyond_chance():
    assert chance(made_up(), "fid", 64, 0) == (2.0, 1.0)
    assert seen_from(made_up(), "fid", "blur") == STRENGTHS["blur"][1]  # 7 - 2 > 4 and all that follow
    assert seen_from(made_up(last=5.0), "fid", "blur") is None  # the greatest is not seen
    both = made_up() + [row | {"seed": 1} for row in made_up(last=5.0)]
    assert seen_from(both, "fid", "blur") is None


def test_each_bench_stands_beside_its_own_chance():
    shifted = [row | {"seed": 1, "value": row["value"] + 10} for row in made_up()]
    both = made_up() + shifted  # pooled, the untouched sets of the two have a standard deviation of 5.5
    assert chance(both, "fid", 64, 1) == (12.0, 1.0)
    assert seen_from(both, "fid", "blur") == seen_from(made_up(), "fid", "blur") == STRENGTHS["blur"][1]
    assert purposes(both, list(CORRUPTIONS))[1][0][2:4] == ["7 (1)", "0.4"]


def test_a_point_is_filled_where_the_table_says_that_damage_is_seen():
    # the mean of 9 and 5 lies outside the grey, yet one bench does not see the greatest damage
    both = made_up() + [row | {"seed": 1} for row in made_up(last=5.0)]
    for rows, filled in ((made_up(), [False, True, True, True]), (both, [False] * 4)):
        points = [line for line in answers(rows, "made up").axes[0].lines if line.get_marker() == "o"]
        assert [point.get_markerfacecolor() != "white" for point in points] == filled


def test_the_table_and_the_picture_have_a_line_a_ruler_and_a_column_a_corruption():
    header, lines = purposes(made_up(), list(CORRUPTIONS))
    assert [line[1] for line in lines] == list(PURPOSE.values())
    assert header[3:] == list(AXES.values()) and set(AXES) == set(CORRUPTIONS) == set(STRENGTHS)
    assert lines[0][2:4] == ["2 (1)", "0.4"]
    axes = answers(made_up(), "made up").axes
    assert len(axes) == len(PURPOSE) * (len(CORRUPTIONS) + 1)
    assert axes[0].get_ylim() == axes[1].get_ylim()


def test_every_ruler_of_the_table_is_measured(monkeypatch):
    monkeypatch.setattr(
        calibration, "world_values", lambda *_, few: dict.fromkeys(set(PURPOSE) - {"fid", "copies"}, 1.0)
    )
    monkeypatch.setattr(calibration, "frechet", lambda *_: 1.0)
    monkeypatch.setattr(calibration, "novelty", lambda image, *_: image)

    class Nothing:
        real = type("Real", (), {"first": lambda self, n: None})()
        last = staticmethod(lambda image: torch.zeros(len(image), 2))

    result = calibration.Bench(Nothing(), Pool(None, None), torch.ones(4), torch.ones(4)).values(torch.ones(4))
    assert set(result) == set(PURPOSE)


def test_real_data_is_refused():
    with pytest.raises(ValueError, match="world='cifar10': rulers are tried on an embedded world"):
        bench(None, "cifar10", 32, 2)

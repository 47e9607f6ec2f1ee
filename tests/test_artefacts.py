"""Rows on disk: curves go out and come back."""

import json

from distill_lib import artefacts
from distill_lib.artefacts import committed_curves, curve_rows


def test_curves_of_two_seeds_come_back_as_they_were_committed(tmp_path, monkeypatch):
    curves = {4: [(1, 2.0), (2, 1.0)], 2: [(1, 3.0)]}
    rows = curve_rows("ours-D", curves, 0) + curve_rows("ours-D", {4: [(1, 2.5)]}, 1) + curve_rows("ours-S", curves, 0)
    folder = tmp_path / "figures" / "laptop"
    folder.mkdir(parents=True)
    (folder / "g-curves.json").write_text(json.dumps({"rows": rows}))
    monkeypatch.setattr(artefacts, "ROOT", tmp_path)
    assert committed_curves("g-curves", "ours-D") == {4: [[(1, 2.0), (2, 1.0)], [(1, 2.5)]], 2: [[(1, 3.0)]]}
    assert committed_curves("g-none", "ours-D") == {}


def test_a_long_curve_is_thinned_to_some_fifty_points_from_its_first_on():
    rows = curve_rows("ours-D", {1: [(k, 1.0 / k) for k in range(1, 201)]}, 0)
    assert len(rows) == 50 and rows[0]["update"] == 1 and {row["steps"] for row in rows} == {1}

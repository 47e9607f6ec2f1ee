"""Rows on disk: curves go out and come back."""

import json

from distill_lib import artefacts
from distill_lib.artefacts import committed_rows, curve_rows


def test_committed_rows_are_those_of_the_repository_and_none_where_it_has_none(tmp_path, monkeypatch):
    rows = curve_rows("ours-D", {4: [(1, 2.0), (2, 1.0)], 2: [(1, 3.0)]}, 0)
    folder = tmp_path / "figures" / "laptop"
    folder.mkdir(parents=True)
    (folder / "g-curves.json").write_text(json.dumps({"rows": rows}))
    monkeypatch.setattr(artefacts, "ROOT", tmp_path)
    monkeypatch.setenv("DISTILL_FIGURES", str(tmp_path / "elsewhere"))
    assert committed_rows("g-curves") == rows
    assert committed_rows("g-none") == []


def test_a_long_curve_is_thinned_to_some_fifty_points_from_its_first_on():
    rows = curve_rows("ours-D", {1: [(k, 1.0 / k) for k in range(1, 201)]}, 0)
    assert len(rows) == 50 and rows[0]["update"] == 1 and {row["steps"] for row in rows} == {1}

"""Rows on disk: curves go out and come back."""

import json

from distill_lib import artefacts
from distill_lib.artefacts import Recorder, curve_rows


def test_committed_rows_are_those_of_the_repository_and_none_where_it_has_none(tmp_path, monkeypatch):
    rows = curve_rows("ours-D", {4: [(1, 2.0), (2, 1.0)], 2: [(1, 3.0)]}, 0)
    folder = tmp_path / "figures" / "laptop"
    folder.mkdir(parents=True)
    (folder / "g-curves.json").write_text(json.dumps({"rows": rows}))
    (folder / "g-curves-fashion-mnist.json").write_text(json.dumps({"rows": rows[:1]}))
    monkeypatch.setattr(artefacts, "ROOT", tmp_path)
    monkeypatch.setenv("DISTILL_FIGURES", str(tmp_path / "elsewhere"))
    assert Recorder("smoke", "textured", []).committed("g-curves") == rows
    assert Recorder("smoke", "textured", []).committed("g-none") == []
    assert Recorder("smoke", "fashion_mnist", [], "-fashion-mnist").committed("g-curves") == rows[:1]


def test_artefacts_of_real_data_say_so_in_their_names_and_keep_rows_of_their_own(tmp_path, monkeypatch):
    monkeypatch.setenv("DISTILL_FIGURES", str(tmp_path))
    plain, real = Recorder("smoke", "textured", []), Recorder("smoke", "fashion_mnist", [], "-fashion-mnist")
    row = {"metric": "fid", "value": 1.0, "seed": 0}
    plain.rows("g-tab1", [row])
    kept = real.rows("g-tab1", [row | {"value": 2.0, "seed": 1}])
    real.table("g-tab1", "| a |")
    assert kept == [row | {"value": 2.0, "seed": 1}]
    names = {path.name for path in (tmp_path / "smoke").iterdir()}
    real_names = {f"g-tab1-fashion-mnist.{suffix}" for suffix in ("csv", "json", "md")}
    assert names == {"g-tab1.csv", "g-tab1.json"} | real_names
    assert json.loads((tmp_path / "smoke" / "g-tab1-fashion-mnist.json").read_text())["artefact"].endswith("-mnist")


def test_a_long_curve_is_thinned_to_some_fifty_points_from_its_first_on():
    rows = curve_rows("ours-D", {1: [(k, 1.0 / k) for k in range(1, 201)]}, 0)
    assert len(rows) == 50 and rows[0]["update"] == 1 and {row["steps"] for row in rows} == {1}


def test_rows_of_another_seed_keep_the_origin_that_they_had(tmp_path, monkeypatch):
    monkeypatch.setenv("DISTILL_FIGURES", str(tmp_path))
    row = {"metric": "fid", "value": 1.0}
    Recorder("smoke", "textured", ["first"]).rows("g-tab1", [row | {"seed": 0}])
    second = Recorder("smoke", "textured", ["second"])
    assert second.rows("g-tab1", [row | {"seed": 1}]) == [row | {"seed": 0}, row | {"seed": 1}]
    found = artefacts.load_record("smoke", "g-tab1")
    assert {seed: made["parents"] for seed, made in found["made"].items()} == {"0": ["first"], "1": ["second"]}
    assert found["parents"] == ["second"] and found["made"]["0"]["commit"]
    Recorder("smoke", "textured", ["third"]).rows("g-tab1", [row | {"seed": 0}])
    again = artefacts.load_record("smoke", "g-tab1")["made"]
    assert {seed: made["parents"] for seed, made in again.items()} == {"0": ["third"], "1": ["second"]}


def test_no_rows_leave_a_file_as_it_is(tmp_path, monkeypatch):
    monkeypatch.setenv("DISTILL_FIGURES", str(tmp_path))
    row = {"metric": "fid", "value": 1.0, "seed": 0}
    Recorder("smoke", "textured", ["first"]).rows("g-tab1", [row])
    before = (tmp_path / "smoke" / "g-tab1.json").read_bytes()
    assert Recorder("smoke", "textured", ["second"]).rows("g-tab1", []) == [row]
    assert (tmp_path / "smoke" / "g-tab1.json").read_bytes() == before
    assert Recorder("smoke", "textured", []).rows("g-none", []) == []


def test_rows_of_other_data_are_not_kept(tmp_path, monkeypatch):
    monkeypatch.setenv("DISTILL_FIGURES", str(tmp_path))
    row = {"metric": "fid", "value": 1.0}
    Recorder("smoke", "textured", []).rows("g-abl-range", [row | {"seed": 0}])
    assert Recorder("smoke", "icons", []).rows("g-abl-range", [row | {"seed": 1}]) == [row | {"seed": 1}]
    assert set(artefacts.load_record("smoke", "g-abl-range")["made"]) == {"1"}

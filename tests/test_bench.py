"""`make bench` and `make chaos` write what they find, once and whole."""

import json
import sys

import bench
import pytest
from chaos import __main__ as chaos

from distill_lib.networks.unet import build_unet
from distill_lib.worlds.pictures import DatasetSpec, load


def test_a_bench_times_every_pair_and_keeps_the_rates(runs, tmp_path, monkeypatch, capsys):
    small = {"_conv_peak": lambda: 1e9, "_SIZE": 8, "BATCH": 8, "BANK": 1}
    small |= {"load": lambda spec: load(DatasetSpec(name=spec.name, count=32))}
    for name, value in small.items():
        monkeypatch.setattr(bench, name, value)
    monkeypatch.setattr(
        bench.pretrained, "teacher", lambda name: build_unet(resolution=32, n_classes=96, channels=(16, 32))
    )
    monkeypatch.setenv("DISTILL_FIGURES", str(tmp_path))
    monkeypatch.setattr(sys, "argv", ["bench", "--profile", "smoke"])
    bench.main()
    result = json.loads((tmp_path / "smoke" / "bench.json").read_text())
    assert [row["what"].split(",")[0] for row in result] == [
        "train the teacher", "stage one", "halving", "sample the guided pair", "sample the student",
    ]  # fmt: skip
    for row in result:
        assert row["ratio"] == pytest.approx(row["ours"] / row["plain"]) and row["unit"] == "images/s"
        assert row["peak_share"] > 0
    assert capsys.readouterr().out.count("images/s, plain") == len(result)


@pytest.mark.parametrize("lost", [[], ["toy-1-0123"]])
def test_the_record_of_two_campaigns_is_their_sum_and_fails_where_something_was_lost(lost, tmp_path, monkeypatch):
    monkeypatch.setenv("DISTILL_FIGURES", str(tmp_path))
    lane = {"kills": 2, "lost": [], "different": [], "complaints": [], "notebooks": ["00"], "counts": {"SIGTERM": 2}}
    with pytest.raises(SystemExit) as ended:
        chaos._report([lane, lane | {"lost": lost}], 7)
    record = json.loads((tmp_path / "laptop" / "chaos.json").read_text())
    assert bool(ended.value.code) == bool(lost)
    assert (record["kills"], record["lost"], record["counts"], record["seconds"]) == (4, len(lost), {"SIGTERM": 4}, 7)

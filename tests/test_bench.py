"""`make bench` and `make chaos` write what they find, once and whole."""

import json
import sys
from functools import partial

import pytest
import torch
from bench import __main__ as bench
from bench import latents, pixels, processes, rates
from chaos import __main__ as chaos

from distill_lib.engine import precision
from distill_lib.networks.unet import build_unet
from distill_lib.report.pages.speed import SPEED, speed_table


@pytest.fixture
def small(monkeypatch):
    """Cases of a few pictures, on a small network in pixel space."""
    monkeypatch.setattr(bench, "conv_peak", lambda: {"bf16": 2e9, "fp32": 1e9})
    for part, sizes in ((pixels, {"SIZE": 4, "COUNT": 8, "BATCH": 4, "BANK": 1}), (latents, {"SIZE": 2, "COUNT": 4})):
        for name, value in sizes.items():
            monkeypatch.setattr(part, name, value)
    monkeypatch.setattr(rates, "_ROUNDS", 2)
    monkeypatch.setattr(
        pixels.pretrained, "teacher", lambda name: build_unet(resolution=32, n_classes=96, channels=(16, 32))
    )


def test_a_bench_times_every_case_in_both_precisions_and_keeps_the_rates(small, runs, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("DISTILL_FIGURES", str(tmp_path))
    monkeypatch.setattr(sys, "argv", ["bench", "--profile", "smoke"])
    both = {"one": 20.0, "two": 30.0, "ratio": 1.5, "batch": 32}
    monkeypatch.setattr(processes, "timed", lambda: both)
    bench.main()
    result = json.loads((tmp_path / "smoke" / "bench.json").read_text())
    assert [row["what"] for row in result["rows"]] == [
        "train the teacher", "stage one", "halving", "sample the guided pair, 8 steps", "sample the student, 4 steps",
        "feature matching", "score distillation", "ControlNet for the small U-Net",
    ]  # fmt: skip
    assert result["processes"] == both
    for row in result["rows"]:
        assert row["chosen"] == precision.choose() and row["ratio"] == row[row["chosen"]] / row["plain"]
        assert row["peak_share"] > 0 and row["unit"] == "images/s" and row["setting"].startswith("batch ")
    assert capsys.readouterr().out.count("images/s, plain") == len(result["rows"])


def test_the_share_of_the_peak_is_arithmetic_over_time(monkeypatch):
    a, b = torch.randn(8, 16), torch.randn(16, 4)  # 2 x 8 x 16 x 4 FLOPs a call, of 2 pictures
    ticks = iter(range(1000))
    monkeypatch.setattr(rates.time, "perf_counter", lambda: next(ticks))  # a call takes a second
    monkeypatch.setattr(precision, "choose", lambda: "fp32")
    make = partial(partial, torch.matmul, a, b)
    row = rates.timed(rates.Case("product", make, make, 2, "batch 2"), {"bf16": 1024.0, "fp32": 512.0})
    assert (row["bf16"], row["fp32"], row["plain"], row["ratio"]) == (2, 2, 2, 1)
    assert row["peak_share"] == pytest.approx(1.0)  # 1,024 FLOPs in a second, of the better peak


def test_ways_take_turns_and_the_first_ones_do_not_count(monkeypatch):
    seen, ticks = [], iter(range(1000))
    monkeypatch.setattr(rates.time, "perf_counter", lambda: next(ticks))

    def ours():
        return lambda: seen.append(precision.current())

    rates.timed(rates.Case("turns", ours, partial(partial, seen.append, "plain"), 1, "batch 1", calls=2), {"fp32": 1.0})
    turn = ["bf16", "bf16", "fp32", "fp32", "plain", "plain"]
    assert seen == ["bf16"] * 4 + ["fp32"] * 4 + ["plain"] * 4 + turn * rates._ROUNDS


@pytest.mark.parametrize("lost", [[], ["toy-1-0123"]])
def test_the_record_of_two_campaigns_is_their_sum_and_fails_where_something_was_lost(lost, tmp_path, monkeypatch):
    monkeypatch.setenv("DISTILL_FIGURES", str(tmp_path))
    lane = {"kills": 2, "lost": [], "different": [], "complaints": [], "notebooks": ["00"], "counts": {"SIGTERM": 2}}
    with pytest.raises(SystemExit) as ended:
        chaos._report([lane, lane | {"lost": lost}], 7)
    record = json.loads((tmp_path / "laptop" / "chaos.json").read_text())
    assert bool(ended.value.code) == bool(lost)
    assert (record["kills"], record["lost"], record["counts"], record["seconds"]) == (4, len(lost), {"SIGTERM": 4}, 7)


def test_the_table_of_the_bench_marks_what_was_chosen_and_names_each_case_in_both_languages(tmp_path):
    folder = tmp_path / "laptop"
    assert speed_table(tmp_path, "en") == SPEED.unmeasured["en"]
    rates = {"bf16": 400.4, "fp32": 300.0, "plain": 200.2, "chosen": "bf16", "ratio": 2.0, "peak_share": 0.523}
    rows = [{"what": name, "unit": "images/s", "setting": "batch 64", **rates} for name in SPEED.loops]
    result = {"day": "2026-11-30", "device": "a machine", "threads": 2, "peak": {"bf16": 4e11, "fp32": 2e11}}
    folder.mkdir()
    (folder / "bench.json").write_text(json.dumps(result | {"rows": rows}))
    assert "processes" not in speed_table(tmp_path, "en")  # not measured, not said
    result["processes"] = {"one": 20.4, "two": 30.6, "ratio": 1.5, "batch": 32}
    (folder / "bench.json").write_text(json.dumps(result | {"rows": rows}))
    english, chinese = (speed_table(tmp_path, language) for language in ("en", "zh"))
    assert "at batch 32: 31 images/s by two processes of one thread, 20 by one process of two threads" in english
    assert "每秒 31 张" in chinese and "1.50" in chinese
    assert "| stage one | batch 64 | 200 | **400** | 300 | 2.00 | 52% |" in english
    assert "a machine, 2 threads, 2026-11-30" in english and "400 GFLOP/s" in english
    for english_name, name in SPEED.loops.items():
        assert f"| {english_name} |" in english and f"| {name} |" in chinese


@pytest.mark.slow
def test_one_process_and_two_make_the_same_updates_in_turn(runs, monkeypatch):
    monkeypatch.setenv("DISTILL_RUNS", str(runs))
    monkeypatch.setattr(processes, "ROUNDS", 1)
    monkeypatch.setattr(processes, "UPDATES", 1)
    both = processes.timed()
    assert both["ratio"] == pytest.approx(both["two"] / both["one"]) and both["batch"] == 32
    folders = sorted(path.parent for path in runs.glob("bench-processes-*/config.json"))
    assert len(folders) == 2  # of one process, and of the two that train together


def test_every_case_of_the_bench_has_a_name_in_the_table(small):
    assert [case.name for case in (*pixels.cases(), *latents.cases())] == list(SPEED.loops)

"""Systems at their true sizes have the counts of the paper, and a part is timed without the others."""

import json
import weakref

import pytest
import torch
from torch import nn

from distill_lib.measure.costs import MODULES
from distill_lib.measure.rows import select
from distill_lib.run import true_scale
from distill_lib.run.true_scale import SYSTEMS, TABLES, Part, counted, main, measure, measured, reported

# Tables 1 and 2 of SDXS: billions of weights to two digits; decoders in millions
PAPER = {
    "SD 2.1 base": {"text encoder": 0.33e9, "U-Net": 0.87e9, "decoder": 50e6},
    "SDXS-512": {"text encoder": 0.33e9, "U-Net": 0.32e9, "decoder": 1.2e6},
    "SDXL": {"text encoder": 0.80e9, "U-Net": 2.56e9, "decoder": 50e6},
    "SDXS-1024": {"text encoder": 0.80e9, "U-Net": 0.74e9, "decoder": 1.2e6},
}


@pytest.mark.parametrize("system", SYSTEMS)
def test_every_module_has_the_size_that_the_paper_prints(system):
    for name, part in SYSTEMS[system].items():
        with torch.device("meta"):
            size = sum(p.numel() for p in part.build().parameters())
        assert size == pytest.approx(PAPER[system][name], rel=0.035), name  # the paper's two digits


def test_evaluations_are_those_of_the_paper():
    for system, text, unet in (("SD 2.1 base", 2, 32), ("SDXS-512", 1, 1), ("SDXL", 2, 32), ("SDXS-1024", 1, 1)):
        parts = SYSTEMS[system]
        assert [parts[name].nfe for name in ("text encoder", "U-Net", "decoder")] == [text, unet, 1]


def test_operations_of_a_known_layer_are_counted():
    part = Part(
        lambda: nn.Conv2d(2, 3, 3, padding=1, bias=False),
        lambda device, dtype: ((torch.zeros(1, 2, 8, 8, device=device, dtype=dtype),), {}),
        1,
    )
    assert counted(part) == {"params": 54, "flops": 2 * 54 * 64}
    assert 0 < measured(part, torch.device("cpu"), repeats=1) < 60


def test_one_step_of_the_small_system_takes_a_fraction_of_the_operations():
    flops = {
        system: sum(counted(part)["flops"] * part.nfe for part in SYSTEMS[system].values())
        for system in ("SD 2.1 base", "SDXS-512")
    }
    assert flops["SD 2.1 base"] / flops["SDXS-512"] == pytest.approx(54, abs=6)


# --- the command, on systems of one convolution each


def layer(width, nfe):
    return Part(
        lambda: nn.Conv2d(4, width, 3, padding=1, bias=False),
        lambda device, dtype: ((torch.zeros(1, 4, 8, 8, device=device, dtype=dtype),), {}),
        nfe,
    )


@pytest.fixture
def small(monkeypatch):
    systems = {
        name: {kind: layer(8 if name.startswith("SDXS") else 16, parts[kind].nfe) for kind in MODULES}
        for name, parts in SYSTEMS.items()
    }
    monkeypatch.setattr(true_scale, "SYSTEMS", systems)
    return systems


def test_rows_of_a_pair_hold_each_module_and_what_the_systems_differ_by(small):
    rows = measure(small, "SDXL", "SDXS-1024", 4, torch.device("cpu"), 1)
    assert {row["seed"] for row in rows} == {4}
    for kind in MODULES:
        weights = [select(rows, method=m, kind=kind, metric="params")[0]["value"] for m in ("SDXL", "SDXS-1024")]
        assert weights == [4 * 16 * 9, 4 * 8 * 9]
    (flops,) = select(rows, metric="sum_ratio_flops")
    assert flops["value"] == pytest.approx(2 * (2 + 32 + 1) / 3)  # twice the channels, evaluations of the paper
    seconds = {m: select(rows, method=m, metric="sum")[0]["value"] for m in ("SDXL", "SDXS-1024")}
    assert select(rows, metric="sum_ratio")[0]["value"] == pytest.approx(seconds["SDXL"] / seconds["SDXS-1024"])


def test_a_module_is_freed_before_the_next_is_built(small, monkeypatch):
    built = []

    def build(part):
        assert not any(item() for item in built)
        module = part.build()
        built.append(weakref.ref(module))
        return module

    systems = {
        name: {kind: Part(lambda part=part: build(part), part.given, part.nfe) for kind, part in parts.items()}
        for name, parts in small.items()
    }
    measure(systems, "SD 2.1 base", "SDXS-512", 0, torch.device("cpu"), 1)
    assert len(built) == 2 * 2 * 3  # counted and measured, two systems, three modules


def test_the_command_writes_both_tables_once_for_each_seed_and_beside_the_paper(small, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("DISTILL_FIGURES", str(tmp_path))
    main(["--seeds", "3", "--repeats", "1"])
    printed = capsys.readouterr().out
    for artefact, (_, before, after) in TABLES.items():
        record = json.loads((tmp_path / "laptop" / f"{artefact}.json").read_text())
        assert {row["seed"] for row in record["rows"]} == {0, 1, 2}
        assert {row["method"] for row in record["rows"]} == {before, after}
        table = (tmp_path / "laptop" / f"{artefact}.md").read_text()
        assert f"| {before} | sum |" in table and table in printed
        assert table.splitlines()[-1].startswith("| sum | ")
    for wrong in (["--seeds", "0"], ["--repeats", "-1"]):
        with pytest.raises(ValueError, match="should be 1 or more"):
            main(wrong)


@pytest.mark.parametrize("artefact", TABLES)
def test_the_paper_has_a_number_for_every_module(artefact):
    item, before, after = TABLES[artefact]
    result = reported(item)
    assert set(result) == {(system, kind) for system in (before, after) for kind in MODULES}
    for (system, kind), single in result.items():
        assert single["nfe"] == SYSTEMS[system][kind].nfe

"""Sentences of notebooks against closed forms, and the stored outputs of cells that follow from committed rows."""

import ast
import json
import math
import re

import nbformat
import pytest

from distill_lib.measure.metrics import interval
from distill_lib.paths import COMMITTED, ROOT
from distill_lib.report.sentences import banner, caption, sentence, verdicts
from distill_lib.report.style import BETTER
from distill_lib.run import notebooks
from distill_lib.run.renewing import committed_table, renew, standalone_outputs

METRIC = re.compile(r"lab\.say\(\s*\"[\w-]+\",\s*\"(\w+)\"")


def row(method, seed, value, **columns):
    return {"method": method, "metric": "fid", "seed": seed, "value": value, "w": 1.0} | columns


ROWS = [row("ours-D", seed, 2.0 * 2**seed) for seed in range(3)] + [row("ddim", seed, 8.0) for seed in range(3)]


def test_a_sentence_has_both_means_and_the_ratio_paired_by_seed():
    low, high = (math.exp(x) for x in interval([math.log(2.0 * 2**seed / 8) for seed in range(3)]))
    text = sentence(ROWS, "fid", ("ours-D", "ddim"), {"w": 1})
    assert text.startswith("**FID** at w = 1: 4.67 ± 7.6 for distilled student (D) and 8 ± 0 for")
    assert f"ratio 0.5 [{low:.3g}, {high:.3g}], not distinguishable (3 seeds)." in text


def test_a_ratio_that_excludes_one_is_not_called_indistinguishable():
    apart = [row("ours-D", seed, 1 + seed / 100) for seed in range(3)] + ROWS[3:]
    assert "not distinguishable" not in sentence(apart, "fid", ("ours-D", "ddim"), {"w": 1})


def test_values_that_are_not_positive_are_compared_by_their_difference():
    rows = [row("ours-D", 0, -1.0), row("ddim", 0, 2.0)]
    assert "difference -3 (1 seed)." in sentence(rows, "fid", ("ours-D", "ddim"), {})


def test_a_sentence_ends_with_the_direction_of_its_metric():
    def at_the_end(metric):
        rows = [row("ddim", 0, 2.0) | {"metric": metric, "world": "plain"}]
        return sentence(rows, metric, ("ddim",), {"world": "plain"})

    assert at_the_end("accuracy").endswith(" in the world plain: 2 for guided pair, DDIM (1 seed; more is better).\n\n")
    assert at_the_end("fid_teacher").endswith("(1 seed; less is better).\n\n")
    assert at_the_end("common").endswith("(1 seed).\n\n")  # which is a share, neither good nor bad


@pytest.mark.parametrize("name", notebooks.names())
def test_each_sentence_says_the_direction_unless_its_metric_has_none(name):
    metrics = [metric for cell in notebooks.code_cells(notebooks.read(name)) for metric in METRIC.findall(cell.source)]
    assert sorted(set(metrics) - set(BETTER) - {"crossing_share", "direction_share", "margin"}) == []


def test_one_side_alone_is_stated_and_a_side_without_rows_is_named():
    assert sentence(ROWS, "fid", ("ddim",), {}) == "**FID**: 8 ± 0 for guided pair, DDIM (3 seeds).\n\n"
    assert "no rows at this profile" in sentence(ROWS, "fid", ("ours-D", "ddim"), {"w": 2})


def test_sides_with_more_than_one_value_a_seed_are_refused():
    rows = [row("ours-D", 0, 1.0, steps=1), row("ours-D", 0, 2.0, steps=2)]
    with pytest.raises(ValueError, match=r"2 rows for 1 seeds: name \['steps'\] too"):
        sentence(rows, "fid", ("ours-D",), {})
    assert "1 step and 2 for" in sentence(
        rows, "fid", tuple({"method": "ours-D", "steps": steps} for steps in (1, 2)), {}
    )
    with pytest.raises(ValueError, match="one side or two"):
        sentence(rows, "fid", (), {})


def test_the_last_cell_names_each_claim_once_with_its_verdict(tmp_path):
    entry = {"id": "g-A1", "notebook_cell": "03_step_halving#x", "verdict": "contradicted", "sentence": "S.",
             "effect": 2.0, "low": 1.5, "high": 2.5, "direction": "at_most", "margin": 1.0, "cells_passed": 1,
             "cells": [{"cell": "fid of ours-D, steps 4, w 0.3 beside teacher, steps most", "effect": 2.0},
                       {"cell": "fid of ours-D, steps 8, w 0.0", "effect": 1.0}],
             "cause": {"kind": "world", "reason": "why"}, "premises": []}  # fmt: skip
    (tmp_path / "claims.json").write_text(json.dumps([entry]))
    assert (
        "- **g-A1, contradicted.** S. Decides: FID of distilled student (D), 4 steps, w = 0.3, beside teacher, many "
        "steps: 2 [1.5, 2.5], limit: at most 1; 1 of 2 cells pass. *World: why.*"
        in (verdicts("03_step_halving", tmp_path))
    )
    assert verdicts("00_start_here", tmp_path).startswith("No claim")


def test_of_the_first_edition_the_cell_is_the_first_one_that_the_note_names(tmp_path):
    first = {"effect": 8.3, "low": None, "high": None, "direction": "at_most", "margin": 1.0}
    entry = {"id": "g-S1", "notebook_cell": "02_x#y", "verdict": None, "verdict_v1": "inconclusive", "sentence": "S.",
             "cells": [], "cause": None, "premises": [],
             "v1": first | {"note": "fails at sharpness of vit, steps 1, kind colour: 8.34; and 3 more"}}  # fmt: skip
    (tmp_path / "claims.json").write_text(json.dumps([entry]))
    words = "Decides: sharpness (Laplacian variance) of vit, 1 step, edits of colour: 8.3, limit: at most 1."
    assert words in verdicts("02_x", tmp_path)


def test_a_banner_says_where_nothing_is_committed(tmp_path):
    assert "**Committed figures:** none yet" in banner("03_step_halving", "quick", 5, tmp_path)


def test_the_banner_names_the_run_and_all_committed_seeds(tmp_path):
    made = {"0": {"commit": "abc", "seconds": 61.0}, "3": {"commit": "def", "seconds": 5.0}}
    (tmp_path / "g-tab1.json").write_text(json.dumps({"made": made}))
    text = banner("03_step_halving", "quick", 5, tmp_path)
    assert "profile `quick`, seed 5" in text
    assert "seeds 0 and 3, drawn by `abc`, `def`" in text
    assert "2 min at `laptop`" in text


@pytest.mark.parametrize(
    "artefact, start",
    [
        ("g-fig6-steps", "**Meng et al., Fig. 6.** FID and"),
        ("g-v1-fig4", "**Meng et al., first version, Fig. 4.** "),
        ("s-tab1", "**SDXS, Table 1.** "),
        ("g-hardness", "How far DDIM"),
        ("g-none", ""),
    ],
)
def test_a_caption_names_the_figure_of_the_paper_or_only_says_what_is_shown(artefact, start):
    assert caption(artefact).startswith(start)
    assert bool(caption(artefact)) == bool(start)


@pytest.mark.parametrize("name", notebooks.names())
def test_stored_text_is_what_the_library_and_the_committed_rows_say_today(name):
    """After a change of rows, claims or docstrings: `make publish PROFILE=laptop`."""
    stored = {cell.id: cell.outputs for cell in notebooks.code_cells(notebooks.read(name))}
    for cell, outputs in standalone_outputs(name, COMMITTED).items():
        (new,) = outputs
        assert stored[cell], f"{cell} has no output"
        (old,) = stored[cell]
        assert old.data.keys() == new.data.keys(), cell
        assert old.data.get("text/markdown") == new.data.get("text/markdown"), cell


def test_only_cells_that_cost_nothing_are_made_anew():
    code = {cell.id: cell for cell in notebooks.code_cells(notebooks.read("03_step_halving"))}
    made = standalone_outputs("03_step_halving", COMMITTED)
    assert "03-two" in made
    assert not {id for id, cell in code.items() if "lab.figure" in cell.source} & made.keys()


def test_a_cell_that_ends_in_a_table_shows_the_committed_one():
    def table(text):
        return committed_table(ast.parse(text).body)

    path = ROOT / "figures" / COMMITTED / "g-tab2.md"
    assert table('rows = 1\nlab.table("g-tab2", markdown_table(header, lines))') == path.read_text(encoding="utf-8")
    assert table('lab.table("g-none", text)') == table("x = 1") == ""
    assert table('print(1)\nlab.table("g-tab2", text)') == table('print(lab.table("g-tab2", text))') == ""


def test_other_cells_keep_their_outputs():
    name = "02_guidance_distillation"
    before = notebooks.read(name)
    after = renew(nbformat.from_dict(before), name, COMMITTED)
    for old, new in zip(notebooks.code_cells(before), notebooks.code_cells(after), strict=True):
        if "lab." in old.source and not {"lab.say", "lab.table"} & set(re.findall(r"lab\.\w+", old.source)):
            assert old.outputs == new.outputs

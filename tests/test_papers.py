"""The manifests have no gap, verdicts follow from rows alone, and pages say what they say."""

import importlib
import json
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from distill_lib.papers.cells import Place, counted
from distill_lib.papers.claims import judge_first, judged_there, write_claims
from distill_lib.papers.editions import First, Part, first_edition, rules, second_edition
from distill_lib.papers.manifest import PAPERS, Item, Reported, load_paper
from distill_lib.paths import ROOT
from distill_lib.report.pages.claims import claims_table
from distill_lib.report.pages.limits import limits_table
from distill_lib.report.pages.results import real_table, reproduced_table, table_1_excerpt

ITEMS = {
    "guided": [
        *(f"fig-{i}" for i in range(1, 13)),
        "v1-fig-4",
        "tab-1",
        "tab-2",
        "tab-cifar-10",
        *(f"alg-{i}" for i in range(1, 4)),
    ],
    "sdxs": [
        *(f"fig-{i}" for i in range(1, 10)),
        *(f"tab-{i}" for i in range(1, 4)),
        *(f"eq-{i}" for i in range(1, 13)),
        "alg-1",
    ],
}
CLAIMS = {
    "guided": [
        f"g-{name}"
        for name in (
            "A1 A2 A3 P1 P2 P3 S1 S2 S3 S4 S5 S6 S7 S8 S9 S9a S10 T1a T1b T1c T1d T1e T2 F2 F6a F6b F6c F10 F11 F12"
            " E1 E2"  # ours
        ).split()
    ],
    "sdxs": [
        *(f"s-X{i}" for i in range(1, 18)),
        *(f"s-{name}" for name in "F1 F4 F5 F6 F7 F8a F8b F9 T1 T2 T3a T3b T3c G2".split()),
    ],
}
RECALLED = {"g-S9a", "g-T1a", "g-T1d", "g-T1e", "g-T2", "g-F6c", "g-E1", "g-E2"}
JUDGED = {"g-A1", "g-P1", "g-P2", "g-P3", "g-S9a", "g-F12", *(f"g-S{i}" for i in range(1, 11))}
JUDGED |= {"g-A2", "g-A3", "g-T2", "g-F10", "g-F11", "g-E1", "g-E2"}
JUDGED |= {"g-T1a", "g-T1b", "g-T1c", "g-T1d", "g-T1e", "g-F2", "g-F6a", "g-F6b", "g-F6c"}
JUDGED |= {f"s-X{i}" for i in range(1, 18)}
JUDGED |= {f"s-{name}" for name in "F1 F4 F5 F6 F7 F8a F8b F9 T1 T2 T3a T3c G2".split()}
ANSWERED = [item for name in PAPERS for item in [*load_paper(name).items, *load_paper(name).ours] if item.artefacts]


CLAIM_OF = {claim.id: claim for paper in PAPERS for claim in first_edition(paper)}


def claim_of(name: str) -> First:
    return CLAIM_OF[name]


# --- the manifests


@pytest.mark.parametrize("paper", PAPERS)
def test_every_item_and_claim_of_the_paper_is_listed_once(paper: str) -> None:
    manifest = load_paper(paper)
    assert sorted(item.id for item in manifest.items) == sorted(ITEMS[paper])
    assert sorted(claim.id for claim in first_edition(paper)) == sorted(CLAIMS[paper])


@pytest.mark.parametrize("item", ANSWERED, ids=lambda item: item.id)
def test_functions_of_an_item_can_be_imported(item: Item) -> None:
    for function in item.functions:
        module, _, name = function.rpartition(".")
        assert callable(getattr(importlib.import_module(module), name))


@pytest.mark.parametrize("item", ANSWERED, ids=lambda item: item.id)
def test_notebook_of_an_item_exists_and_makes_its_artefacts(item: Item) -> None:
    notebook = json.loads((ROOT / "notebooks" / f"{item.notebook}.ipynb").read_text())
    code = "".join("".join(cell["source"]) for cell in notebook["cells"] if cell["cell_type"] == "code")
    for artefact in item.artefacts:
        assert f'"{artefact.removesuffix("-fashion-mnist")}"' in code


def test_unbuilt_items_name_a_notebook_of_the_plan() -> None:
    plan = """00_start_here 01_guided_teacher 02_guidance_distillation 03_step_halving 04_ablations 05_style_transfer
              06_latent_teacher 07_text_to_image_in_few_steps 08_editing 09_tiny_decoder 10_tiny_unet 11_one_step
              12_lora 13_controlnet 14_speed 15_claims""".split()
    reasons = [item.not_reproduced for paper in PAPERS for item in load_paper(paper).items if item.not_reproduced]
    reasons += [claim.not_judged for paper in PAPERS for claim in first_edition(paper) if claim.not_judged]
    for reason in reasons:
        if "not built yet" in reason:
            assert any(notebook in reason for notebook in plan), reason


def test_recalled_claims_are_hypotheses_and_these_are_judged() -> None:
    every = [claim for paper in PAPERS for claim in first_edition(paper)]
    assert {claim.id for claim in every if claim.hypothesis} == RECALLED
    assert {claim.id for claim in every if claim.not_judged is None} == JUDGED


def test_artefacts_of_claims_are_artefacts_of_items() -> None:
    known = {artefact for item in ANSWERED for artefact in item.artefacts}
    for name in JUDGED:
        assert set(claim_of(name).artefacts) <= known


@pytest.mark.parametrize("paper", PAPERS)
def test_reported_numbers_are_verified_and_belong_to_an_item(paper: str) -> None:
    for number in load_paper(paper).reported:
        assert number.confidence in ("V", "S") and number.source
        assert number.item in [*ITEMS[paper], "text"]
    # no cell of these two is verified
    assert paper != "guided" or not {"tab-1", "tab-2"} & {number.item for number in load_paper(paper).reported}


def test_a_recalled_number_and_an_unexplained_gap_are_refused() -> None:
    with pytest.raises(ValidationError):
        Reported(item="tab-1", row="ours", values={"fid": 1.0}, confidence="M", source="memory")
    with pytest.raises(ValidationError, match="only not_reproduced"):
        Item(id="fig-1", shows="x")
    with pytest.raises(ValidationError, match="only not_judged"):
        First(id="g-X", sentence="x", source="x", confidence="V")
    with pytest.raises(ValidationError, match="is a hypothesis"):
        First(id="g-X", sentence="x", source="x", confidence="M", not_judged="x")


def test_an_unknown_paper_is_named() -> None:
    with pytest.raises(ValueError, match="'turbo': choose one of guided, sdxs"):
        load_paper("turbo")


# --- verdicts of the first edition, from rows made up here

Row = dict[str, Any]
JITTER = {0: -0.01, 1: 0.0, 2: 0.01}


def tab1(seeds: list[int], ours: dict[str, float], slow: float = 1.0) -> list[Row]:
    """Rows of g-tab1 with a teacher of FID 10, IS 100 + 20 w, recall 0.6 - 0.1 w; `ours` moves the student's values."""
    table = []
    for seed in seeds:
        table.append({"method": "real", "metric": "floor_fid", "seed": seed, "n": 64, "value": 1.0})
        for w in (0, 0.3, 1, 2, 4):
            exact = {"fid": 10.0, "is": 100 + 20 * w, "recall": 0.6 - 0.1 * w, "accuracy": 0.9, "sharpness": 0.1}
            exact |= {"fid_teacher": 0.0}
            student = {k: v + ours.get(k, 0) * (1 + JITTER[seed]) for k, v in exact.items()}
            pair = 1 if w == 0 else 2
            for method, steps, nfe, values in [
                ("teacher", 64, 64 * pair, exact | {"seconds": 0.01 * 64 * pair}),
                ("ddim", 2, 2 * pair, exact | {"fid_teacher": 4.0}),
                ("ours-D", 4, 4, student | {"seconds": 0.01 * 4 * slow}),
            ]:
                columns = {"method": method, "steps": steps, "w": w, "nfe": nfe, "seed": seed, "n": 64}
                table += [columns | {"metric": metric, "value": value} for metric, value in values.items()]
    return table


def stage_one(seeds: list[int], error: float, worst: float) -> list[Row]:
    """Rows of g-stage-one: errors on a grid of t and w with one bad place, and a student exactly at half the floor."""
    table = [{"metric": "floor_fid", "method": "real", "value": 1.0, "n": 64}]
    for seed in seeds:
        table += [
            {
                "metric": "relative_error",
                "t": t,
                "w": w,
                "seed": seed,
                "value": (worst if (t, w) == (1024, 4) else error) * (1 + JITTER[seed]),
            }
            for t in (64, 512, 1024)
            for w in (1, 4)
        ]
        table += [
            {"metric": "fid_teacher", "method": "ours-D", "steps": 32, "w": w, "seed": seed, "value": 0.5}
            for w in (0, 0.3, 1, 2, 4)
        ]
    return table


def judged(folder: Path, name: str, artefact: str, table: list[Row], profile: str = "laptop") -> dict[str, Any]:
    (folder / profile).mkdir(exist_ok=True)
    (folder / profile / f"{artefact}.json").write_text(json.dumps({"rows": table}))
    return judge_first(claim_of(name), Place(profile, folder), rules().first_seed)


GOOD = {"fid": 0.4, "is": 1.0, "fid_teacher": 0.4}


@pytest.mark.parametrize(
    ("name", "effect"),
    [
        ("g-A1", 0.4),  # FID 4 % away of the 10 % allowed weighs more than IS 1 % away of the 5 % allowed
        ("g-S2", 0.2),  # 0.4 of 4.0, of the half allowed
        ("g-S4", 0.8),  # seconds an evaluation equal to the teacher's, 1.25 times as many allowed
        ("g-S7", 0.4),  # recall falls by 0.4, IS rises by 0.8 of itself
    ],
)
def test_a_good_student_supports_a_claim(tmp_path: Path, name: str, effect: float) -> None:
    entry = judged(tmp_path, name, "g-tab1", tab1([0, 1, 2], GOOD))
    assert entry["effect"] == pytest.approx(effect, rel=0.02)
    assert entry["verdict"] == "supported" and entry["seeds"] == [0, 1, 2]
    assert entry["low"] <= entry["effect"] <= entry["high"]


@pytest.mark.parametrize(
    ("name", "bad"),
    [
        ("g-A1", {"fid": 2.0}),
        ("g-A1", {"fid": -2.0}),
        ("g-A1", {"is": -15.0}),
        ("g-S2", {"fid_teacher": 3.0}),
        ("g-S2", {"accuracy": -0.1}),
        ("g-S2", {"sharpness": -0.02}),
        ("g-S4", {"fid": 2.0}),
    ],
)
def test_a_bad_student_contradicts_a_claim(tmp_path: Path, name: str, bad: dict[str, float]) -> None:
    assert judged(tmp_path, name, "g-tab1", tab1([0, 1, 2], GOOD | bad))["verdict"] == "contradicted"


def test_a_slow_student_contradicts_the_speed_up_and_the_note_tells_both_ratios(tmp_path: Path) -> None:
    entry = judged(tmp_path, "g-S4", "g-tab1", tab1([0, 1, 2], GOOD, slow=2.0))
    assert entry["verdict"] == "contradicted"
    assert entry["effect"] == pytest.approx(2 / 1.25)
    assert "evaluations saved, times 32" in entry["note"] and "seconds saved, times 16" in entry["note"]


def test_an_effect_in_the_wrong_direction_contradicts(tmp_path: Path) -> None:
    table = tab1([0, 1, 2], GOOD)
    for row in table:
        if row["metric"] == "is" and row["w"] == 4:
            row["value"] = 50.0
    entry = judged(tmp_path, "g-S7", "g-tab1", table)
    assert entry["verdict"] == "contradicted" and entry["effect"] < 0


def test_an_interval_across_the_margin_is_inconclusive(tmp_path: Path) -> None:
    table = tab1([0, 1, 2], GOOD)
    for row in table:
        if row["method"] == "ours-D" and row["metric"] == "fid":
            row["value"] = 10 + (0.4, 0.9, 1.4)[row["seed"]]
    entry = judged(tmp_path, "g-A1", "g-tab1", table)
    assert entry["effect"] == pytest.approx(0.9)
    assert entry["verdict"] == "inconclusive" and "holds the margin" in entry["note"]


def test_a_note_names_where_a_claim_fails_the_worst_first_and_no_other_place(tmp_path: Path) -> None:
    table = tab1([0, 1, 2], GOOD)
    for row in table:
        if row["method"] == "ours-D" and row["metric"] == "fid" and row["w"] in (0.3, 1):
            row["value"] = {0.3: 12.0, 1: 13.0}[row["w"]]
    entry = judged(tmp_path, "g-A1", "g-tab1", table)
    assert entry["note"] == "fails at fid of ours-D, steps 4, w 1: 3; fid of ours-D, steps 4, w 0.3: 2"
    entry = judged(tmp_path, "g-S1", "g-stage-one", stage_one([0, 1, 2], 0.1, 0.1))
    assert entry["note"].endswith("fails at median relative_error: 2")
    assert "fails" not in judged(tmp_path, "g-A1", "g-tab1", tab1([0, 1, 2], GOOD))["note"]


@pytest.mark.parametrize("seeds", [[0], [0, 1]])
def test_fewer_than_three_seeds_are_inconclusive(tmp_path: Path, seeds: list[int]) -> None:
    entry = judged(tmp_path, "g-S2", "g-tab1", tab1(seeds, GOOD))
    assert entry["verdict"] == "inconclusive" and f"{len(seeds)} of the 3 seeds" in entry["note"]
    assert (entry["low"] is None) == (len(seeds) == 1)


def test_smoke_never_gives_a_verdict(tmp_path: Path) -> None:
    entry = judged(tmp_path, "g-S2", "g-tab1", tab1([0, 1, 2], GOOD), profile="smoke")
    assert entry["verdict"] == "inconclusive" and "plumbing only" in entry["note"]


@pytest.mark.parametrize(("error", "worst"), [(0.02, 0.1), (0.06, 0.1), (0.02, 0.2)])
def test_stage_one_is_measured_by_median_and_worst_and_one_training_decides_nothing(
    tmp_path: Path, error: float, worst: float
) -> None:
    entry = judged(tmp_path, "g-S1", "g-stage-one", stage_one([0, 1, 2], error, worst))
    assert entry["verdict"] == "inconclusive" and entry["note"].startswith("one training")
    assert entry["effect"] == pytest.approx(max(error / 0.05, worst / 0.15, 0.5), rel=0.02)


def test_the_teacher_at_its_most_steps_is_the_reference(tmp_path: Path) -> None:
    table = tab1([0, 1, 2], GOOD)
    fewer = [row | {"steps": 8, "nfe": row["nfe"] // 8, "value": 99.0} for row in table if row["method"] == "teacher"]
    assert judged(tmp_path, "g-A1", "g-tab1", fewer + table)["effect"] == pytest.approx(0.4)


def test_no_rows_mean_no_verdict(tmp_path: Path) -> None:
    entry = judge_first(claim_of("g-S1"), Place("laptop", tmp_path), rules().first_seed)
    assert entry["verdict"] is None and "g-stage-one" in entry["note"]


def test_a_missing_w_leaves_the_seed_out_and_says_so(tmp_path: Path) -> None:
    table = [row for row in tab1([0, 1, 2], GOOD) if not (row["seed"] == 2 and row.get("w") == 0.3)]
    entry = judged(tmp_path, "g-A1", "g-tab1", table)
    assert entry["seeds"] == [0, 1] and "seed 2 left out" in entry["note"]
    only = judged(tmp_path, "g-A1", "g-tab1", [row for row in table if row["seed"] == 2])
    assert only["verdict"] is None and "not each w" in only["note"]


def at_equal_evaluations(seed: int, worse: float) -> list[Row]:
    """Students of 2 to 16 evaluations at distance 1; DDIM at 4, but `worse` with 8 evaluations at w = 2."""
    table = []
    for w in (0, 0.3, 1, 2, 4):
        columns = {"w": w, "seed": seed, "metric": "fid_teacher"}
        pair = 1 if w == 0 else 2
        table += [columns | {"method": "ours-D", "steps": n, "nfe": n, "value": 1.0} for n in (1, 2, 4, 8, 16)]
        ddim = {n * pair: 4.0 for n in (1, 2, 4, 8, 16)} | ({8: worse} if w == 2 else {})
        table += [columns | {"method": "ddim", "steps": n // pair, "nfe": n, "value": ddim[n]} for n in ddim]
    return table


def test_methods_are_compared_at_equal_evaluations_and_the_worst_of_all_steps_and_w_decides(tmp_path: Path) -> None:
    table = [row for seed in range(3) for row in at_equal_evaluations(seed, worse=1.0)]
    assert judged(tmp_path, "g-T1b", "g-tab1", table)["effect"] == pytest.approx(2)  # 1 / 1.0, of the half allowed
    table = [row for seed in range(3) for row in at_equal_evaluations(seed, worse=4.0)]
    assert judged(tmp_path, "g-T1b", "g-tab1", table)["effect"] == pytest.approx(0.5)
    table = [row for row in table if (row["method"], row["steps"], row["w"]) != ("ours-D", 16, 0.3)]
    assert "not each steps and w" in judged(tmp_path, "g-T1b", "g-tab1", table)["note"]


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_number_that_is_none_is_not_judged(tmp_path: Path, value: float) -> None:
    table = [row | ({"value": value} if row["metric"] == "relative_error" else {}) for row in stage_one([0], 0.1, 0.1)]
    entry = judged(tmp_path, "g-S1", "g-stage-one", table)
    assert entry["verdict"] is None and "not finite" in entry["note"]


def test_two_rows_for_one_question_and_a_broken_file_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="several rows"):
        judged(tmp_path, "g-S2", "g-tab1", tab1([0], GOOD) * 2)
    (tmp_path / "laptop" / "g-tab1.json").write_text('{"rows": [')
    with pytest.raises(ValueError, match="no readable rows"):
        Place("laptop", tmp_path).rows("g-tab1")


def test_a_misspelt_comparison_or_half_a_part_is_refused() -> None:
    value = {"metric": "fid"}
    for wrong in ({"compare": "quotient", "reference": value}, {"reference": value}, {"reduce": "max"}, {"metrics": 1}):
        with pytest.raises(ValidationError):
            Part.model_validate({"artefact": "g-tab1", "value": value} | wrong)


def test_claims_file_has_every_claim_in_the_form_of_the_contract(tmp_path: Path) -> None:
    judged(tmp_path, "g-S2", "g-tab1", tab1([0, 1, 2], GOOD))
    # strict JSON: no NaN
    entries = json.loads(write_claims("laptop", tmp_path).read_text(), parse_constant=pytest.fail)
    assert [entry["id"] for entry in entries] == [c.id for name in PAPERS for c in second_edition(name).claims]
    contract = {
        "id",
        "paper",
        "sentence",
        "source",
        "confidence",
        "verdict",
        "effect",
        "low",
        "high",
        "margin",
        "seeds",
        "profile",
        "artefacts",
        "note",
        "verdict_v1",
        "cells",
        "cells_passed",
        "cause",
        "detectable",
        "notebook_cell",
    }
    for entry in entries:
        assert contract <= set(entry)
        assert entry["verdict"] in ("supported", "contradicted", "inconclusive") or entry["not_judged"]
    (entry,) = (entry for entry in entries if entry["id"] == "g-S2")
    assert (entry["verdict"], entry["verdict_v1"]) == (None, "supported")
    assert entry["not_judged"] == "not judged yet: no rows of seeds from 3 on"


def test_real_data_is_judged_apart_by_the_same_margins(tmp_path: Path) -> None:
    judged(tmp_path, "g-S2", "g-tab1", tab1([0, 1, 2], GOOD))
    far = GOOD | {"fid_teacher": 3.0}  # of 4.0, beyond the half allowed
    judged(tmp_path, "g-S2", "g-tab1-fashion-mnist", tab1([0], far))
    write_claims("laptop", tmp_path)
    plain, real = (
        {claim["id"]: claim for claim in json.loads((tmp_path / "laptop" / f"{name}.json").read_text())}
        for name in ("claims", "claims-fashion-mnist")
    )
    assert (plain["g-S2"]["v1"]["effect"], real["g-S2"]["v1"]["effect"]) == pytest.approx((0.2, 1.5), abs=0.02)
    assert real["g-S2"]["artefacts"] == ["g-tab1-fashion-mnist"] and plain["g-S2"]["artefacts"] == ["g-tab1"]
    assert "g-S6" in plain and "g-S6" not in real  # not asked of real data
    text = real_table(tmp_path)
    assert "| g-S2 | ≤ 1 | 0.2 | 1.48 | **otherwise**: holds here, fails there |" in text
    assert "| g-S7 | ≥ 0.02 | 0.4 | 0.4 | as here |" in text
    assert text.startswith("**fashion-mnist**: 1 of ")


@pytest.mark.skipif(not (ROOT / "figures/laptop/claims.json").exists(), reason="nothing is judged at laptop yet")
@pytest.mark.parametrize("path", sorted((ROOT / "figures/laptop").glob("claims*.json")), ids=lambda path: path.stem)
def test_committed_verdicts_are_what_the_committed_rows_give(path: Path) -> None:
    written = json.loads(path.read_text())
    suffix = path.stem.removeprefix("claims")
    computed = judged_there(Place("laptop", ROOT / "figures", suffix))
    for key in ("id", "sentence", "verdict", "verdict_v1", "margin", "seeds", "cells_passed", "from_dirty_tree"):
        assert [entry[key] for entry in written] == [entry[key] for entry in computed]
    # a t quantile may differ in its last digits between builds of scipy
    numbers = ("effect", "low", "high")
    for old, new in zip(written, computed, strict=True):
        assert [old[k] for k in numbers] == pytest.approx([new[k] for k in numbers])
        assert [old["v1"][k] for k in numbers] == pytest.approx([new["v1"][k] for k in numbers])


# --- pages


def test_pages_say_what_is_not_measured(tmp_path: Path) -> None:
    assert claims_table(tmp_path) == limits_table(tmp_path) == "The claims are not measured yet."
    assert table_1_excerpt(tmp_path) == "Table 1 is not measured yet."
    assert real_table(tmp_path) == "Real data is not measured yet."
    assert "| not measured yet" in reproduced_table(tmp_path) and "| drawn" not in reproduced_table(tmp_path)


def test_seeds_that_count_stand_alone_once_there_are_enough() -> None:
    rule = rules()
    rows = [{"seed": seed} for seed in (0, 1, rule.first_seed, rule.first_seed + 1)] + [{"metric": "floor"}]
    assert counted(rows, rule) == rows  # two of them are too few
    late = [{"seed": rule.first_seed + i} for i in range(rule.seeds)]
    assert counted([{"seed": 0}, *late, {"metric": "floor"}], rule) == [*late, {"metric": "floor"}]


def test_pages_show_measured_numbers_and_verdicts(tmp_path: Path) -> None:
    table = tab1([0, 1, 2], GOOD)
    ddim = {"method": "ddim", "steps": 4, "w": 0, "nfe": 4, "seed": 0, "n": 64}
    table.append(ddim | {"metric": "fid_teacher", "value": 7.0})
    judged(tmp_path, "g-S2", "g-tab1", table)
    write_claims("laptop", tmp_path)
    (tmp_path / "laptop" / "g-tab1.md").touch()
    assert "[g-tab1](figures/laptop/g-tab1.md)" in reproduced_table(tmp_path)
    # equal evaluations: at w = 0 DDIM makes 4 steps, at w = 1 two steps of the pair
    assert "| 4 | **0.4 ± 0.0099** / 7 | **0.4 ± 0.0099** / 4 ± 0 |" in table_1_excerpt(tmp_path)
    text = claims_table(tmp_path)
    assert '| <a id="g-s2"></a>g-S2 | Samples of 4 steps look like those of the many-step teacher. | ' in text
    assert "| the source article (S) | **supported** 0.2 [0.195, 0.205] ≤ 1 | not judged yet |" in text


def test_a_claim_that_fails_stands_among_the_limits_under_its_cause_and_no_other_does(tmp_path: Path) -> None:
    judged(tmp_path, "g-S2", "g-tab1", tab1([0, 1, 2], GOOD))
    write_claims("laptop", tmp_path)
    path = tmp_path / "laptop" / "claims.json"
    entries = json.loads(path.read_text())
    assert "[g-S2]" not in limits_table(tmp_path)
    for entry in entries:
        if entry["id"] == "g-S2":
            entry["v1"]["verdict"] = "contradicted"
            entry["cause"] = {"kind": "scale", "reason": "too short"}
    path.write_text(json.dumps(entries))
    scale = next(part for part in limits_table(tmp_path).split("### ") if part.startswith("Scale"))
    assert "| [g-S2](CLAIMS.md#g-s2) | Samples of 4 steps look like" in scale
    assert "| contradicted, as first set: 0.2 [0.195, 0.205] ≤ 1 | too short |" in scale

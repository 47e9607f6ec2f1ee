"""The first edition of the claims is frozen; the second cites what it tests and counts no row that was in view."""

import hashlib
import json

import pytest
from made_claims import FAR, NEAR, PART, a_claim, verdict, write
from pydantic import ValidationError

from distill_lib.papers.cells import Place
from distill_lib.papers.claims import judge, judge_second
from distill_lib.papers.editions import Part, Second, first_edition, rules, second_edition
from distill_lib.papers.evidence import dirty_share, notebook_cell
from distill_lib.papers.manifest import PAPERS, load_paper
from distill_lib.papers.verdicts import Cell, detectable, holds, second_verdict
from distill_lib.paths import ROOT
from distill_lib.report.claims import verdict_of

FROZEN = {
    "guided": "de3b8ed5c790d6d3910ef7568148d04dfde71d7995dfea4652ae4059e7ec4c93",
    "sdxs": "533d142a606a35411efe3495c49b5430e89945a9e608b6da15afe68d758e9213",
}
FIRST = {claim.id: claim for paper in PAPERS for claim in first_edition(paper)}
SECOND = {claim.id: claim for paper in PAPERS for claim in second_edition(paper).claims}
GATES = {gate.id: gate for paper in PAPERS for gate in second_edition(paper).gates}
RULE = rules()
UNMOVED = ("g-S2", "g-F2", "s-X10", "s-X11", "s-F8b", "s-F6")
"""Limits that neither the papers' numbers nor an oracle show to be wrong."""


# --- the definitions


@pytest.mark.parametrize("paper", PAPERS)
def test_the_first_edition_is_frozen(paper):
    text = (ROOT / "distill_lib" / "papers" / "v1" / f"{paper}.yaml").read_bytes()
    assert hashlib.sha256(text).hexdigest() == FROZEN[paper]


def test_every_claim_of_the_first_edition_is_replaced_and_what_said_two_things_is_split():
    replaced = [claim.replaces for claim in SECOND.values()]
    assert set(replaced) == set(FIRST)
    assert {name for name in FIRST if replaced.count(name) > 1} == {"s-X7", "s-X10", "s-X12", "g-P1"}


@pytest.mark.parametrize("claim", SECOND.values(), ids=lambda claim: claim.id)
def test_a_claim_says_what_it_tests_and_is_as_sure_as_the_papers_allow(claim):
    assert claim.tests and claim.source
    assert (claim.confidence == "M") == FIRST[claim.replaces].hypothesis
    assert claim.confidence != "M" or "remember" in claim.source or claim.source == "ours"


@pytest.mark.parametrize("name", UNMOVED)
def test_limits_that_nothing_shows_to_be_wrong_have_not_moved(name):
    first, second = FIRST[name], SECOND[name]
    assert (second.direction, second.margin, second.limits) == (first.direction, first.margin, "as first set")
    plain = [part.model_copy(update={"reduce": None}) for part in first.effect]
    assert [part.model_copy(update={"reduce": None}) for part in second.effect] == plain


def test_the_order_of_the_encoders_has_not_moved():
    first, second = FIRST["s-X8"].effect[-1], SECOND["s-X8"].effect[-1]
    assert (second.value, second.reference) == (first.value, first.reference)
    # the first edition has 1.05 / 0.9 as limit and 0.9 as margin
    assert second.limit * SECOND["s-X8"].margin == pytest.approx(first.limit * FIRST["s-X8"].margin, abs=1e-3)


def in_one_form(claim):
    """All that the parts of a claim ask for, one by one; "a lacks x of b" is "b - a = x", whichever is written first.

    Neither how points are reduced, which the second edition does not, nor how often a cost is measured.
    """
    forms = set()
    for part in claim.effect:
        form = part.model_dump(exclude={"reduce", "once"}) | {"direction": claim.direction, "margin": claim.margin}
        if part.compare in ("difference", "lack"):
            lists = part.value.lists() | part.reference.lists()
            sides = [x.model_dump(exclude={*lists}) for x in (part.value, part.reference)]
            high, low = sides if part.compare == "difference" else sides[::-1]
            form |= {"compare": "difference", "value": high, "reference": low, "lists": lists}
        forms.add(str(form))
    return forms


def test_a_claim_as_first_set_asks_for_nothing_else():
    for claim in SECOND.values():
        moved = in_one_form(claim) - in_one_form(FIRST[claim.replaces])
        assert not moved or claim.limits != "as first set", (claim.id, moved)


def test_parts_in_one_form_differ_in_each_of_their_fields():
    claim = SECOND["g-F2"]
    changed = [
        {"compare": "change"},
        {"each": ["w", "steps", "kind"]},
        {"limit": 0.03},
        {"value": claim.effect[0].value.model_copy(update={"metric": "margin"})},
        {"reference": claim.effect[0].reference.model_copy(update={"steps": 8})},
    ]
    for change in changed:
        other = claim.model_copy(update={"effect": [claim.effect[0].model_copy(update=change)]})
        assert not in_one_form(other) <= in_one_form(claim), change
    assert not in_one_form(claim.model_copy(update={"margin": 1.1})) & in_one_form(claim)


def test_premises_are_claims_or_gates_that_exist():
    for claim in SECOND.values():
        assert set(claim.premises) <= set(SECOND) | set(GATES)
        assert claim.id not in claim.premises


def test_artefacts_that_are_there_belong_to_items():
    known = {
        a for paper in PAPERS for item in [*load_paper(paper).items, *load_paper(paper).ours] for a in item.artefacts
    }
    for claim in [*SECOND.values(), *GATES.values()]:
        assert {part.artefact for part in claim.effect} <= known


def test_a_claim_without_an_oracle_or_a_reason_is_refused():
    columns = {"id": "g-X", "sentence": "x", "tests": "x", "source": "x", "confidence": "V"}
    part = {"artefact": "g-tab1", "value": {"metric": "fid"}}
    made = {"rows": "made", "made": {"ours-D": {"fid": 1}}}
    with pytest.raises(ValidationError, match="oracle and baseline"):
        Second.model_validate(columns | {"effect": [part]})
    with pytest.raises(ValidationError, match="no_oracle says why"):
        Second.model_validate(columns | {"effect": [part], "oracle": made, "baseline": made})
    with pytest.raises(ValidationError, match="made, or swaps rows"):
        Second.model_validate(columns | {"effect": [part], "oracle": {}, "baseline": made})


# --- the rule, on a claim made up here


def test_seeds_that_were_in_view_never_count(tmp_path):
    result = verdict(tmp_path, {0: FAR}, first=0)
    assert result["verdict"] is None and result["not_judged"] == "not judged yet: no rows of seeds from 3 on"
    result = verdict(tmp_path, {0: FAR + NEAR}, first=0)  # 0 to 2 fail, 3 to 5 pass
    assert (result["verdict"], result["seeds"]) == ("supported", [3, 4, 5])
    assert verdict(tmp_path, {0: FAR + NEAR[:2]}, first=0)["note"].startswith("2 of the 3 seeds")


def test_all_cells_have_to_pass_and_one_that_fails_contradicts(tmp_path):
    result = verdict(tmp_path, {0: NEAR, 4: NEAR})
    assert (result["verdict"], result["cells_passed"], len(result["cells"])) == ("supported", 2, 2)
    result = verdict(tmp_path, {0: NEAR, 4: FAR})
    assert (result["verdict"], result["cells_passed"]) == ("contradicted", 1)
    assert result["effect"] == pytest.approx(1.5) and result["note"] == "fails at fid of ours, w 4: 1.5"
    result = verdict(tmp_path, {0: NEAR, 4: (0.9, 1.0, 1.2)})
    assert result["verdict"] == "inconclusive"
    assert result["effect"] == pytest.approx(1.0333, abs=1e-3)  # the cell whose interval ends farthest beyond


def test_noise_of_many_cells_is_no_failure():
    """By the worst cell of each seed twenty cells of one mean fail; by cells, corrected for their number, none does."""
    noisy = [Cell(0, str(i), [0.9 + 0.2 * ((i + j) % 3 == 0) for j in range(3)]) for i in range(20)]
    assert second_verdict(a_claim(), noisy, RULE) == ("inconclusive", [])
    # beyond the margin at 95 %, and no longer when there are twenty such chances
    edge = Cell(0, "edge", [1.19, 1.2, 1.25])
    assert edge.fails(1, "at_most", 0.95) and not edge.fails(1, "at_most", 1 - 0.05 / 21)
    assert second_verdict(a_claim(), [*noisy, edge], RULE)[0] == "inconclusive"


def test_the_smallest_effect_falls_with_the_spread_and_with_more_seeds():
    few, many = (Cell(0, "x", [0.9, 1.0, 1.1] * n) for n in (1, 3))
    # half of the interval is 0.248 of three values so spread; power asks for 1.061 / 4.303 of it on top
    assert detectable(few, RULE) == pytest.approx(0.2484 * (1 + 1.0607 / 4.3027), rel=1e-3)
    assert detectable(many, RULE) < detectable(few, RULE) / 2
    assert detectable(Cell(0, "x", [1.0]), RULE) is None


def test_a_cost_needs_no_seeds_and_is_judged_by_its_number(tmp_path):
    once = [PART | {"once": True}]
    result = verdict(tmp_path, {0: (0.5,)}, first=0, effect=once)
    assert (result["verdict"], result["low"], result["seeds"]) == ("supported", 0.5, [0])
    assert "rows may be older" in result["note"]
    result = verdict(tmp_path, {0: (1.5,)}, first=0, effect=once)
    assert (result["verdict"], result["half_length"]) == ("contradicted", None)


@pytest.mark.parametrize(
    ("half", "word", "length"),
    [
        ((1.7,), "still learning", "moving"),
        ((1.55,), "contradicted", "steady"),
        ((1.3,), "contradicted", "steady"),  # half the length was better
        ((1.8, 1.45, 1.5), "contradicted", "steady"),  # one seed moves; all of them together do not
        ((), "contradicted", "not run"),
    ],
)
def test_an_effect_that_still_moves_towards_its_margin_is_no_failure(tmp_path, half, word, length):
    """1.5 is 0.5 from the margin: a quarter of that is 0.125."""
    if half:
        write(tmp_path, "g-x-half", {4: half})
    result = verdict(tmp_path, {0: NEAR, 4: (1.5, 1.5, 1.5)})
    assert (result["verdict"], result["half_length"]) == (word, length)
    assert ("half length not run" in verdict_of(result)) == (length == "not run")


def test_what_rests_on_no_training_is_contradicted_outright(tmp_path):
    write(tmp_path, "g-x-half", {4: (9.0,)})
    result = verdict(tmp_path, {4: FAR}, training=False)
    assert (result["verdict"], result["half_length"]) == ("contradicted", None)
    assert verdict(tmp_path, {4: NEAR})["verdict"] == "supported"  # half the length is asked about failures alone


def test_half_the_length_replaces_the_trained_method_and_no_other(tmp_path):
    """The reference is the teacher's, which was not trained for half as long."""
    reference = {"reference": {"method": "teacher", "metric": "fid"}, "compare": "ratio"}
    place = write(tmp_path, "g-x", {4: (3.0, 3.0, 3.0)})
    path = place.folder / "g-x.json"
    rows = json.loads(path.read_text())["rows"]
    path.write_text(json.dumps({"rows": rows + [row | {"method": "teacher", "value": 2.0} for row in rows]}))
    write(tmp_path, "g-x-half", {4: (4.0,)})
    result = judge_second(a_claim(effect=[PART | reference], expects={"w": [4]}), place, RULE)
    assert (result["effect"], result["half_length"]) == (pytest.approx(1.5), "moving")


def test_a_reference_may_stand_in_another_artefact_and_a_floor_below_it(tmp_path):
    write(tmp_path, "g-low", {0: (1.0, 1.0, 1.0)})
    write(tmp_path, "g-high", {0: (3.0, 3.0, 3.0)})
    part = PART | {
        "compare": "recovered",
        "floor": {"metric": "fid", "artefact": "g-low"},
        "reference": {"metric": "fid", "artefact": "g-high"},
    }
    result = verdict(tmp_path, {0: (2.5, 2.5, 2.5)}, effect=[part])
    assert result["effect"] == pytest.approx(0.75) and result["artefacts"] == ["g-x", "g-high", "g-low"]
    with pytest.raises(ValidationError, match="go together"):
        Part.model_validate(PART | {"compare": "recovered", "reference": {"metric": "fid"}})


def test_smoke_gives_no_verdict(tmp_path):
    write(tmp_path, "g-x", {0: FAR})
    (tmp_path / "laptop").rename(tmp_path / "smoke")
    result = judge_second(a_claim(), Place("smoke", tmp_path), RULE)
    assert (result["verdict"], result["note"].partition(";")[0]) == ("inconclusive", "smoke: plumbing only")


# --- premises and evidence


def weighting(folder, best):
    """g-abl-weighting, in which the best network has this FID and eps under truncated SNR no worse than the others."""
    part = SECOND["g-P1a"].effect[0]
    methods = [*part.value.method, "eps, truncated SNR"]
    rows = [
        {"method": method, "metric": "fid_inf", "seed": seed, "value": best * (1 + 0.01 * seed)}
        for method in methods
        for seed in (3, 4, 5)
    ]
    (folder / "laptop").mkdir(exist_ok=True)
    (folder / "laptop" / "g-abl-weighting.json").write_text(json.dumps({"rows": rows}))
    return Place("laptop", folder)


def test_a_claim_whose_premise_fails_names_it(tmp_path):
    gate = GATES["heads-have-learned"]
    assert holds(gate, Place("laptop", tmp_path), RULE) is None
    for best, word in ((30.0, "contradicted"), (200.0, "not assessable here")):
        place = weighting(tmp_path, best)
        result = {entry["id"]: entry for entry in judge(place)}["g-P1b"]
        assert result["verdict"] == word and holds(gate, place, RULE) == (best < 60)
        assert result["premises"] == [{"id": gate.id, "sentence": gate.sentence, "holds": best < 60}]
        assert result["cause"]["kind"] == "finding"
        assert (gate.sentence in result["note"]) == (best > 60)


def test_a_claim_may_be_the_premise_of_another(tmp_path):
    rows = {
        "s-abl-encoder": {"cnn": 0.9, "vit": 0.9, "unet": 0.9, "teacher, tiny decoder": 1.0},
        "s-abl-loss": {"square": 0.5, "matching": 0.9},
        "s-fig6": {"square": 0.95, "teacher, tiny decoder": 1.0},  # no blur
    }
    (tmp_path / "laptop").mkdir()
    for artefact, values in rows.items():
        table = [
            {"method": method, "metric": "sharpness", "seed": seed, "value": value}
            for method, value in values.items()
            for seed in (3, 4, 5)
        ]
        (tmp_path / "laptop" / f"{artefact}.json").write_text(json.dumps({"rows": table}))
    result = {entry["id"]: entry for entry in judge(Place("laptop", tmp_path))}
    assert (result["s-X7a"]["verdict"], result["s-X8"]["verdict"]) == ("contradicted", "not assessable here")


def test_the_cause_is_told_beside_what_is_not_supported_alone():
    entries = json.loads((ROOT / "figures" / "laptop" / "claims.json").read_text())
    for entry in entries:
        latest = entry["verdict"] or entry["verdict_v1"]
        assert entry["cause"] is None or latest not in (None, "supported")
    failing = [e["id"] for e in entries if (e["verdict"] or e["verdict_v1"]) == "contradicted" and not e["cause"]]
    # squares do blur: what the first edition contradicts is the half that is now s-X7b
    assert failing == ["s-X7a"]


def test_rows_of_a_dirty_tree_are_counted_by_artefact_and_seed(tmp_path):
    (tmp_path / "laptop").mkdir()
    rows = [{"seed": seed, "value": 1.0} for seed in (0, 1, 2)]
    made = {"0": {"commit": "abc+"}, "1": {"commit": "def"}, "2": {"commit": "abc+"}}
    for name, record in (("g-new", {"made": made}), ("g-old", {"commit": "123+"})):
        (tmp_path / "laptop" / f"{name}.json").write_text(json.dumps({"rows": rows} | record))
    place = Place("laptop", tmp_path)
    assert dirty_share(["g-new"], [0, 1, 2], place) == "2 of 3 seeds"
    assert dirty_share(["g-new", "g-old"], [0, 1], place) == "3 of 4 seeds"
    assert dirty_share(["g-new"], [1], place) is None


def test_the_cell_that_shows_a_claim_is_one_of_its_notebook():
    for claim in SECOND.values():
        for part in claim.effect:
            notebook, _, cell = (notebook_cell(part.artefact) or "").partition("#")
            cells = json.loads((ROOT / "notebooks" / f"{notebook}.ipynb").read_text())["cells"]
            (source,) = ("".join(c["source"]) for c in cells if c["id"] == cell)
            assert f'"{part.artefact}"' in source
    assert notebook_cell("g-nothing") is None

"""The cells of a claim: none is missing without a word, none is divided by noise, none counts one training twice."""

import random
from statistics import fmean

import pytest
from made_claims import FAR, NEAR, PART, a_claim, verdict, write, write_rows
from pydantic import ValidationError

from distill_lib.papers.claims import judge, judge_second
from distill_lib.papers.editions import UNBIASED, Gate, Part, rules, second_edition
from distill_lib.papers.manifest import PAPERS
from distill_lib.papers.measured import Cell, measured
from distill_lib.papers.verdicts import holds, second_verdict
from distill_lib.report.claims import compared

SECOND = {claim.id: claim for paper in PAPERS for claim in second_edition(paper).claims}
GATES = {gate.id: gate for paper in PAPERS for gate in second_edition(paper).gates}
RULE = rules()


# --- all cells, or no `supported`


def test_a_field_whose_values_nothing_states_is_refused():
    with pytest.raises(ValidationError, match="state in `expects` the values of w in g-x"):
        a_claim(expects={})
    with pytest.raises(ValidationError, match="the values of kind in g-x"):
        a_claim(effect=[PART | {"each": ["w", "kind"]}])
    with pytest.raises(ValidationError, match="the values of t in g-x"):
        Gate(id="x", sentence="x", effect=[Part.model_validate(PART | {"each": ["t"]})])
    steps = {"method": "ours", "metric": "fid", "steps": [2, 4]}
    assert a_claim(effect=[PART | {"value": steps, "each": ["nfe", "w"]}])  # evaluations follow from steps


def test_a_cell_that_no_seed_has_is_missing_all_the_same(tmp_path):
    result = verdict(tmp_path, {0: NEAR}, expects={"w": [0, 4]})
    assert result["verdict"] is None and "g-x: metric fid, method ours, seed 3 has no row" in result["not_judged"]


@pytest.mark.parametrize("expected", [[0], [0, 4]])
@pytest.mark.parametrize("lacks", [0, 2, 3])
def test_a_seed_that_lacks_a_cell_is_incomplete_whichever_it_is(tmp_path, lacks, expected):
    """w = 4 is named by the claim, or known from the other seeds alone."""
    rows = [
        {"method": "ours", "metric": "fid", "w": w, "seed": 3 + i, "value": 0.5 + 0.01 * i}
        for w in (0, 4)
        for i in range(4)
        if (w, i) != (4, lacks)
    ]
    result = judge_second(a_claim(expects={"w": expected}), write_rows(tmp_path, "g-x", rows), RULE)
    assert result["verdict"] == "inconclusive" and f"seed {3 + lacks} left out" in result["note"]
    assert len(result["seeds"]) == 3 and result["cells_passed"] == 2
    far = [row | {"value": row["value"] + 1 * (row["w"] == 4)} for row in rows]
    result = judge_second(a_claim(expects={"w": expected}), write_rows(tmp_path, "g-x", far), RULE)
    assert result["verdict"] == "contradicted"  # by the others


def test_a_seed_with_a_number_that_is_none_stands_in_the_way_too(tmp_path):
    result = verdict(tmp_path, {0: [*NEAR, float("nan")]})
    assert result["verdict"] == "inconclusive" and "seed 6 left out" in result["note"]


def edits(lacking):
    """Rows of g-fig8 and g-fig9: all edits succeed but those of shapes, which seed 3 lacks if `lacking`."""
    table = {}
    for artefact, steps in (("g-fig8", (3,)), ("g-fig9", (2, 4))):
        columns = [
            {"kind": kind, "seed": seed, "method": method, "steps": n, "nfe": n}
            for seed in (3, 4, 5)
            for kind in ("colour", "shape")
            for method, of_method in (("ours-D", steps), ("teacher", (64,)))
            for n in of_method
            if not (lacking and kind == "shape" and seed == 3)
        ]
        table[artefact] = [
            row | {"metric": metric, "value": 0.2 if (row["kind"], row["method"]) == bad else good}
            for row in columns
            for metric, good, bad in (("edit_success", 0.9, ("shape", "ours-D")), ("paired_target", 0.02, None))
        ]
    return table


@pytest.mark.parametrize("lacking", [False, True])
def test_edits_of_a_kind_that_one_seed_lacks_do_not_support_the_claim(tmp_path, lacking):
    for artefact, rows in edits(lacking).items():
        place = write_rows(tmp_path, artefact, rows)
    assert judge_second(SECOND["g-A3"], place, RULE)["verdict"] == ("inconclusive" if lacking else "contradicted")
    for artefact, rows in edits(lacking).items():
        write_rows(tmp_path, artefact, [row for row in rows if row["kind"] == "colour"])
    assert judge_second(SECOND["g-A3"], place, RULE)["verdict"] is None


def test_the_same_holds_of_costs(tmp_path):
    once = [PART | {"once": True}]
    rows = [{"method": "ours", "metric": "fid", "w": w, "seed": s, "value": 0.5} for w, s in ((0, 0), (0, 1), (4, 1))]
    result = judge_second(a_claim(effect=once), write_rows(tmp_path, "g-x", rows), RULE)
    assert result["verdict"] == "inconclusive" and "cost of seed 0 left out" in result["note"]


# --- references that may be 0 or less


def distances(folder, ours, reference, error=0.0):
    """g-x, in which the student and DDIM have these squared distances, by seed."""
    rows = [
        {"method": method, "metric": "mmd_teacher", "w": 0, "seed": 3 + i, "value": value, "error": error}
        for method, values in (("ours", ours), ("ddim", reference))
        for i, value in enumerate(values)
    ]
    return write_rows(folder, "g-x", rows)


def beside_ddim(compare="ratio", limit=0.5, **more):
    value = {"method": "ours", "metric": "mmd_teacher"}
    part = {"artefact": "g-x", "value": value, "reference": value | {"method": "ddim"}, "each": ["w"]}
    return a_claim(effect=[part | {"compare": compare, "limit": limit}], **more)


EXACT = [
    ("ratio", 0.5, "at_most", 1, 2, 4, 1.0),
    ("ratio", 1.5, "at_least", 1, 9, 4, 1.5),
    ("change", 0.25, "at_most", 1, 5, 4, 1.0),
    ("change", 1.0, "at_least", 0.02, 5, 4, 0.25),
    ("shortfall", 0.1, "at_least", 0, 3, 4, 2.5),
    ("departure", 0.25, "at_most", 1, 3, 4, 1.0),
    ("departure", 0.25, "at_most", 1, 6, 4, 2.0),
]


@pytest.mark.parametrize(("compare", "limit", "direction", "margin", "value", "reference", "effect"), EXACT)
def test_without_noise_a_difference_says_what_the_quotient_says(
    tmp_path, compare, limit, direction, margin, value, reference, effect
):
    claim = beside_ddim(compare, limit, direction=direction, margin=margin)
    result = judge_second(claim, distances(tmp_path, [value] * 3, [reference] * 3), RULE)
    assert result["effect"] == pytest.approx(effect)
    good = effect <= margin if direction == "at_most" else effect >= margin
    assert result["verdict"] == ("supported" if good else "contradicted")


def test_a_student_that_is_farther_than_a_reference_near_0_is_not_supported(tmp_path):
    """The quotient is -10, on the right side of any limit."""
    place = distances(tmp_path, [0.004, 0.0041, 0.0039], [-0.0004, -0.0003, -0.0005])
    result = judge_second(beside_ddim(), place, RULE)
    assert result["verdict"] == "inconclusive" and result["cells_passed"] == 0
    assert "the reference is not told from 0: mmd_teacher of ours, w 0 beside ddim" in result["note"]


def test_a_reference_is_told_from_0_by_the_errors_of_its_rows_or_the_spread_of_its_seeds(tmp_path):
    for reference, error, usable in [
        ([1.0, 1.1, 0.9], 0.1, True),
        ([1.0, 1.1, 0.9], 1.0, False),
        ([0.1, 1.9, 1.0], 0.0, False),
    ]:
        claim, place = beside_ddim(), distances(tmp_path, [0.0, 0.0, 0.0], reference, error)
        (cell,) = measured(claim, {"g-x": place.rows("g-x")}, RULE.first_seed).cells
        assert cell.usable == usable and judge_second(claim, place, RULE)["cells_passed"] == usable


def test_a_cell_that_is_not_usable_neither_passes_nor_fails():
    good, far = Cell(0, "good", list(NEAR)), Cell(0, "far", list(FAR), usable=False)
    assert second_verdict(a_claim(), [good, far], RULE) == ("inconclusive", [])
    assert second_verdict(a_claim(), [good, Cell(0, "near", list(NEAR), usable=False)], RULE)[0] == "inconclusive"


def test_the_scale_is_one_for_all_seeds_so_that_noise_below_makes_no_bias(tmp_path):
    """The mean of the quotients is 1.43 of the quotient of the means, 1: a student at its limit would be beyond it."""
    ours, reference = [1.0, 1.0, 1.0], [4.0, 1.0, 1.0]
    quotients = fmean(x / y / 0.5 for x, y in zip(ours, reference, strict=True))
    (cell,) = measured(beside_ddim(), {"g-x": distances(tmp_path, ours, reference).rows("g-x")}, RULE.first_seed).cells
    assert cell.mean == pytest.approx(1.0) and quotients == pytest.approx(1.5)


def test_a_perfect_student_with_noise_of_its_own_is_not_contradicted_by_a_departure(tmp_path):
    """|value - reference| of two equal students grows with their noise; two one-sided cells do not."""
    noise = random.Random(0)
    ours, teachers = ([10 + noise.gauss(0, 1.5) for _ in range(10)] for _ in range(2))
    absolute = fmean(abs(x - y) for x, y in zip(ours, teachers, strict=True))
    result = judge_second(beside_ddim("departure", 0.05), distances(tmp_path, ours, teachers), RULE)
    assert absolute > 2 * 0.05 * 10 and result["verdict"] == "inconclusive"
    assert [cell["cell"].split(", ")[-1] for cell in result["cells"]] == ["too high beside ddim", "too low beside ddim"]


def test_what_differences_cannot_judge_is_refused():
    part = {"artefact": "g-x", "value": {"metric": "fid_inf"}, "reference": {"metric": "fid_inf", "method": "a"}}
    for wrong in (
        {"compare": "distance"},
        {"compare": "ratio", "each": ["t"], "reduce": "max"},
        {"compare": "ratio", "limit": {"metric": "fid_inf"}},
    ):
        with pytest.raises(ValidationError, match="unbiased"):
            Part.model_validate(part | wrong)
    with pytest.raises(ValidationError, match="two sides"):
        a_claim(effect=[part | {"compare": "departure"}], direction="at_least")


def test_no_claim_divides_by_a_metric_without_bias():
    for claim in [*SECOND.values(), *GATES.values()]:
        for part in claim.effect:
            unbiased = part.reference and part.reference.metric in UNBIASED
            assert not unbiased or part.by_difference or part.compare in ("difference", "lack")


def test_a_teacher_below_0_leaves_the_gate_unknown(tmp_path):
    gate = GATES["few-steps-cost"]
    for teacher, known in ((-0.1, None), (1.0, True), (1.9, False)):
        rows = [
            {"method": method, "metric": "fid_inf", "w": 0, "steps": n, "seed": seed, "value": value + 0.01 * seed}
            for method, n, value in (("teacher", 64, teacher), ("ddim", 8, 2.0))
            for seed in (3, 4, 5)
        ]
        assert holds(gate, write_rows(tmp_path, "g-tab1", rows), RULE) is known


# --- shipped weights


def shipped(folder, of_training, artefact="g-x", numbered=True):
    """Rows of several trainings, each with seeds of its own: {training: values}."""
    flat = [(training, value) for training, values in of_training.items() for value in values]
    rows = [
        {"method": "ours", "metric": "fid", "w": 0, "seed": 3 + i, "value": value}
        | ({"training": training} if numbered else {})
        for i, (training, value) in enumerate(flat)
    ]
    return write_rows(folder, artefact, rows)


def test_shipped_weights_are_one_training_whatever_the_seed(tmp_path):
    claim = a_claim(one_training=["ours"])
    result = judge_second(claim, shipped(tmp_path, {0: NEAR * 4}, numbered=False), RULE)
    assert (result["verdict"], result["note"]) == ("inconclusive", "1 of the 3 trainings that a verdict needs")
    result = judge_second(claim, shipped(tmp_path, {0: NEAR, 1: NEAR}), RULE)
    assert result["note"] == "2 of the 3 trainings that a verdict needs"
    result = judge_second(claim, shipped(tmp_path, {training: [x] for training, x in enumerate(NEAR)}), RULE)
    assert result["verdict"] == "supported"


def test_many_seeds_of_few_trainings_are_no_more_than_the_trainings(tmp_path):
    """Trainings at 0.5, 1.1 and 0.8 are inconclusive; thirty seeds of noise in them would be [0.71, 0.89]."""
    place = shipped(tmp_path, {i: [x - 0.001, x, x + 0.001] * 10 for i, x in enumerate((0.5, 1.1, 0.8))})
    result = judge_second(a_claim(one_training=["ours"]), place, RULE)
    assert result["verdict"] == "inconclusive" and result["low"] == pytest.approx(0.055, abs=0.01)
    assert judge_second(a_claim(), place, RULE)["high"] < 0.95


def test_trainings_may_share_a_seed_of_noise(tmp_path):
    rows = [
        {"method": "ours", "metric": "fid", "w": 0, "seed": seed, "training": training, "value": value}
        for training, value in enumerate(NEAR)
        for seed in (3, 4)
    ]
    assert judge_second(a_claim(one_training=["ours"]), write_rows(tmp_path, "g-x", rows), RULE)["cells_passed"] == 1


def test_each_part_that_reads_shipped_weights_needs_its_trainings(tmp_path):
    parts = [PART, PART | {"artefact": "g-y"}]
    shipped(tmp_path, {training: [x] for training, x in enumerate(NEAR)})
    place = shipped(tmp_path, {0: NEAR}, artefact="g-y")
    result = judge_second(a_claim(effect=parts, one_training=["ours"]), place, RULE)
    assert (result["verdict"], result["note"]) == ("inconclusive", "1 of the 3 trainings that a verdict needs")


def test_a_part_of_the_teacher_alone_counts_seeds(tmp_path):
    parts = [PART, PART | {"artefact": "g-y", "value": {"method": "teacher", "metric": "fid"}}]
    place = shipped(tmp_path, {training: [x] for training, x in enumerate(NEAR)})
    write(tmp_path, "g-y", {0: NEAR}, method="teacher")
    assert judge_second(a_claim(effect=parts, one_training=["ours"]), place, RULE)["verdict"] == "supported"


SHIPPED = {
    "g-stage-one": {"ours-D"},
    "s-onestep": {"sdxs"},
    "s-fig1": {"sdxs"},
    "s-tab3": {"sdxs"},
    "s-fig7": {"sdxs"},
    "s-unet": {"shipped"},
    "s-decoder": {"shipped"},
    "s-fig8": {"shipped, edges", "shipped, depth"},
}
"""By artefact, the students whose rows notebooks draw from pretrained/."""


@pytest.mark.parametrize("claim", SECOND.values(), ids=lambda claim: claim.id)
def test_claims_on_shipped_weights_say_so(claim):
    reads = set()
    for part in claim.effect:
        for select in part.selects() if not part.once else []:
            methods = select.method if isinstance(select.method, list) else [select.method]
            reads |= SHIPPED.get(select.artefact or part.artefact, set()) & set(methods)
    assert set(claim.one_training) == reads


# --- still learning


def test_a_movement_within_the_scatter_of_the_seeds_is_none(tmp_path):
    """Far beyond the margin, and nothing moves but noise."""
    scattered = (3.0, 4.0, 5.0)
    write(tmp_path, "g-x-half", {0: (4.5, 5.5, 6.5)})
    result = verdict(tmp_path, {0: scattered}, margin=0)  # a move of 1.5, of a gap of 4 and with a deviation of 1
    assert (result["verdict"], result["half_length"]) == ("contradicted", "steady")
    write(tmp_path, "g-x-half", {0: (6.1, 7.1, 8.1)})
    assert verdict(tmp_path, {0: scattered}, margin=0)["half_length"] == "moving"
    write(tmp_path, "g-x-half", {0: (1.4, 2.4, 3.4)})
    assert verdict(tmp_path, {0: scattered}, margin=0)["half_length"] == "steady"  # the whole length is worse


def test_noise_alone_is_seldom_called_learning(tmp_path):
    """An effect three deviations beyond its margin, three seeds of both lengths, each with noise of its own."""
    noise, moving = random.Random(0), 0
    for _ in range(100):
        whole, half = ([1 + 0.3 + noise.gauss(0, 0.1) for _ in range(3)] for _ in range(2))
        write(tmp_path, "g-x-half", {0: half})
        moving += verdict(tmp_path, {0: whole})["half_length"] == "moving"
    assert moving < 15  # by one seed, either direction and no noise it would be nine in ten


def test_what_is_to_be_large_moves_upwards(tmp_path):
    claim = {"direction": "at_least", "margin": 2.0}
    for half, length in ((1.3, "moving"), (1.7, "steady")):
        write(tmp_path, "g-x-half", {0: (half,)})
        assert verdict(tmp_path, {0: (1.5, 1.51, 1.49)}, **claim)["half_length"] == length


# --- two worlds


def test_worlds_are_compared_by_all_cells_and_not_by_the_one_that_decides(tmp_path):
    """The cell at 0.9 reaches farthest and decides; the one at 1.05 lies beyond the margin."""
    far = verdict(tmp_path, {0: (1.0, 1.05, 1.1), 4: (0.6, 0.9, 1.2)}) | {"id": "g-X"}
    near = verdict(tmp_path, {0: NEAR, 4: NEAR}) | {"id": "g-X"}
    assert far["effect"] == pytest.approx(0.9)
    for real, word in ((far, "**otherwise**: holds here, fails there"), (near, "as here")):
        ((*_, conclusion, _),) = compared([near], [real])
        assert conclusion == word


# --- premises


def sharpness(folder, square):
    """s-X8 is supported; its premise, that squares blur, rests on s-fig6 with these sharpnesses, if there are any."""
    rows = {
        "s-abl-encoder": {"cnn": 0.9, "vit": 0.9, "unet": 0.9, "teacher, tiny decoder": 1.0},
        "s-abl-loss": {"square": 0.5, "matching": 0.9},
    }
    rows |= {"s-fig6": {"square": square, "teacher, tiny decoder": 1.0}} if square else {}
    for artefact, values in rows.items():
        jitter = {3: 0.0, 4: 0.0, 5: 0.0} if square != "wide" else {3: -0.3, 4: 0.0, 5: 0.3}
        table = [
            {"method": method, "metric": "sharpness", "seed": seed, "value": (0.7 if value == "wide" else value) + x}
            for method, value in values.items()
            for seed, x in (jitter if value == "wide" else dict.fromkeys((3, 4, 5), 0.0)).items()
        ]
        place = write_rows(folder, artefact, table)
    return {entry["id"]: entry for entry in judge(place)}["s-X8"]


@pytest.mark.parametrize(
    ("square", "known", "word"),
    [
        (0.5, True, "supported"),
        (0.95, False, "not assessable here"),
        ("wide", None, "inconclusive"),
        (None, None, "inconclusive"),
    ],
)
def test_a_premise_has_to_be_known(tmp_path, square, known, word):
    entry = sharpness(tmp_path, square)
    assert entry["verdict"] == word and [premise["holds"] for premise in entry["premises"]] == [known]
    assert ("Mean squares on pairs of noise and picture blur. (s-X7a)" in entry["note"]) == (known is not True)


def test_a_gate_needs_as_many_seeds_as_a_verdict_and_its_intervals(tmp_path):
    gate = GATES["heads-have-learned"]
    methods = gate.effect[0].value.method

    def known(values):
        rows = [
            {"method": method, "metric": "fid_inf", "seed": 3 + i, "value": value}
            for method in methods
            for i, value in enumerate(values)
        ]
        return holds(gate, write_rows(tmp_path, "g-abl-weighting", rows), RULE)

    assert known((30.0, 31.0, 29.0)) is True and known((90.0, 91.0, 89.0)) is False
    assert known((30.0,)) is None and known((90.0, 91.0)) is None and known((20.0, 50.0, 80.0)) is None
    assert known((30.0, 31.0, 29.0, float("nan"))) is None

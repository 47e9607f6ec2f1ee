"""Every claim of the second edition is a test: a perfect student passes it, the baseline fails it."""

import oracles
import pytest

from distill_lib.papers.cells import Place
from distill_lib.papers.claims import judge_second
from distill_lib.papers.editions import rules, second_edition
from distill_lib.papers.manifest import PAPERS

CLAIMS = [claim for paper in PAPERS for claim in second_edition(paper).claims if claim.not_judged is None]


def verdict_on(folder, claim, stand, counted=False):
    oracles.write(folder, oracles.tables(claim, stand, counted))
    return judge_second(claim, Place("laptop", folder), rules())


@pytest.mark.parametrize("claim", CLAIMS, ids=lambda claim: claim.id)
def test_a_perfect_student_supports_a_claim(tmp_path, claim):
    result = verdict_on(tmp_path, claim, claim.oracle)
    assert result["verdict"] == "supported", (result["note"], result.get("not_judged"), result["cells"])


@pytest.mark.parametrize("claim", CLAIMS, ids=lambda claim: claim.id)
def test_the_baseline_contradicts_a_claim(tmp_path, claim):
    result = verdict_on(tmp_path, claim, claim.baseline)
    assert result["verdict"] == "contradicted", (result["note"], result.get("not_judged"), result["cells"])
    costs = any(part.once for part in claim.effect)
    assert result["half_length"] == "not run" or costs or not claim.training


@pytest.mark.parametrize(
    "claim", [claim for claim in CLAIMS if oracles.measured(claim, claim.oracle)], ids=lambda claim: claim.id
)
def test_rows_that_count_tell_no_lie_about_a_perfect_student(tmp_path, claim):
    """What an instrument of this size cannot tell is `inconclusive`: a perfect student is not contradicted by noise."""
    assert verdict_on(tmp_path, claim, claim.oracle, counted=True)["verdict"] in ("supported", "inconclusive")


@pytest.mark.parametrize(
    "claim", [claim for claim in CLAIMS if oracles.measured(claim, claim.baseline)], ids=lambda claim: claim.id
)
def test_rows_that_count_do_not_support_the_baseline(tmp_path, claim):
    assert verdict_on(tmp_path, claim, claim.baseline, counted=True)["verdict"] != "supported"

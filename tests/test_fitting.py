"""Another teacher's trainings take moments of 8 bits where those of float32 do not fit, and say so."""

import json
from dataclasses import replace

import pytest
import torch
from tiny_pipelines import tiny_pipeline, tiny_sdxl

from distill_lib import profiles
from distill_lib.engine.loop import FrugalSettings, TrainSettings
from distill_lib.engine.savings import Savings
from distill_lib.experiments import fitting
from distill_lib.experiments.fitting import architecture_of, fitted, moments_sentence
from distill_lib.measure import plan as planning
from distill_lib.measure.plan import Needed, Plan
from distill_lib.measure.roles import network
from distill_lib.networks.pipeline import open_pipeline
from distill_lib.networks.sdxl import open_teacher
from distill_lib.networks.unet import W_FEATURES
from distill_lib.paths import COMMITTED, ROOT
from distill_lib.report.pages.plans import plans_table, weights_table
from distill_lib.run import plans
from distill_lib.run.plan import architecture, check_fits

SHORT = {"steps": 2, "batch_size": 4, "lr": 1e-4}
PLAIN = TrainSettings(**SHORT)
FRUGAL = FrugalSettings(**SHORT, savings=Savings(slices=2))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    place = tmp_path_factory.mktemp("teacher")
    tiny_pipeline("v_prediction").save_pretrained(place)
    return place


@pytest.fixture(autouse=True)
def no_drawing(monkeypatch):
    monkeypatch.setattr(planning, "drawing_bytes", lambda model, plan: 0)


def counted(monkeypatch, installed=True):
    """Plans that take 10 GB, and 6 with moments of 8 bits."""
    sizes = {"peak": 10 * 10**9, "drawing": 0, "moments": 5 * 10**9}
    need = Needed(sizes, {}, 0, {"adamw8bit": 10**9})
    monkeypatch.setattr(fitting, "needed", lambda model, plan: need)
    monkeypatch.setattr(fitting, "has_eight_bits", lambda: installed)


@pytest.mark.parametrize(
    ("memory", "settings", "installed", "optimizer"),
    [
        (12, FRUGAL, True, "adamw"),  # 10 and a reserve of 1.5
        (11, FRUGAL, True, "adamw8bit"),
        (11, FRUGAL, False, "adamw"),
        (11, PLAIN, True, "adamw"),
        (7, FRUGAL, True, "adamw"),  # nothing fits: as the profile says
    ],
)
def test_moments_have_eight_bits_where_these_alone_fit(folder, memory, settings, installed, optimizer, monkeypatch):
    counted(monkeypatch, installed)
    plan, need = fitted(architecture(str(folder)), "halving", settings, memory * 10**9)
    assert plan.savings.optimizer == optimizer and plan.resting == 1 and plan.batch == 4
    assert need.bytes["peak"] == (6 if optimizer == "adamw8bit" else 10) * 10**9


def test_a_refusal_says_that_bitsandbytes_is_missing(folder, monkeypatch):
    counted(monkeypatch, installed=False)
    monkeypatch.setattr("distill_lib.run.plan.has_eight_bits", lambda: False)
    plan, need = fitted(architecture(str(folder)), "stage-one", FRUGAL, 11 * 10**9)
    with pytest.raises(ValueError, match=r"needs 11.5 GB, and a card has 11.0: .*adamw8bit \(bitsandbytes is not in"):
        check_fits(need, plan, "a card", 11 * 10**9)


def test_a_teacher_s_settings_change_where_they_have_to_and_the_card_says_so(folder, monkeypatch, capsys):
    model = open_pipeline(folder)
    text = profiles.load("smoke").latent.model_copy(update={"stage_one": FRUGAL, "halving": PLAIN})
    monkeypatch.setattr(fitting, "has_eight_bits", lambda: True)
    need = fitted(architecture_of(model), "stage-one", FRUGAL, 10**12)[1]
    whole = need.whole
    monkeypatch.setattr(fitting, "needed", lambda model, plan: need)
    monkeypatch.setattr(fitting, "memory_here", lambda: ("a card", whole - 1))
    fits = fitting.fitting(text, model)
    assert fits.stage_one.savings == Savings(slices=2, optimizer="adamw8bit") and fits.halving == PLAIN
    assert "stage-one: moments in 8 bits (adamw8bit), since those of float32 do not fit; " in capsys.readouterr().out
    assert moments_sentence(fits) == " Moments of AdamW in 8 bits by bitsandbytes: stage-one."
    monkeypatch.setattr(fitting, "memory_here", lambda: ("a card", whole))
    assert fitting.fitting(text, model) == text and not capsys.readouterr().out and moments_sentence(text) == ""


def test_an_open_teacher_has_the_architecture_of_its_folder(folder, tmp_path):
    tiny_sdxl().save_pretrained(tmp_path / "xl", safe_serialization=True)
    for place, opened in ((folder, open_pipeline(folder)), (tmp_path / "xl", open_teacher(tmp_path / "xl"))):
        ours, read = architecture_of(opened), architecture(str(place))
        assert (ours.tokens, ours.factor, len(ours.texts)) == (read.tokens, read.factor, len(read.texts))
        assert planning.beside_bytes(ours) == planning.beside_bytes(read)
        with torch.device("meta"):
            assert network(ours, True).module.state_dict().keys() == network(read, True).module.state_dict().keys()


@pytest.mark.parametrize("name", ["gpu", "paper"])
def test_all_trainings_of_another_teacher_that_have_a_plan_have_savings(name):
    other = profiles.load(name).other
    for part in (other, other.small):
        settings_of = [settings for _, _, settings in fitting.trainings_of(part)]
        for settings in [*settings_of, other.small.scores.before]:
            assert settings.savings.frozen_bf16 and settings.batch_size % settings.savings.slices == 0


def test_both_trainings_of_scores_take_the_savings_of_their_plan():
    small, few = profiles.load("gpu").other.small, Savings(slices=4, optimizer="adamw8bit")
    plans = [Plan(method=m, savings=few if m == "scores" else s.savings) for _, m, s in fitting.trainings_of(small)]
    scores = fitting.adopted(small, plans).scores
    assert scores.settings.savings == scores.before.savings == few != small.scores.settings.savings
    assert replace(scores, settings=small.scores.settings, before=small.scores.before) == small.scores
    assert fitting.adopted(small, [Plan(savings=s.savings) for _, _, s in fitting.trainings_of(small)]) == small


# ------------------------------------------------------------------------------------------------ the page


def test_counted_trainings_are_kept_and_make_two_tables(folder, tmp_path, monkeypatch):
    monkeypatch.setenv("DISTILL_FIGURES", str(tmp_path))
    monkeypatch.setattr(plans, "TEACHERS", {"sd-1.5": [8]})
    monkeypatch.setattr(plans, "drawing_bytes", lambda model, plan: 30 * 10**9)
    monkeypatch.setattr(plans, "ARCHITECTURES", {"sd-1.5": architecture(str(folder))})
    monkeypatch.setattr(plans, "TRAININGS", ("halving",))
    plans.main([])
    kept = json.loads((tmp_path / COMMITTED / "plans.json").read_text())
    rows, (weights,) = kept["trainings"], kept["weights"]
    assert [row["variant"] for row in rows] == ["none", "lean", "lean, 8 bits"] and [row["batch"] for row in rows] == [
        4,
        64,
        64,
    ]
    none, lean, few = (row["bytes"] for row in rows)
    assert lean["average"] == 0 < none["average"] and few["moments"] < lean["moments"] == none["moments"]
    assert none["resting"] == none["teacher"] - 4 * W_FEATURES * 16  # the pair has no layer for w
    assert weights["student"] == none["teacher"] and weights["rounded"] == lean["teacher"]
    assert (weights["adamw"], weights["adamw8bit"]) == (none["moments"], few["moments"])
    table = plans_table(tmp_path)
    assert "| SD 1.5, 8 | a halving | none | 0.0 |" in table and table.count("| 32.5 | no |") == 3
    assert "a teacher holds: SD 1.5 at 8 pixels 30.0" in table
    kept["trainings"] = [row | {"bytes": row["bytes"] | {"drawing": 0}, "reserve": 10**9} for row in rows]
    (tmp_path / COMMITTED / "plans.json").write_text(json.dumps(kept))
    assert plans_table(tmp_path).count("| 1.0 | yes |") == 3
    assert weights_table(tmp_path).count("| SD 1.5 | 0.2 | 0.00 | 0.00, 0.00 |") == 1
    (tmp_path / COMMITTED / "plans.json").unlink()
    assert weights_table(tmp_path) == plans_table(tmp_path) and "Not counted yet" in weights_table(tmp_path)


def test_the_committed_rows_have_the_weights_and_moments_of_today():
    kept = json.loads((ROOT / "figures" / COMMITTED / "plans.json").read_text())
    today = {row["teacher"]: row for row in plans.weights()}
    assert kept["weights"] == [*today.values()]
    for row in kept["trainings"]:
        if row["training"] != "scores":
            of_teacher = today[row["teacher"]]
            assert row["bytes"]["moments"] == of_teacher["adamw8bit" if "8" in row["variant"] else "adamw"]
            assert row["bytes"]["student"] == of_teacher["student"]

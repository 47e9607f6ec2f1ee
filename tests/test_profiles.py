"""Profiles are validated, and name what is wrong."""

import pytest

from distill_lib import profiles
from distill_lib.evaluation import check_steps, check_strengths
from distill_lib.worlds.datasets import WORLDS


@pytest.mark.parametrize("name", profiles.names())
def test_every_profile_is_valid_and_asks_for_steps_that_are_distilled(name):
    profile = profiles.load(name)
    assert profile.name == name and profile.world in WORLDS
    check_steps(profile.steps, profile.halving_start)
    check_strengths(profile.ws, 4.0)
    assert set(profile.hardness.worlds) <= set(WORLDS)
    assert set(profile.single_w) <= set(profile.ws)  # 04 compares with the student of all w at the same strengths


def test_an_unknown_profile_is_named_with_those_that_exist():
    with pytest.raises(ValueError, match="profile='quik' is unknown; choose one of gpu, laptop, paper, quick, smoke"):
        profiles.load("quik")


def test_the_environment_overrides_the_name(monkeypatch):
    monkeypatch.setenv("DISTILL_PROFILE", "smoke")
    assert profiles.load("quick").name == "smoke"


def test_an_unknown_setting_is_refused(tmp_path, monkeypatch):
    text = (profiles._FOLDER / "smoke.yaml").read_text()
    (tmp_path / "smoke.yaml").write_text(text.replace("halving: {steps: 2,", "halving: {setps: 2,"))
    monkeypatch.setattr(profiles, "_FOLDER", tmp_path)
    with pytest.raises(ValueError, match=r"smoke.yaml: halving"):
        profiles.load("smoke")


def change_smoke(tmp_path, monkeypatch, right, wrong):
    """Make `load` find a smoke profile with one piece of text exchanged."""
    text = (profiles._FOLDER / "smoke.yaml").read_text()
    assert right in text
    (tmp_path / "smoke.yaml").write_text(text.replace(right, wrong))
    monkeypatch.setattr(profiles, "_FOLDER", tmp_path)


@pytest.mark.parametrize(
    "right, wrong",
    [("halving_start: 32", "halving_start: 24"), ("start: 8", "start: 1024"), ("steps: [1, 4]\n", "steps: [1, 3]\n")],
)
def test_steps_that_halving_does_not_pass_are_refused(tmp_path, monkeypatch, right, wrong):
    change_smoke(tmp_path, monkeypatch, right, wrong)
    with pytest.raises(ValueError, match=r"smoke.yaml: settings: .*power"):
        profiles.load("smoke")


@pytest.mark.parametrize(
    "right, wrong, said",
    [
        ("steps: [2, 4]\n  start: 16", "steps: [2, 32]\n  start: 64", "transfer.steps="),
        ("steps: [2, 4]\n  start: 16", "steps: [2, 4]\n  start: 4", "transfer.start=4"),
        ("start: 16\n  until: 4", "start: 16\n  until: 8", "from start=16 to until=8"),
        ("ranges: [1.0, 4.0]", "ranges: [8.0]", "ablations.ranges="),
    ],
)
def test_a_transfer_or_an_ablation_that_has_no_student_is_refused(tmp_path, monkeypatch, right, wrong, said):
    change_smoke(tmp_path, monkeypatch, right, wrong)
    with pytest.raises(ValueError, match=f"smoke.yaml: settings: .*{said}"):
        profiles.load("smoke")


def test_real_data_takes_the_place_of_the_world_and_has_names_and_networks_of_its_own():
    settings = profiles.load("laptop", "fashion_mnist")
    assert (settings.world, settings.hardness.worlds) == ("fashion_mnist", ["fashion_mnist"])
    assert (settings.suffix, settings.extractor) == ("-fashion-mnist", "fashion_mnist")
    assert (profiles.load("laptop").suffix, profiles.load("laptop").extractor) == ("", "scenes")
    assert profiles.load("paper", "fashion_mnist").sizes.samples == 5000  # two sets of test pictures, of 10,000 in all
    with pytest.raises(ValueError, match="dataset='mnist' is unknown; choose one of fashion_mnist"):
        profiles.load("laptop", "mnist")


def test_a_strength_outside_the_range_is_refused():
    with pytest.raises(ValueError, match=r"w=5.0 lies outside \[0, 4.0\]"):
        check_strengths([0.0, 5.0], 4.0)


def test_steps_without_a_student_are_refused_with_those_that_have_one():
    with pytest.raises(ValueError, match="steps=3: students are distilled for 16, 8, 4, 2, 1 steps"):
        check_steps([4, 3], 32)

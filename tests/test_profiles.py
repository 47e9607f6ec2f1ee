"""Profiles are validated, and name what is wrong."""

import re

import pytest

from distill_lib import profiles
from distill_lib.engine.loop import TrainSettings
from distill_lib.measure.distances import LEAST
from distill_lib.measure.draw import check_steps, check_strengths
from distill_lib.measure.readers.extractor import FEATURES
from distill_lib.worlds.pictures import WORLDS


@pytest.mark.parametrize("name", profiles.names())
def test_every_profile_is_valid_and_asks_for_steps_that_are_distilled(name):
    profile = profiles.load(name)
    assert profile.name == name and profile.world in WORLDS
    check_steps(profile.steps, profile.halving_start)
    check_strengths(profile.ws, 4.0)
    assert set(profile.hardness.worlds) <= set(WORLDS)
    assert set(profile.single_w) <= set(profile.ws)  # 04 compares with the student of all w at the same strengths


@pytest.mark.parametrize("name", [name for name in profiles.names() if name != "smoke"])
def test_rulers_have_pictures_for_the_features_that_fid_inf_reads(name):
    rulers = profiles.load(name).rulers
    assert rulers.samples >= LEAST * FEATURES
    assert rulers.reference >= LEAST * FEATURES  # no plumbing, which `fid_inf` lets pass
    assert profiles.load("smoke").rulers.reference < LEAST * FEATURES


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
    [("halving_start: 16", "halving_start: 24"), ("start: 8", "start: 1024"), ("steps: [1, 4]\n", "steps: [1, 3]\n")],
)
def test_steps_that_halving_does_not_pass_are_refused(tmp_path, monkeypatch, right, wrong):
    change_smoke(tmp_path, monkeypatch, right, wrong)
    with pytest.raises(ValueError, match=r"smoke.yaml: settings: .*power"):
        profiles.load("smoke")


@pytest.mark.parametrize(
    "right, wrong, message",
    [
        ("steps: [2, 4]\n  start: 8", "steps: [2, 16]\n  start: 32", "transfer.steps="),
        ("steps: [2, 4]\n  start: 8", "steps: [2, 4]\n  start: 4", "transfer.start=4"),
        ("start: 16\n  until: 4", "start: 16\n  until: 8", "from start=16 to until=8"),
        ("ranges: [1.0, 4.0]", "ranges: [8.0]", "ablations.ranges="),
    ],
)
def test_a_transfer_or_an_ablation_that_has_no_student_is_refused(tmp_path, monkeypatch, right, wrong, message):
    change_smoke(tmp_path, monkeypatch, right, wrong)
    with pytest.raises(ValueError, match=f"smoke.yaml: settings: .*{message}"):
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


def sentence_of(tmp_path, monkeypatch, data):
    """What is said of a smoke profile of these bytes."""
    (tmp_path / "smoke.yaml").write_bytes(data if isinstance(data, bytes) else data.encode())
    monkeypatch.setattr(profiles, "_FOLDER", tmp_path)
    with pytest.raises(ValueError) as error:
        profiles.load("smoke")
    text = str(error.value)
    assert type(error.value) is ValueError and text.startswith("smoke.yaml") and "\n" not in text and len(text) < 400
    return text


SMOKE = (profiles._FOLDER / "smoke.yaml").read_text()


@pytest.mark.parametrize(
    "data, message",
    [
        ("about: [1, 2", "line 1, column "),
        (SMOKE.replace("world: textured", "\tworld: textured"), "line 2, column 1: "),
        (SMOKE + "world: plain\n", f"line {len(SMOKE.splitlines()) + 1}, column 1: 'world' twice"),
        (SMOKE.replace("start: 8\n", "start: 8\n  start: 16\n", 1), "'start' twice"),
        ("- 1\n- 2\n", "should be lines of `name: value`, not list"),
        ("", "not NoneType"),
        ("x" * 300, "not str"),
        ("1: 2\n", "not names that are no words"),
        ("about: 2020-13-45\n", "month must be in 1..12"),
        ("about: !!python/object/apply:os.getcwd []\n", "could not determine a constructor"),
        (b"about: \xff\xfe", "byte 7 is no UTF-8"),
        (SMOKE + "name: quick\n", "name is that of the file"),
        (SMOKE.replace("reuse: 2\n", ""), "reuse is missing; add it"),
        (SMOKE + f"{'y' * 300}: 1\n", r"yyy\.\. is unknown; remove it"),
    ],
)
def test_a_file_that_is_no_profile_ends_in_a_sentence_with_the_place(data, message, tmp_path, monkeypatch):
    assert re.search(message, sentence_of(tmp_path, monkeypatch, data))


@pytest.mark.parametrize(
    "right, wrong, message",
    [
        ("halving: {steps: 2,", "halving: {steps: -1,", "halving.steps=-1: .*greater than or equal to 0"),
        (
            "halving: {steps: 2, batch_size: 8",
            "halving: {steps: 2, batch_size: 0",
            "halving.batch_size=0: .*equal to 1",
        ),
        ("halving: {steps: 2, batch_size: 8, lr: 1.0e-4", "halving: {steps: 2, batch_size: 8, lr: -1.0", "lr=-1.0: "),
        ("lr: 6.0e-3, warmup: 5, ema: 0.9, checkpoint", "lr: .nan, warmup: 5, ema: 0.9, checkpoint", "toy.lr=nan"),
        ("ema: 0.9, checkpoint_seconds: 0.0", "ema: 1.5, checkpoint_seconds: 0.0", "toy.ema=1.5: .*less than 1"),
        ("checkpoint_seconds: 0.0", "checkpoint_seconds: .inf", "toy.checkpoint_seconds=inf"),
        ("reuse: 2", "reuse: true", "reuse=True: should be a number"),
        ("reuse: 2", "reuse: two", "reuse='two'"),
        ("reuse: 2", f"reuse: '{'z' * 300}'", r"reuse='z+\.\.:"),
        ("world: textured", "world: marble", "world='marble': choose one of plain, textured"),
        ("worlds: [plain, textured, cluttered]", "worlds: [plain, fog]", r"hardness\.worlds\.1='fog'"),
        ("worlds: [plain, textured, cluttered]", "worlds: []", r"hardness\.worlds=\[\]"),
        ("ws: [0.0, 1.0, 4.0]", "ws: [0.0, -1.0]", r"ws\.1=-1\.0"),
        ("ws: [0.0, 1.0, 4.0]", "ws: [.inf]", r"ws\.0=inf"),
        ("pictures: 128,", "pictures: 0,", "sizes.pictures=0"),
        ("looks: [sketch, clay]", "looks: [oil]", r"lora\.looks\.0='oil': choose of sketch, clay"),
    ],
)
def test_a_value_out_of_bounds_is_told_with_its_place_and_what_is_allowed(right, wrong, message, tmp_path, monkeypatch):
    assert right in SMOKE
    assert re.search(message, sentence_of(tmp_path, monkeypatch, SMOKE.replace(right, wrong, 1)))


def test_the_name_of_a_profile_is_cut_where_it_is_long():
    with pytest.raises(ValueError, match=r"profile='p+\.\. is unknown; choose one of gpu") as error:
        profiles.load("p" * 300)
    assert len(str(error.value)) < 200


def test_settings_without_a_step_are_settings():
    assert TrainSettings(steps=0, batch_size=1, lr=1e-3, warmup=0, ema=0).steps == 0

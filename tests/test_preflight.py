"""A teacher is tried before hours are spent, and a GPU by one script; both are rehearsed here on tiny networks."""

from types import SimpleNamespace

import pytest
import torch
from PIL import Image
from tiny_pipelines import tiny_pipeline, tiny_sdxl

from distill_lib import profiles
from distill_lib.diffusion.solvers import SOLVERS
from distill_lib.engine.loop import FrugalSettings, TrainSettings
from distill_lib.engine.savings import Savings
from distill_lib.networks.pipeline import open_pipeline
from distill_lib.networks.sdxl import open_teacher
from distill_lib.run import drawing, preflight
from distill_lib.run.settings import Settings


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    place = tmp_path_factory.mktemp("teacher")
    tiny_pipeline("epsilon").save_pretrained(place)
    return str(place)


@pytest.fixture
def sizes():
    of = FrugalSettings(steps=9, batch_size=4, lr=1e-4, savings=Savings(slices=2, checkpointing=True))
    return profiles.load("smoke").latent.model_copy(update={"stage_one": of, "halving": of, "start": 8})


@pytest.fixture
def place(runs, monkeypatch, tmp_path):
    monkeypatch.setenv("DISTILL_RUNS", str(tmp_path / "runs"))
    return runs


# ------------------------------------------------------------------------------------------------ preflight


def test_all_checks_of_a_sound_teacher(folder, sizes, place):
    words = [*preflight.preflight(folder, sizes)]
    checks = "device memory memory disk teacher role role picture smoke smoke"
    assert [check for check, _ in words] == checks.split()
    assert "predicts epsilon, 1000 times, 8 pixels" in words[4][1]
    assert Image.open(place / "preflight" / "teacher.png").size == (8, 8)
    assert words[-1][1].startswith("halving: loss ") and not [*place.glob("preflight-*")]


def test_each_training_of_the_smoke_says_the_memory_that_it_held_itself(folder, sizes, place, monkeypatch):
    held = []  # a card that keeps the most it has held until it is told to begin again
    card = SimpleNamespace(
        is_available=lambda: True,
        reset_peak_memory_stats=lambda: held.append(len(held) + 1),
        max_memory_allocated=lambda: 10**9 * (held or [100])[-1],
    )
    monkeypatch.setattr(preflight, "torch", SimpleNamespace(cuda=card))
    lines = [*preflight.smoke(open_pipeline(folder), sizes)]
    assert [line.rpartition(", ")[2] for line in lines] == ["1.00 GB held at most", "2.00 GB held at most"]


@pytest.mark.parametrize("part", ["teacher", "student"])
def test_weights_that_are_not_finite_are_named_by_their_role(part, folder, monkeypatch):
    model = open_pipeline(folder)
    if part == "teacher":
        model.network.module.conv_out.bias.data.fill_(torch.nan)
    else:
        student = model.network.student()
        student.module.conv_out.bias.data.fill_(torch.inf)
        monkeypatch.setattr(type(model.network), "student", lambda self: student)
    with pytest.raises(ValueError, match=f"^{part}: an answer is not finite; PRECISION=fp32"):
        list(preflight.check_roles(model))


def test_roles_and_picture_of_xl_are_tried_as_well(place, tmp_path):
    tiny_sdxl().save_pretrained(tmp_path / "xl", safe_serialization=True)
    model = open_teacher(tmp_path / "xl")
    assert [words.split(":")[0] for words in preflight.check_roles(model)] == ["teacher", "student"]
    assert preflight.draw(model, place) and Image.open(place / "teacher.png").size == (32, 32)


def test_a_student_that_does_not_read_w_is_refused(folder, monkeypatch):
    model = open_pipeline(folder)
    student = model.network.student()
    monkeypatch.setattr(type(student), "features", lambda self, w: torch.zeros(len(w), 64) if self.takes_w else None)
    monkeypatch.setattr(type(student), "student", lambda self: student)
    with pytest.raises(ValueError, match="student: no gradient reaches the layer that reads w"):
        list(preflight.check_roles(model))


def test_a_picture_of_one_colour_is_refused(folder, place, monkeypatch):
    model = open_pipeline(folder)
    monkeypatch.setattr(type(model), "pictures", lambda self, z: torch.zeros(1, 3, 8, 8, dtype=torch.uint8))
    with pytest.raises(ValueError, match="the picture of 8 steps has one colour"):
        preflight.draw(model, place)


def test_disk_holds_trainings_latents_and_every_set_of_pictures_that_07_measures(sizes):
    # four trainings (8 -> 4, 2, 1 after stage one), and a state of weights, average and two moments, twice
    none = sizes.model_copy(update={"pairs": 0, "prompts": 0})
    assert preflight.disk_needed(1000, none, 16, 192) == 4 * 1000 * (4 + 8)
    few = {"students": [1, 2, 4, 8], "teacher_steps": 64, "ws": [0.0, 3.0, 14.0], "w": 6.5, "pairs": 10, "prompts": 5}
    # what 07 draws: at the one strength, and the first three lines at the least and the greatest as well
    drawn = {("ours-D", n) for n in (1, 2, 4, 8)} | {("ddim", n) for n in (1, 2, 4, 8, 16)} | {("teacher", 64)}
    more = {(name, n) for name in SOLVERS for n in (1, 2, 4, 8)} | {("stage-one", 64)}
    of = sizes.model_copy(update=few)
    assert preflight.picture_sets(of) == 3 * len(drawn) + len(more) == 43
    assert preflight.disk_needed(0, of, 16, 192) == 4 * 16 * 10 + 192 * 5 * 43


def test_disk_and_memory_are_refused_with_their_numbers(folder, sizes, place, monkeypatch):
    net, many = open_pipeline(folder).network, sizes.model_copy(update={"prompts": 10**12})
    with pytest.raises(
        ValueError, match=r"GB free, and trainings and pictures take \d+.\d: free it, or move it by DISTILL_RUNS"
    ):
        preflight.check_disk(net, 8, many)
    monkeypatch.setattr(preflight, "memory_here", lambda: ("a card", 1000))
    with pytest.raises(ValueError, match=r"stage-one of 4 samples at 8 pixels needs 1.0 GB, and a card has 0.0"):
        preflight.check_memory(folder, sizes)


def test_a_run_with_a_teacher_that_does_not_fit_is_refused_before_it_begins(folder, monkeypatch):
    names = ["07_text_to_image_in_few_steps"]
    with pytest.raises(ValueError, match=r"^teacher='no/such-teacher': there is no such folder"):
        drawing._check_memory("no/such-teacher", "smoke", names)
    monkeypatch.setattr("distill_lib.run.plan.memory_here", lambda: ("this machine", 10**9))
    with pytest.raises(
        ValueError, match=r"^stage-one of \d+ samples at 8 pixels needs 1.\d GB, and this machine has 1.0"
    ):
        drawing.figures("g-tab2", Settings(profile="smoke", extra={"teacher": folder, "prompts": "x"}))


def test_a_teacher_that_cannot_be_planned_is_said_to_be_so(folder, monkeypatch, capsys):
    monkeypatch.setattr("distill_lib.run.plan.trainings", lambda *given: [][0])
    drawing._check_memory(folder, "smoke", ["07_text_to_image_in_few_steps"])
    assert capsys.readouterr().out == "memory is not planned: IndexError list index out of range\n"


def test_notebooks_of_the_small_unet_are_planned_by_the_part_they_train(folder, monkeypatch):
    seen = []
    monkeypatch.setattr("distill_lib.run.plan.trainings", lambda teacher, part, memory: seen.append(part) or [])
    for profile in ("gpu", "smoke"):
        drawing._check_memory(folder, profile, ["10_tiny_unet"])
    assert seen == [profiles.load("gpu").other.small, profiles.load("smoke").small]


def test_profiles_of_committed_runs_hold_no_savings():
    for name in ("smoke", "quick", "laptop"):
        text = profiles.load(name).latent
        assert type(text.stage_one) is type(text.halving) is TrainSettings
    other = profiles.load("gpu").other
    assert other.stage_one.savings.slices > 1 and other.stage_one.batch_size % other.stage_one.savings.slices == 0

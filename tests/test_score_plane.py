"""Trainings of the plane: what is measured of known answers, and a short run of each kind from end to end."""

import math
from types import SimpleNamespace

import pytest
import torch

from distill_lib.engine.loop import TrainSettings
from distill_lib.experiments.score_plane import (
    FAULTS,
    LEVELS,
    MASSES,
    PLACES,
    SEGMENT,
    TEACHER,
    WRONG,
    ScorePlane,
    fault_rows,
    quality,
    quality_rows,
)
from distill_lib.measure.rows import select
from distill_lib.report import score_plane as drawing
from distill_lib.sdxs.cloud import Cloud

SHORT = TrainSettings(steps=9, batch_size=32, lr=8e-3, warmup=1, ema=0.0)


def test_the_teacher_has_the_masses_that_are_said():
    centres, counts = TEACHER.x.unique(dim=0, return_counts=True)
    order = torch.cdist(PLACES, centres).argmin(1)
    assert tuple(counts[order].tolist()) == MASSES and sum(MASSES) == len(TEACHER.x)


def test_draws_of_the_teacher_keep_all_modes_and_have_their_masses():
    result = quality(TEACHER.draw(4096, 0))
    assert result["modes"] == 5 and result["mass_error"] < 1e-6
    # outside of three standard deviations, exp(-9 / 2) of a Gaussian in the plane; 4,096 draws: 0.0016 of error
    assert result["off_modes"] == pytest.approx(math.exp(-4.5), abs=0.005)


def test_points_in_one_mode_keep_one_and_miss_the_mass_of_the_others():
    result = quality(PLACES[:1].repeat(64, 1))
    assert result == {"modes": 1.0, "mass_error": pytest.approx(1 - MASSES[0] / 16), "off_modes": 0.0}


def test_points_between_modes_keep_none():
    assert quality(PLACES.mean(0).repeat(64, 1)) | {"mass_error": 0} == {
        "modes": 0.0,
        "mass_error": 0,
        "off_modes": 1.0,
    }


def test_the_divergence_of_the_teachers_own_draws_is_nothing_within_the_error_of_a_kernel_of_a_thousand():
    rows = select(quality_rows(TEACHER.draw(2048, 0), method="teacher"), metric="kl")
    assert len({row["t"] for row in rows}) == len(rows) == 4 and all(abs(row["value"]) < 0.05 for row in rows)


def test_faults_show_where_they_must():
    rows = fault_rows(0, 1024)
    of = {
        name: {row["t"]: row["value"] for row in select(rows, method=name, metric="direction_size")} for name in FAULTS
    }
    lowest, highest = LEVELS[0] / 1024, LEVELS[-1] / 1024
    missing, wide, moved = (of[name] for name in ("two modes missing", "modes twice as wide", "all moved by a tenth"))
    assert missing[lowest] < 1e-3 * missing[highest]  # exp of minus the square of a distance in units of the noise
    assert wide[highest] < 0.1 * max(wide.values()) and max(wide, key=wide.get) < 0.2
    assert moved[highest] == pytest.approx(0.1, rel=0.02)  # there x_hat is the mean of the data but for alpha_t
    assert select(rows, method="two modes missing", metric="fine_share")[0]["value"] < 0.1
    # ten sixteenths of the mass are kept, and modes overlap a little at t = 1/16
    kl = select(rows, method="two modes missing", metric="kl")[0]["value"]
    assert kl == pytest.approx(math.log(1.6), rel=0.1)
    assert select(rows, method="two modes missing", metric="kl_forward")[0]["value"] > 5 * kl


@pytest.fixture
def plane(runs):
    return ScorePlane(SHORT, 0)


def test_an_online_model_that_knows_all_answers_does_not_lag(plane):
    """Half of the answers are the kernel, the other half are noised; the kernel itself in place of the network."""
    answers = plane.answers(plane.start)
    exact = Cloud(answers[: len(answers) // 2])
    known = SimpleNamespace(stages=lambda: [5], student=plane.start, online=exact)
    lag, gap = plane.lag_rows("exact", known)
    assert (lag["metric"], lag["value"], lag["update"]) == ("lag", 0.0, 5) and gap["value"] > 0.1
    teacher = SimpleNamespace(stages=lambda: [5], student=plane.start, online=TEACHER)
    lag, gap = plane.lag_rows("the teacher in its place", teacher)
    assert lag["value"] == pytest.approx(gap["value"])


def test_pairs_of_the_plane_are_the_teachers_own_and_independent_ones(plane):
    own, independent = plane.couples["own"], plane.couples["independent"]
    assert torch.equal(own.z, independent.z) and len(own) == 8192
    for couples in (own, independent):
        assert quality(couples.x)["modes"] == 5 and quality(couples.x)["mass_error"] < 0.03

    # where noise and data are independent, noise says nothing of data; 8,192 couples: 0.011 of error
    def correlation(couples):
        return torch.corrcoef(torch.stack([couples.z[:, 1], couples.x[:, 1]]))[0, 1].item()

    assert abs(correlation(independent)) < 0.05 < 0.5 < correlation(own)


def test_a_run_keeps_its_stages_ends_at_the_end_and_is_found_again(plane):
    distilled = plane.by_scores(plane.warm, WRONG, SEGMENT)
    stages = [(update, plane.answers(distilled.student)) for update in distilled.stages()]
    updates, answers = zip(*stages, strict=True)
    assert updates == (1, 2, 3, 4, 5, 6, 7, 8, 9)  # of the student, while the online model has three for each
    assert not any(torch.equal(answers[k], answers[k + 1]) for k in range(8))
    again = plane.by_scores(plane.warm, WRONG, SEGMENT)
    assert again.run.key == distilled.run.key != plane.by_scores(plane.warm, TEACHER, SEGMENT).run.key
    assert torch.equal(plane.answers(again.student), answers[-1])


def test_figures_of_the_plane_are_drawn_from_their_rows(plane):
    distilled = plane.by_scores()
    rows = plane.journey_rows(distilled)
    assert {row["update"] for row in rows} == set(range(1, 10))
    figure = drawing.journey(plane, distilled, rows, "title")
    assert [ax.get_title() for ax in figure.axes[:4]] == [
        "before",
        "after 2 updates",
        "after 5 updates",
        "after 9 updates",
    ]
    lags = drawing.lags(plane.lag_rows("a", distilled), "title")
    drawn = lags.axes[0].lines[0].get_ydata()
    assert drawn.tolist() == [row["value"] for row in select(plane.lag_rows("a", distilled), metric="lag")]
    answers = {str(i): plane.z for i in range(6)}
    by_alpha = [row for a in (0.1, 1.0) for row in quality_rows(plane.z, method="x", alpha=a, matching=0.0)]
    assert len(drawing.modes(answers, by_alpha, "title").axes) == 9
    assert len(drawing.fault_levels(fault_rows(0, 64), "title").axes) == 2

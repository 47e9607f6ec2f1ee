"""A teacher of one's own: prompts from a file, its own samples as data, and all of distillation from there."""

import pytest
import torch
from tiny_pipelines import tiny_pipeline

from distill_lib import profiles
from distill_lib.diffusion.schedules import step_counts
from distill_lib.engine.loop import finish
from distill_lib.engine.store import Run
from distill_lib.experiments import foreign, halvings
from distill_lib.experiments.foreign import prompts_of
from distill_lib.experiments.text_to_image import task
from distill_lib.guided.halving import Halving, halve_once
from distill_lib.guided.stage_one import distill_guidance
from distill_lib.measure.metrics import Reader
from distill_lib.measure.prompts import Judges
from distill_lib.measure.readers.extractor import Extractor
from distill_lib.networks.adapter import Keyed
from distill_lib.networks.pipeline import TextToImage, open_pipeline
from distill_lib.worlds.captions import drawn_attributes, say


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "prompts.txt"
    lines = say(drawn_attributes(20, 0))
    path.write_text("\n\n".join([*lines, lines[0]]) + "\n")  # a line again is no other prompt
    return path


def test_the_first_prompts_of_a_file_are_measured_and_the_others_are_not(file):
    measured, others = prompts_of(str(file), 16)
    assert measured + others == list(dict.fromkeys(say(drawn_attributes(20, 0)))) and len(measured) == 16
    with pytest.raises(ValueError, match="prompts; 20 are measured"):
        prompts_of(str(file), 20)
    with pytest.raises(ValueError, match="'' is not a file"):
        prompts_of("", 16)


def test_another_teacher_needs_prompts_and_prompts_a_teacher(file, tmp_path):
    with pytest.raises(ValueError, match="a teacher of your own needs prompts="):
        task(profiles.load("gpu"), 0, "somebody/model")
    with pytest.raises(ValueError, match="needs teacher=, a folder or hub id: smoke names no other one"):
        task(profiles.load("smoke"), 0, "", str(file))
    assert profiles.load("gpu").other.pipeline.endswith("stable-diffusion-2-1-base")
    with pytest.raises(ValueError, match=r"prompts='.*nothing' cannot be read \(No such file or directory\); name a"):
        prompts_of(str(tmp_path / "nothing"), 1)


@pytest.mark.parametrize("case", ["utf-8-sig", "utf-8"])
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_a_line_ends_at_its_end_alone_and_a_byte_order_mark_is_no_prompt(tmp_path, case, end):
    lines = ["a cat", "a\u2028dog", "a\x85bird \x0b\x1c of paper", "\u732b"]
    (tmp_path / "prompts.txt").write_bytes(end.join([*lines, ""]).encode(case))
    assert prompts_of(str(tmp_path / "prompts.txt"), 1) == (lines[:1], lines[1:])


@pytest.mark.parametrize("case", ["utf-16", "utf-16-le", "utf-16-be", "latin-1"])
def test_a_file_that_is_not_utf_8_is_refused_in_a_sentence(tmp_path, case):
    (tmp_path / "prompts.txt").write_bytes("a caf\xe9\na cat\na dog".encode(case))
    with pytest.raises(ValueError, match=r"is no text file in UTF-8.*; save it as UTF-8") as error:
        prompts_of(str(tmp_path / "prompts.txt"), 1)
    assert "\n" not in str(error.value)


@pytest.fixture
def folder(tmp_path):
    tiny_pipeline("epsilon").save_pretrained(tmp_path / "model", safe_serialization=True)
    return tmp_path / "model"


def some_judges(calls=None):
    judge = lambda image, prompts: (calls or []).append(prompts) or torch.zeros(len(prompts))  # noqa: E731
    return Judges(Reader(Extractor(6, 3, 8).eval()), judge)


def test_a_prompt_that_would_be_cut_is_named_before_anything_runs(folder, file, runs, monkeypatch):
    long = " ".join(["a red cube left of a blue cone"] * 4)
    file.write_text("\n".join([*say(drawn_attributes(20, 0)), long, long + " a red cube"]))
    monkeypatch.setattr(foreign, "teacher_pairs", None)  # nothing is drawn
    message = r"2 of \d+ prompts are longer than the 24 tokens .* the first is 'a red cube .*' with 34: shorten them"
    with pytest.raises(ValueError, match=message):
        task(profiles.load("smoke"), 0, str(folder), str(file), some_judges())
    with pytest.raises(ValueError, match="1 of 2 prompts are longer than the 24 tokens"):
        open_pipeline(folder).states(["a red cube left of a blue cone", long])


def test_a_word_that_the_teacher_has_never_seen_is_named_before_anything_runs(folder, file, runs, monkeypatch):
    file.write_text("\n".join([*say(drawn_attributes(20, 0)), "a purpel cone left of a red cube"]))
    monkeypatch.setattr(foreign, "teacher_pairs", None)
    with pytest.raises(ValueError, match="'purpel'"):
        task(profiles.load("smoke"), 0, str(folder), str(file), some_judges())


def test_judges_are_asked_before_anything_is_drawn(folder, file, runs, monkeypatch):
    def broken(image, prompts):
        raise ValueError("this judge does not judge")

    monkeypatch.setattr(foreign, "teacher_pairs", None)
    with pytest.raises(ValueError, match="this judge does not judge"):
        task(profiles.load("smoke"), 0, str(folder), str(file), Judges(some_judges().reader, broken))


def test_other_prompts_are_other_results(folder, file, runs, monkeypatch):
    """Seed 0 with prompts A and seed 1 with prompts B share no table; the same prompts do, whatever the seed."""
    settings, lines = profiles.load("smoke"), say(drawn_attributes(20, 0))
    jobs = []
    for seed, text in [(0, lines), (1, lines), (1, lines[1:]), (1, lines[:17]), (0, [lines[1], lines[0], *lines[2:]])]:
        file.write_text("\n".join(text))
        jobs.append(task(settings, seed, str(folder), str(file), some_judges()))
    assert jobs[0].suffix == jobs[1].suffix
    assert len({job.suffix for job in jobs}) == 4 and len({tuple(job.parents) for job in jobs}) == 5
    words = jobs[0].parents[1].removeprefix("prompts-")
    assert len(words) == 64 and jobs[0].suffix.endswith(f"-{words[:6]}")


@pytest.mark.parametrize("predicts", ["epsilon", "v_prediction"])
def test_another_teacher_is_distilled_on_its_own_samples(file, predicts, tmp_path, runs):
    folder = tmp_path / "My Model"
    tiny_pipeline(predicts).save_pretrained(folder, safe_serialization=True)
    judges = some_judges()
    settings = profiles.load("smoke")
    job = task(settings, 0, str(folder), str(file), judges)
    assert job.suffix.startswith(f"-my-model-{job.model.fingerprint[:6]}-") and job.parents[0].startswith(str(folder))
    assert len(job.pictures) == job.sizes.pairs and not set(job.pictures.prompts) & set(job.benchmark.prompts)
    assert task(settings, 0, str(folder), str(file), judges).parents == job.parents
    file.write_text("\n".join(say(drawn_attributes(20, 1))))
    assert task(settings, 0, str(folder), str(file), judges).parents != job.parents

    live, run = job.model.network.student(), Run("live", {"of": job.parents}, TextToImage)
    training = distill_guidance(live, job.model.network, job.pictures, job.sizes.stage_one, run, job.w_max)
    finish(live, training, run, "stage one")
    chain = halvings.in_latents(settings, job.sizes, (live, run.key), job.w_max, job.pictures, 0)
    assert sorted(chain) == [1, 2, 4]
    student = Keyed(live, run.key)  # notebook 07 has the loop in the open, and finds what the others share
    for n in step_counts(job.sizes.start):
        halving = Halving(n, job.sizes.halving.with_seed(n), (0.0, job.w_max), reuse=settings.reuse)
        student = halve_once(student, job.pictures, halving, "text-halving")
        assert student.key == chain[n].key
    rows = job.benchmark.rows("ours-D", chain[4].net, 4, job.sizes.w)
    assert {row["metric"] for row in rows} == {"fid_teacher", "paired", "clip", "sharpness"}

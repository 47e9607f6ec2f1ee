"""A teacher of one's own: prompts from a file, its own samples as data, and all of distillation from there."""

import pytest
import torch
from tiny_pipelines import tiny_pipeline

from distill_lib import profiles, students
from distill_lib.extractor import Extractor
from distill_lib.methods.guidance_distillation import distill_guidance
from distill_lib.metrics import Reader
from distill_lib.pipelines import TextToImage
from distill_lib.prompting import Judges
from distill_lib.store import Run
from distill_lib.text_to_image import prompts_of, task
from distill_lib.training import finish
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
    file.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ValueError, match="is no text file in UTF-8"):
        prompts_of(str(file), 1)


@pytest.mark.parametrize("predicts", ["epsilon", "v_prediction"])
def test_another_teacher_is_distilled_on_its_own_samples(file, predicts, tmp_path, runs):
    folder = tmp_path / "My Model"
    tiny_pipeline(predicts).save_pretrained(folder, safe_serialization=True)
    judges = Judges(Reader(Extractor(6, 3, 8).eval()), lambda image, prompts: torch.zeros(len(prompts)))
    settings = profiles.load("smoke")
    job = task(settings, 0, str(folder), str(file), judges)
    assert job.suffix == f"-my-model-{job.told.fingerprint[:6]}" and job.parents[0].startswith(str(folder))
    assert len(job.pictures) == job.how.pairs and not set(job.pictures.prompts) & set(job.asked.prompts)
    assert task(settings, 0, str(folder), str(file), judges).parents == job.parents
    file.write_text("\n".join(say(drawn_attributes(20, 1))))
    assert task(settings, 0, str(folder), str(file), judges).parents != job.parents

    live, run = job.told.network.student(), Run("live", {"of": job.parents}, TextToImage)
    training = distill_guidance(live, job.told.network, job.pictures, job.how.stage_one, run, job.w_max)
    finish(live, training, run, "stage one")
    chain = students.in_latents(settings, job.how, (live, run.key), job.w_max, job.pictures, 0)
    assert sorted(chain) == [1, 2, 4]
    rows = job.asked.rows("ours-D", chain[4].net, 4, job.how.w)
    assert {row["metric"] for row in rows} == {"fid_teacher", "paired", "clip", "sharpness"}

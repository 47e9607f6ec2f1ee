"""A teacher of one's own: prompts from a file, its own samples as data, and all of distillation from there."""

import pytest
import torch
from tiny_pipelines import tiny_pipeline

from distill_lib import profiles, students
from distill_lib.extractor import Extractor
from distill_lib.methods.guidance_distillation import distill_guidance
from distill_lib.methods.step_halving import Halved
from distill_lib.metrics import Reader
from distill_lib.prompting import Judges
from distill_lib.store import Run
from distill_lib.text_to_image import prompts_of, task
from distill_lib.training import finish
from distill_lib.worlds.captions import drawn_attributes, say


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "prompts.txt"
    path.write_text("\n\n".join(say(drawn_attributes(20, 0))) + "\n")
    return path


def test_the_first_prompts_of_a_file_are_measured_and_the_others_are_not(file):
    measured, others = prompts_of(str(file), 16)
    assert measured + others == say(drawn_attributes(20, 0)) and len(measured) == 16
    with pytest.raises(ValueError, match="holds 20 prompts; 20 are measured"):
        prompts_of(str(file), 20)
    with pytest.raises(ValueError, match="'' is not a file"):
        prompts_of("", 16)


def test_a_profile_names_the_shipped_teacher_or_another(file):
    assert profiles.load("laptop").text.world and not profiles.load("gpu").text.world
    with pytest.raises(ValueError, match="a teacher of your own needs prompts="):
        task(profiles.load("gpu"), 0)


@pytest.mark.parametrize("predicts", ["epsilon", "v_prediction"])
def test_another_teacher_is_distilled_on_its_own_samples(file, predicts, tmp_path, runs):
    folder = tmp_path / "My Model"
    tiny_pipeline(predicts).save_pretrained(folder, safe_serialization=True)
    judges = Judges(Reader(Extractor(6, 3, 8).eval()), lambda image, prompts: torch.zeros(len(prompts)))
    settings = profiles.load("smoke")
    job = task(settings, 0, str(folder), str(file), judges)
    assert job.suffix == "-my-model" and job.parents[0].startswith(str(folder)) and job.first is None
    assert len(job.pictures) == job.how.pairs and not set(job.pictures.prompts) & set(job.asked.prompts)
    again = task(settings, 0, str(folder), str(file), judges)
    assert torch.equal(again.pictures.z, job.pictures.z)

    live, run = job.told.network.student(), Run("live", {"of": job.parents}, "distill_lib.pipelines")
    training = distill_guidance(live, job.told.network, job.pictures, job.how.stage_one, run, job.w_max)
    chain = students.in_latents(settings, job, Halved(live, finish(live, training, run, "stage one"), run), 0)
    assert sorted(chain) == [1, 2, 4]
    rows = job.asked.rows("ours-D", chain[4].net, 4, job.how.w)
    assert {row["metric"] for row in rows} == {"fid_teacher", "paired", "clip", "sharpness"}
    with pytest.raises(ValueError, match="no student of stage one"):
        students.in_latents(settings, job, None, 0)

"""Stable Diffusion XL as a teacher, tiny and random: drawn with as by diffusers; stage one, the cut and one step."""

import pytest
import torch
from diffusers import StableDiffusionXLPipeline
from test_any_teacher import file_of_prompts, some_judges
from tiny_pipelines import tiny_pipeline, tiny_sdxl

from distill_lib import profiles
from distill_lib.diffusion.samplers import sample
from distill_lib.engine.loop import TrainSettings, finish
from distill_lib.engine.store import Run
from distill_lib.experiments import foreign
from distill_lib.experiments.one_step import Trials
from distill_lib.experiments.sdxs_task import sdxs_task, timed_task
from distill_lib.guided.stage_one import distill_guidance
from distill_lib.networks.adapter import denoise_pair, denoise_student
from distill_lib.networks.pipeline import Latents, TextToImage
from distill_lib.networks.sdxl import open_teacher
from distill_lib.sdxs.one_step import one_step
from distill_lib.shipped.export import assembled

PROMPTS = ["a red cube left of a green sphere", "a small striped cyan cone left of a gray cylinder"]
SHORT = TrainSettings(steps=2, batch_size=4, lr=1e-3, warmup=1, bf16=False)


@pytest.fixture
def folder(tmp_path):
    tiny_sdxl().save_pretrained(tmp_path / "model", safe_serialization=True)
    return tmp_path / "model"


def noise(seed=1):
    return torch.randn(2, 4, 4, 4, generator=torch.Generator().manual_seed(seed))


def drawn_by(pipe, n, scale, z_T, prompts=PROMPTS, output="latent"):
    """Latents or pictures by diffusers alone."""
    pipe.set_progress_bar_config(disable=True)
    options = {"num_inference_steps": n, "guidance_scale": scale, "height": 32, "width": 32, "output_type": output}
    return pipe(prompts, latents=z_T.clone(), **options).images


@pytest.mark.parametrize("zeros", [True, False])
def test_both_encoders_size_and_empty_prompt_are_those_of_diffusers(folder, zeros, tmp_path):
    pipe = StableDiffusionXLPipeline.from_pretrained(folder, force_zeros_for_empty_prompt=zeros)
    pipe.save_pretrained(tmp_path / "saved")
    model, z_T = open_teacher(tmp_path / "saved", bf16=False), noise()
    for n, w in ((1, 0.0), (4, 1.5)):
        ours = sample(denoise_pair(model.network, model.states(PROMPTS), w), z_T, n, model.network.schedule)
        reference = drawn_by(pipe, n, 1 + w, z_T)
        assert torch.allclose(ours, reference, atol=2e-4 * reference.abs().max().item())
    assert model.network.null.any() != zeros
    other = open_teacher(folder, bf16=False)
    assert (other.fingerprint == model.fingerprint) == zeros


def test_stage_one_gives_a_student_that_diffusers_guides_by_its_input(folder, runs):
    model = open_teacher(folder, bf16=False)
    data = Latents(torch.randn(8, 4, 4, 4), PROMPTS * 4, model)
    student, run = model.network.student(), Run("one", {"folder": str(folder)}, TextToImage)
    finish(student, distill_guidance(student, model.network, data, SHORT, run), run, "stage one")
    w = torch.full((2,), 2.0)
    ours = sample(denoise_student(student, model.states(PROMPTS), w), noise(), 4, student.schedule)
    reference = drawn_by(assembled(model.pipe, student.module, model.pipe.vae), 4, 3.0, noise())
    assert torch.allclose(ours, reference, atol=2e-4 * reference.abs().max().item())


def test_the_cut_of_the_larger_paper_model_draws_in_one_step(folder, runs, tmp_path):
    job = sdxs_task(profiles.load("smoke"), 0, str(folder), file_of_prompts(tmp_path), judges=some_judges())
    assert job.cut.middle == "plain" and job.cut.depths == (1, 1, 2)
    trials = Trials.of(job)
    trained = trials.by_scores(trials.by_loss("matching"))
    assert {row["metric"] for row in trials.rows({"scores": trained})} == {"fid_teacher", "paired", "clip", "sharpness"}
    student, place = job.one_step(trained)
    z_T, _, label = trials.pairs.batch(torch.arange(2))
    x = one_step(student.exact(), z_T, label, student.schedule)
    ours = (student.decode.tiny.decoder(x) / 2 + 0.5).clamp(0, 1)
    reference = drawn_by(StableDiffusionXLPipeline.from_pretrained(place), 1, 1.0, z_T, trials.pairs.prompts[:2], "pt")
    assert torch.allclose(ours, reference, atol=1e-3)


def test_times_of_three_modules_are_not_asked_of_xl(folder, runs, tmp_path, monkeypatch):
    monkeypatch.setattr(foreign, "teacher_pairs", None)  # nothing is drawn
    given = {"teacher": str(folder), "prompts": file_of_prompts(tmp_path), "judges": some_judges()}
    with pytest.raises(ValueError, match=r"model' is a Stable Diffusion XL, and 14 times text encoder, U-Net and"):
        timed_task(profiles.load("smoke"), 0, **given)


def test_parts_that_do_not_belong_together_end_in_a_sentence(folder, tmp_path):
    pipe = tiny_sdxl()
    pipe.text_encoder_2 = type(pipe.text_encoder_2)(pipe.text_encoder.config)
    pipe.save_pretrained(tmp_path / "other", safe_serialization=True)
    with pytest.raises(ValueError, match=r"no usable StableDiffusionXLPipeline: unet: it reads 32 numbers .* 16 \+ 16"):
        open_teacher(tmp_path / "other")
    (folder / "text_encoder_2" / "model.safetensors").unlink()
    with pytest.raises(ValueError, match=r"XLPipeline: text_encoder_2: it has no model\.safetensors; fetch or save"):
        open_teacher(folder)
    tiny_pipeline("epsilon").save_pretrained(tmp_path / "plain", safe_serialization=True)
    assert type(open_teacher(tmp_path / "plain")) is TextToImage
    with pytest.raises(ValueError, match="is no usable StableDiffusionPipeline: there is no such folder"):
        open_teacher(tmp_path / "nothing here")

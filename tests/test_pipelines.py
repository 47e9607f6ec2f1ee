"""Folders of the shape of Stable Diffusion, tiny and random: of both kinds of prediction, on their own grid of 1000."""

import shutil

import pytest
import torch
from closed_forms import Gaussian
from diffusers import StableDiffusionPipeline
from tiny_pipelines import scheduler, tiny_pipeline

from distill_lib.diffusion.guidance import guided_pair
from distill_lib.diffusion.samplers import ddim_step, sample, trajectory
from distill_lib.diffusion.schedules import Schedule, step_grid
from distill_lib.engine import store
from distill_lib.engine.loop import TrainSettings, finish
from distill_lib.engine.store import Run
from distill_lib.guided.halving import Halving, halve_once, halving_target
from distill_lib.guided.stage_one import distill_guidance
from distill_lib.networks import pipeline
from distill_lib.networks.adapter import Keyed, denoise_pair, denoise_student
from distill_lib.networks.pipeline import Latents, TextToImage, open_pipeline
from distill_lib.teachers.denoising import train_teacher
from distill_lib.worlds.captions import LENGTH, drawn_attributes, say

PROMPTS = ["a red cube left of a green sphere", "a small striped cyan cone left of a gray cylinder"]
SHORT = TrainSettings(steps=2, batch_size=4, lr=1e-3, warmup=1, bf16=False)


@pytest.fixture(scope="module", params=["epsilon", "v_prediction"])
def saved(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp(request.param)
    pipe = tiny_pipeline(request.param)
    pipe.save_pretrained(folder, safe_serialization=True)
    return folder, pipe


@pytest.fixture
def runs(tmp_path, monkeypatch):
    monkeypatch.setattr(store, "RUNS", tmp_path)


def noise(n=2, seed=1):
    return torch.randn(n, 4, 4, 4, generator=torch.Generator().manual_seed(seed))


def by_diffusers(pipe, n, w, z_T):
    pipe.set_progress_bar_config(disable=True)
    options = {"num_inference_steps": n, "guidance_scale": 1 + w, "height": 8, "width": 8, "output_type": "latent"}
    return pipe(PROMPTS, latents=z_T.clone(), **options).images


def test_a_folder_is_read_with_its_own_grid_and_its_empty_prompt(saved):
    folder, pipe = saved
    model = open_pipeline(folder, bf16=False)
    assert model.network.schedule.T == 1000 and not model.network.takes_w
    states = model.states([*PROMPTS, ""])
    assert states.shape == (3, LENGTH, 16)
    assert torch.allclose(model.network.null, states[2], atol=1e-6)  # some CPUs round a batch otherwise
    expected = pipe.encode_prompt(PROMPTS, "cpu", 1, True, negative_prompt=["", ""])
    assert torch.allclose(states[:2], expected[0], atol=1e-6)
    assert torch.allclose(model.network.null.expand_as(expected[1]), expected[1], atol=1e-6)


def drawn_by(pipe, n, w, z_T):
    """Latents of PROMPTS by diffusers' own pipeline."""
    options = {"num_inference_steps": n, "guidance_scale": 1 + w, "height": 8, "width": 8, "output_type": "latent"}
    return pipe(PROMPTS, latents=z_T.clone(), **options).images


@pytest.mark.parametrize("n", [1, 4, 25])
@pytest.mark.parametrize("w", [0.0, 1.5])
def test_our_sampler_on_the_adapter_is_diffusers_pipeline(saved, n, w):
    folder, pipe = saved
    model, z_T = open_pipeline(folder, bf16=False), noise()
    ours = sample(denoise_pair(model.network, model.states(PROMPTS), w), z_T, n, model.network.schedule)
    reference = drawn_by(pipe, n, w, z_T)
    assert torch.allclose(ours, reference, atol=2e-4 * reference.abs().max().item())


def test_pictures_and_latents_are_those_of_the_folders_autoencoder(saved):
    folder, pipe = saved
    model = open_pipeline(folder)
    image = torch.randint(0, 256, (2, 3, 8, 8), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    z = model.latents(image)
    assert torch.allclose(z, 0.5 * pipe.vae.encode(image.float() / 127.5 - 1).latent_dist.mean, atol=1e-5)
    drawn = model.pictures(z)
    assert drawn.shape == image.shape and drawn.dtype == torch.uint8


def test_a_student_starts_as_its_teacher_where_both_predict_v(saved):
    folder, _ = saved
    net = open_pipeline(folder, bf16=False).network
    student, z, t = net.student(), noise(), torch.tensor([300, 900])
    states, w = torch.randn(2, LENGTH, 16), torch.tensor([0.0, 3.0])
    assert student.takes_w and student.predicts == "v_prediction" and student.schedule is net.schedule
    same = torch.allclose(student(z, t, states, w), net(z, t, states), atol=1e-5)
    assert same == (net.predicts == "v_prediction")


def test_one_batched_call_is_the_pair_with_the_empty_prompt(saved):
    net = open_pipeline(saved[0], bf16=False).network
    z, t, states = noise(), torch.tensor([300, 900]), torch.randn(2, LENGTH, 16)
    v_cond, v_uncond = guided_pair(net, z, t, states, net.null)
    assert torch.allclose(v_cond, net(z, t, states), atol=1e-5)
    assert torch.allclose(v_uncond, net(z, t, net.null.expand_as(states)), atol=1e-5)


def test_all_of_distillation_runs_and_the_student_is_a_plain_pipeline(saved, runs):
    """Stage one and halving 8 -> 4 by the functions of pixel space; then diffusers alone draws our picture."""
    folder, pipe = saved
    model = open_pipeline(folder, bf16=False)
    data = Latents(noise(8, 3), say(drawn_attributes(8, 0)), model)
    student, run = model.network.student(), Run("one", {"folder": str(folder)}, TextToImage)
    finish(student, distill_guidance(student, model.network, data, SHORT, run), run, "stage one")
    last = halve_once(Keyed(student, run.key), data, Halving(4, SHORT.with_seed(4))).net
    w, z_T = 2.0, noise(2, 5)
    ours = sample(denoise_student(last, model.states(PROMPTS), torch.full((2,), w)), z_T, 4, last.schedule)
    plain = StableDiffusionPipeline(
        vae=pipe.vae, text_encoder=pipe.text_encoder, tokenizer=pipe.tokenizer, unet=last.module,
        scheduler=scheduler("v_prediction"), safety_checker=None, feature_extractor=None, requires_safety_checker=False,
    )  # fmt: skip
    reference = drawn_by(plain, 4, w, z_T)
    assert torch.allclose(ours, reference, atol=2e-4 * reference.abs().max().item())


def test_the_condition_is_dropped_for_the_empty_prompt(saved, runs):
    model = open_pipeline(saved[0], bf16=False)
    data, calls = Latents(noise(8, 3), say(drawn_attributes(8, 0)), model), []
    net = model.network
    net.module.register_forward_pre_hook(lambda _, inputs: calls.append(inputs[2]))
    net.module.requires_grad_(True)
    run = Run("dropped", {}, TextToImage)
    list(train_teacher(net, data, SHORT, run, drop=0.5))
    empty = torch.stack([(objects == net.null).flatten(1).all(1) for objects in calls])
    assert 0 < empty.sum() < empty.numel()


def test_halving_is_exact_on_a_grid_of_1000_that_its_steps_do_not_divide():
    """Two steps of 32 of the exact denoiser, and one of 16 with the target, meet, at rounded times too."""
    schedule = Schedule.from_scheduler(scheduler("epsilon"))
    oracle, z = Gaussian(0.3, 0.5, schedule), noise(4).double()
    fine, coarse = step_grid(32, 1000), step_grid(16, 1000)
    assert fine[::2] == coarse and any(1000 * i % 16 for i in range(16))
    for k in range(16):
        t, m, s = (torch.full((4,), fine[2 * k + i]) for i in range(3))
        x = halving_target(oracle, z, t, m, s, schedule)
        alpha, sigma = schedule(t, z)
        item = ddim_step(lambda z_t, _, x=x, a=alpha, b=sigma: (a * z_t - x) / b, z, t, s, schedule)
        two = trajectory(oracle, z, fine[2 * k : 2 * k + 3], schedule)[-1]
        assert torch.allclose(item, two, atol=1e-9)


def test_a_prompt_with_an_unknown_word_is_refused(saved):
    with pytest.raises(ValueError, match=r"'purpel' \(did you mean purple"):
        open_pipeline(saved[0]).states(["a purpel cone"])


def test_what_is_no_such_folder_is_named(tmp_path):
    with pytest.raises(ValueError, match="is no usable StableDiffusionPipeline"):
        open_pipeline(tmp_path)


def test_a_fingerprint_holds_all_that_makes_pictures(saved, tmp_path):
    folder, _ = saved
    first, names = open_pipeline(folder).fingerprint, ("unet", "text_encoder", "vae", "scheduler")
    assert open_pipeline(folder).fingerprint == first
    for name in names:
        other = tmp_path / name
        shutil.copytree(folder, other)
        model = open_pipeline(other)
        if name == "scheduler":
            path = other / "scheduler" / "scheduler_config.json"
            path.write_text(path.read_text().replace('"beta_end": 0.012', '"beta_end": 0.013'))
        else:
            part = getattr(model.pipe, name)
            with torch.no_grad():
                next(part.parameters()).add_(1)
            part.save_pretrained(other / name, safe_serialization=True)
        assert open_pipeline(other).fingerprint != first, name


def test_a_fingerprint_is_the_same_before_and_after_prompts_are_read(saved):
    first, read = open_pipeline(saved[0]), open_pipeline(saved[0])
    read.states(PROMPTS)
    assert read.fingerprint == first.fingerprint


def test_pictures_are_decoded_in_parts(saved, monkeypatch):
    model, z = open_pipeline(saved[0], bf16=False), noise(5)
    whole = model.network.decode(z)
    monkeypatch.setattr(pipeline, "_PIXELS", 2 * 8 * 8)
    calls = []
    monkeypatch.setattr(
        model.pipe.vae, "decode", lambda part, decode=model.pipe.vae.decode: calls.append(len(part)) or decode(part)
    )
    assert torch.allclose(model.network.decode(z), whole, atol=1e-5) and calls == [2, 2, 1]

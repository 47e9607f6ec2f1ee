"""The second paper's parts of a teacher that somebody brings: cut, trained, measured and written for diffusers."""

import pytest
import torch
from diffusers import AutoencoderTiny, StableDiffusionPipeline, UNet2DConditionModel
from tiny_pipelines import tiny_pipeline, tiny_stable_diffusion

from distill_lib import profiles
from distill_lib.diffusion.samplers import sample
from distill_lib.engine import store
from distill_lib.experiments import foreign
from distill_lib.experiments.one_step import Trials
from distill_lib.experiments.sdxs_task import sdxs_task
from distill_lib.measure.compression import Probe, decoder_rows, unet_rows
from distill_lib.measure.metrics import Reader
from distill_lib.measure.prompts import Judges
from distill_lib.measure.readers.extractor import Extractor
from distill_lib.networks.adapter import denoise_pair
from distill_lib.networks.autoencoders import TinyDecode
from distill_lib.networks.paper_cut import paper_cut
from distill_lib.networks.pruning import SDXS_512, SDXS_1024, pruned_config
from distill_lib.networks.unet import config_of
from distill_lib.run.notebooks import LEFT_OUT, for_parameters, read
from distill_lib.run.true_scale import SD_21, SDXL
from distill_lib.sdxs.one_step import one_step
from distill_lib.teachers.latents import decoded
from distill_lib.worlds.captions import drawn_attributes, say


def some_judges():
    return Judges(Reader(Extractor(6, 3, 64).eval()), lambda image, prompts: torch.zeros(len(prompts)))


def file_of_prompts(folder):
    path = folder / "prompts.txt"
    path.write_text("\n".join(say(drawn_attributes(24, 0))))
    return str(path)


def saved(tmp_path, predicts, grid, **options):
    tiny_stable_diffusion(predicts, grid).save_pretrained(tmp_path / "model", safe_serialization=True, **options)
    return str(tmp_path / "model")


FOLDERS = [
    ("epsilon", "PNDMScheduler", {"max_shard_size": "40KB"}),
    ("v_prediction", "DDIMScheduler", {"variant": "fp16"}),
    ("epsilon", "EulerDiscreteScheduler", {}),
]


@pytest.fixture(scope="module", params=FOLDERS, ids=lambda case: f"{case[0]}, {case[1]}")
def job(request, tmp_path_factory):
    """Another teacher at the profile smoke: of either prediction, three schedulers, in shards and as a variant."""
    place, (predicts, grid, options) = tmp_path_factory.mktemp("own"), request.param
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ACCELERATE_USE_CPU", "true")
        patch.setattr(store, "RUNS", place / "runs")
        folder = saved(place, predicts, grid, **options)
        yield sdxs_task(profiles.load("smoke"), 0, folder, file_of_prompts(place), judges=some_judges())


def test_the_cut_of_the_paper_is_told_by_the_family_of_a_network():
    with torch.device("meta"):
        large, xl = UNet2DConditionModel(**SD_21), UNet2DConditionModel(**SDXL)
        assert paper_cut(large) == SDXS_512 and paper_cut(xl) == SDXS_1024
        small = UNet2DConditionModel(**pruned_config(config_of(large), SDXS_512))
    assert paper_cut(small).middle == "kept"  # gone already
    with pytest.raises(ValueError, match="leaves none that reads the prompt; three stages are due"):
        paper_cut(tiny_pipeline("epsilon").unet)


def test_cells_that_need_our_world_say_so_and_do_nothing_else_for_another_teacher():
    for name in ("09_tiny_decoder", "10_tiny_unet", "11_one_step", "12_lora", "13_controlnet", "14_speed"):
        own, other = (for_parameters(name, {"teacher": teacher}) for teacher in ("", "somebody/model"))
        assert own == read(name)
        cells = list(zip(own.cells, other.cells, strict=True))
        tagged = [LEFT_OUT.keys() & set(a.metadata.get("tags", [])) for a, _ in cells]
        assert [a.source != b.source for a, b in cells] == [bool(tags) for tags in tagged]
        left_out = [b.source for (_, b), tags in zip(cells, tagged, strict=True) if tags]
        assert left_out and all(line.startswith("print('Left out: this cell ") for line in left_out)
    other = for_parameters("13_controlnet", {"teacher": "somebody/model"})
    assert for_parameters("13_controlnet", {"control": "folder"}) == other


def test_what_cannot_be_cut_is_refused_before_anything_is_drawn(tmp_path, runs, monkeypatch):
    monkeypatch.setattr(foreign, "teacher_pairs", None)
    tiny_pipeline("epsilon").save_pretrained(tmp_path / "flat", safe_serialization=True)
    with pytest.raises(ValueError, match="leaves none that reads the prompt"):
        sdxs_task(profiles.load("smoke"), 0, str(tmp_path / "flat"), file_of_prompts(tmp_path), judges=some_judges())


def test_rows_count_the_prompts_that_are_measured_and_not_those_that_a_part_would_take():
    settings = profiles.load("quick")
    measured = [f"prompt {i}" for i in range(settings.small.prompts - 4)]
    teacher = foreign.Foreign(settings.latent, 0, None, some_judges(), measured, ["another"])
    for wanted, available in ((5, 5), (settings.small.prompts, len(measured))):
        benchmark = teacher.benchmark(wanted)
        assert benchmark.n == len(benchmark.prompts) == available


def drawn_by(folder, z_T, prompts, n, scale, output="latent"):
    """Latents or pictures by diffusers alone, from a folder."""
    plain = StableDiffusionPipeline.from_pretrained(folder, safety_checker=None)
    plain.set_progress_bar_config(disable=True)
    options = {"num_inference_steps": n, "guidance_scale": scale, "output_type": output}
    return plain(prompts, latents=z_T.clone(), **options).images


def test_a_cut_network_of_any_teacher_is_trained_measured_and_opened_by_diffusers(job):
    net = job.model.network
    trained = job.small_unet()
    assert trained.key == job.small_unet().key != job.small_unet(lambda_f=0.0).key
    small = job.finished_unet()
    assert small.predicts == net.predicts and small.module.mid_block is None
    probe = Probe(job.held, [500, 1000], 0)
    rows = probe.prompt_rows("large") + unet_rows(job.benchmark, probe, "small", small, 2, "dpm++", 1)
    assert {"fid_teacher", "paired", "clip", "sharpness", "prediction_error"} <= {row["metric"] for row in rows}
    assert "fid" not in {row["metric"] for row in rows}
    z_T, states = torch.randn(1, *net.shape), job.benchmark.states[:1]
    ours = sample(denoise_pair(small.exact(), states, 1.5), z_T, 4, net.schedule)
    reference = drawn_by(job.export(small, "small", 4), z_T, job.benchmark.prompts[:1], 4, 2.5)
    assert torch.allclose(ours, reference, atol=2e-4 * reference.abs().max().item())


def test_a_tiny_decoder_of_any_teacher_is_measured_and_takes_the_place_of_its_autoencoder(job):
    live = {name: job.tiny_decoder(**choice) for name, choice in job.decoders.items()}
    assert list(live) == ["eq. 5", "squares"] and job.factor == 8
    assert sum(p.numel() for p in live["eq. 5"].decoder.parameters()) == 1_222_531  # as the paper counts
    tiny, truth = job.finished_decoder(), decoded(job.held)
    rows, image = decoder_rows(job.benchmark, job.held, TinyDecode(tiny), tiny.decoder, truth, "eq. 5", 1, job.factor)
    assert image.shape == truth.shape == (8, 3, 64, 64)
    assert {"psnr", "psnr_coarse", "sharpness_kept", "fid_teacher", "clip"} <= {row["metric"] for row in rows}
    opened = AutoencoderTiny.from_pretrained(job.export_decoder(tiny))
    ours, reference = (TinyDecode(net, bf16=False)(job.held.x[:1].float()) for net in (tiny, opened))
    assert torch.allclose(ours, reference, atol=1e-5)
    assert torch.allclose(opened.decode(job.held.x[:1].float()).sample, reference, atol=1e-5)


def test_any_teacher_is_taught_to_draw_in_one_step_and_its_student_opens(job):
    trials = Trials.of(job)
    warm = trials.by_loss("matching")
    assert trials.losses == ("square", "matching") and trials.first.decode.tiny.config.latent_channels == 4
    trained = trials.by_scores(warm)
    rows = trials.rows({"matching": warm, "scores": trained}) + trials.bounds()
    assert {row["metric"] for row in rows} == {"fid_teacher", "paired", "clip", "sharpness"}
    assert {row["nfe"] for row in rows if row["method"] == "scores"} == {1}
    student, folder = job.one_step(trained)
    z_T, _, label = trials.pairs.batch(torch.arange(1))
    exact = student.like(student.module, bf16=False, decode=TinyDecode(student.decode.tiny, bf16=False))
    ours = (exact.decode(one_step(exact, z_T, label, exact.schedule)) / 2 + 0.5).clamp(0, 1)
    reference = drawn_by(folder, z_T, trials.pairs.prompts[:1], 1, 1.0, "pt")
    assert ours.shape == (1, 3, 64, 64) and torch.allclose(ours, reference, atol=1e-3)

"""A LoRA and a ControlNet that somebody brings with a teacher: taught to its student of one step, or refused."""

import pytest
import torch
from diffusers import (
    ControlNetModel,
    StableDiffusionControlNetPipeline,
    StableDiffusionPipeline,
    StableDiffusionXLPipeline,
)
from safetensors.torch import save_file
from test_any_teacher import file_of_prompts, some_judges
from tiny_pipelines import tiny_pipeline, tiny_sdxl, tiny_stable_diffusion

from distill_lib import profiles
from distill_lib.diffusion.noise import normal
from distill_lib.experiments import foreign
from distill_lib.experiments.own_control import own_control
from distill_lib.experiments.own_style import own_style
from distill_lib.networks import pipeline
from distill_lib.networks.adapter import append_extra
from distill_lib.networks.autoencoders import TinyDecode
from distill_lib.networks.controlnet import build_control
from distill_lib.networks.lora import lora_of, merged, with_adapter
from distill_lib.networks.lora_files import load_lora, save_lora
from distill_lib.networks.sdxl import open_teacher
from distill_lib.sdxs.one_step import one_step
from distill_lib.worlds.maps import as_picture


@pytest.fixture
def place(tmp_path):
    """A folder with a teacher, prompts, and what the tests add."""
    tiny_stable_diffusion("epsilon").save_pretrained(tmp_path / "model", safe_serialization=True)
    file_of_prompts(tmp_path)
    return tmp_path


def drawn_lora(folder):
    """A LoRA of the network of a folder whose factors are all random."""
    known = lora_of(with_adapter(open_teacher(folder).network, 2, 0).module)
    return {name: normal(0, name, 0, torch.arange(len(v)), v.shape[1:]) / 10 for name, v in known.items()}


def as_kohya(path, lora):
    """The same LoRA as kohya writes it: underscores, alpha of half the rank and twice the factor."""
    ends, tensors = {".lora_A.weight": ".lora_down.weight", ".lora_B.weight": ".lora_up.weight"}, {}
    for name, value in lora.items():
        layer, end = name[: -len(".lora_A.weight")], name[-len(".lora_A.weight") :]
        stem = f"lora_unet_{layer.replace('.', '_')}"
        tensors[stem + ends[end]] = (2 * value if end == ".lora_B.weight" else value).contiguous()
        tensors[f"{stem}.alpha"] = torch.tensor(1.0)  # of rank 2
    save_file(tensors, path)


def given(place, **others):
    return {"teacher": str(place / "model"), "prompts": str(place / "prompts.txt"), "judges": some_judges()} | others


def test_a_student_learns_the_lora_of_a_file_and_diffusers_draws_with_it(place, runs):
    lora = drawn_lora(place / "model")
    save_lora(place / "peft", lora)
    as_kohya(place / "style by kohya.safetensors", lora)
    own = own_style(profiles.load("smoke"), 0, **given(place, lora=str(place / "peft")))
    kohya = own_style(profiles.load("smoke"), 0, **given(place, lora=str(place / "style by kohya.safetensors")))
    assert own.suffix != kohya.suffix and own.suffix.startswith(own.job.suffix)
    change = [dict(model.styled.network.module.named_parameters()) for model in (own, kohya)]
    assert all(torch.allclose(change[0][name], value, atol=2e-3) for name, value in change[1].items())  # half precision
    trained = own.trained()
    rows = own.rows(trained)
    assert {row["metric"] for row in rows} == {"fid_teacher", "paired", "clip", "sharpness"}
    assert {row["method"] for row in rows} == {"no LoRA", "one-step LoRA", "teacher, tiny decoder"}
    whole, folder = own.export(trained)
    plain = StableDiffusionPipeline.from_pretrained(whole, safety_checker=None)
    plain.load_lora_weights(folder)
    plain.set_progress_bar_config(disable=True)
    z_T, _, label = own.pairs.batch(torch.arange(1))
    options = {"num_inference_steps": 1, "guidance_scale": 1.0, "latents": z_T, "output_type": "pt"}
    reference = plain(own.pairs.prompts[:1], **options).images
    net = merged(own.student, (load_lora(folder), 1.0))  # as the file has it, in half precision
    exact = net.like(net.module, bf16=False, decode=TinyDecode(own.student.decode.tiny, bf16=False))
    ours = exact.decode(one_step(exact, z_T, label, exact.schedule))
    assert torch.allclose((ours / 2 + 0.5).clamp(0, 1), reference, atol=1e-3)
    assert all(torch.allclose(v, trained.lora[k], atol=2e-3) for k, v in load_lora(folder).items())


def test_a_student_of_xl_learns_a_lora_and_diffusers_draws_with_it(place, runs):
    tiny_sdxl().save_pretrained(place / "model", safe_serialization=True)
    save_lora(place / "lora", drawn_lora(place / "model"))
    own = own_style(profiles.load("smoke"), 0, **given(place, lora=str(place / "lora")))
    trained = own.trained()
    assert {row["metric"] for row in own.rows(trained)} == {"fid_teacher", "paired", "clip", "sharpness"}
    whole, folder = own.export(trained)
    plain = StableDiffusionXLPipeline.from_pretrained(whole)
    plain.load_lora_weights(folder)
    plain.set_progress_bar_config(disable=True)
    z_T, _, label = own.pairs.batch(torch.arange(1))
    options = {"num_inference_steps": 1, "guidance_scale": 1.0, "latents": z_T, "output_type": "pt"}
    reference = plain(own.pairs.prompts[:1], height=32, width=32, **options).images
    exact = merged(own.student, (load_lora(folder), 1.0)).exact()
    ours = own.student.decode.tiny.decoder(one_step(exact, z_T, label, exact.schedule))
    assert torch.allclose((ours / 2 + 0.5).clamp(0, 1), reference, atol=1e-3)


def test_names_of_another_code_are_refused(place):
    layer = "lora_unet_input_blocks_4_1_proj_in"
    save_file({f"{layer}.lora_down.weight": torch.ones(1, 2)}, place / "xl.safetensors")
    with pytest.raises(ValueError, match=f"it names layers as Stability's own code does \\({layer}.* take a file with"):
        load_lora(place / "xl.safetensors")


def test_a_teacher_is_opened_once(place, runs, monkeypatch):
    opened, read = [], pipeline.read_pipeline
    monkeypatch.setattr(pipeline, "read_pipeline", lambda source: opened.append(source) or read(source))
    save_lora(place / "lora", drawn_lora(place / "model"))
    folder = saved_control(place / "control", place / "model")
    for make, part in ((own_style, {"lora": str(place / "lora")}), (own_control, {"control": folder})):
        opened.clear()
        make(profiles.load("smoke"), 0, **given(place, **part))
        assert len(opened) == 1


def test_a_lora_of_another_base_is_refused_before_anything_is_drawn(place, runs, monkeypatch):
    monkeypatch.setattr(foreign, "teacher_pairs", None)
    tiny_pipeline("epsilon").save_pretrained(place / "other", safe_serialization=True)
    save_lora(place / "lora", drawn_lora(place / "other"))
    assert load_lora(place / "lora").keys() == load_lora(place / "lora" / "pytorch_lora_weights.safetensors").keys()
    with pytest.raises(ValueError, match=r"do not fit: this LoRA was made for another network: .* do not fit"):
        own_style(profiles.load("smoke"), 0, **given(place, lora=str(place / "lora")))
    with pytest.raises(ValueError, match="needs lora=, a LoRA file that was trained on it"):
        own_style(profiles.load("smoke"), 0, **given(place, lora=""))
    with pytest.raises(ValueError, match=r"lora='.*lora' needs teacher=, the folder or hub id of the model"):
        own_style(profiles.load("smoke"), 0, **given(place, lora=str(place / "lora"), teacher="", prompts=""))


def saved_control(folder, model, factor=8):
    control = build_control(open_teacher(model).network.module, factor)
    torch.nn.init.normal_(control.controlnet_cond_embedding.conv_out.weight, std=0.1)
    for layer in control.controlnet_down_blocks:
        torch.nn.init.normal_(layer.weight, std=0.1)
    control.save_pretrained(folder, safe_serialization=True)
    return str(folder)


def test_a_student_learns_the_controlnet_of_a_folder_and_diffusers_draws_with_it(place, runs):
    folder = saved_control(place / "control", place / "model")
    own = own_control(profiles.load("smoke"), 0, **given(place, control=folder))
    trained = own.trained()
    images = own.pictures(trained)
    assert list(images) == ["wanted", "no control", "one step", "teacher"] and own.maps.shape == (8, 1, 64, 64)
    rows = own.rows(images)
    assert {(row["method"], row["metric"]) for row in rows} >= {("one step", "edge_f1"), ("teacher", "clip")}
    whole, beside = own.export(trained)
    plain = StableDiffusionControlNetPipeline.from_pretrained(
        whole, controlnet=ControlNetModel.from_pretrained(beside), safety_checker=None
    )
    plain.set_progress_bar_config(disable=True)
    z_T, prompts = torch.randn(1, 4, 8, 8), own.job.benchmark.prompts[:1]
    options = {"num_inference_steps": 1, "guidance_scale": 1.0, "latents": z_T.clone(), "output_type": "pt"}
    reference = plain(prompts, as_picture(own.maps[:1]).float() / 255, **options).images
    decode = TinyDecode(own.student.decode.tiny, bf16=False)
    exact = trained.like(trained.module, bf16=False, decode=decode)
    label = append_extra(own.job.model.states(prompts), own.maps[:1])
    ours = exact.decode(one_step(exact, z_T, label, exact.schedule))
    assert torch.allclose((ours / 2 + 0.5).clamp(0, 1), reference, atol=1e-3)


def test_a_controlnet_of_another_base_is_refused_before_anything_is_drawn(place, runs, monkeypatch):
    monkeypatch.setattr(foreign, "teacher_pairs", None)
    tiny_pipeline("epsilon").save_pretrained(place / "other", safe_serialization=True)
    folder = saved_control(place / "control", place / "other", 2)
    with pytest.raises(ValueError, match=r"of no use to .*: it was made for a U-Net with block_out_channels=\[16"):
        own_control(profiles.load("smoke"), 0, **given(place, control=folder))
    with pytest.raises(ValueError, match=r"is of no use to .*: there is no folder"):
        own_control(profiles.load("smoke"), 0, **given(place, control=str(place / "nothing")))
    tiny_sdxl().save_pretrained(place / "xl", safe_serialization=True)
    with pytest.raises(ValueError, match=r"of no use to '.*xl': of Stable Diffusion XL no ControlNet is taught here"):
        own_control(profiles.load("smoke"), 0, **given(place, control=folder, teacher=str(place / "xl")))
    with pytest.raises(ValueError, match="needs control=, the folder of a ControlNet for edges"):
        own_control(profiles.load("smoke"), 0, **given(place, control=""))

"""Folders of other people: whole they open, in whatever form; else one sentence names the part, the value, the cure."""

import json
import pickle
import re
import shutil
from pathlib import Path

import pytest
import torch
from diffusers import AutoencoderKL, StableDiffusionPipeline, UNet2DConditionModel
from safetensors.torch import load_file, save_file
from tiny_pipelines import Poison, tiny_pipeline
from transformers import CLIPTextConfig, CLIPTextModel

from distill_lib.networks import adapter, folders
from distill_lib.networks.controlnet import build_control, load_control
from distill_lib.networks.pipeline import open_pipeline
from distill_lib.networks.unet import load_unet
from distill_lib.shipped.pretrained import _tiny

WEIGHTS = {
    "unet": "unet/diffusion_pytorch_model.safetensors",
    "vae": "vae/diffusion_pytorch_model.safetensors",
    "text_encoder": "text_encoder/model.safetensors",
}


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole")
    tiny_pipeline("epsilon").save_pretrained(folder, safe_serialization=True)
    return folder


@pytest.fixture
def folder(whole, tmp_path):
    return Path(shutil.copytree(whole, tmp_path / "model"))


def edit(path, **changed):
    path.write_text(json.dumps(json.loads(path.read_text()) | changed))


def rewrite(path, change):
    save_file(change(load_file(path)), path, {"format": "pt"})


def refused(folder, words):
    """That opening ends in one sentence which holds `words`."""
    with pytest.raises(ValueError, match=words) as error:
        open_pipeline(folder)
    message = str(error.value)
    assert "\n" not in message and len(message) < 700 and message.startswith(f"teacher={str(folder)!r} is no usable"), (
        message
    )


# ------------------------------------------------------------------------------------------- grids


def test_an_epsilon_network_on_a_grid_that_ends_in_noise_is_refused_and_a_v_network_is_not(folder):
    edit(folder / "scheduler/scheduler_config.json", rescale_betas_zero_snr=True)
    refused(folder, r"predicts epsilon on a grid that ends at alpha=0 .* at least 0.001 is needed, or a network that")
    edit(folder / "scheduler/scheduler_config.json", prediction_type="v_prediction")
    assert open_pipeline(folder).network.schedule.alpha[-1] == 0
    edit(folder / "scheduler/scheduler_config.json", prediction_type="sample")
    refused(folder, "'sample' is not supported; v_prediction and epsilon are")


@pytest.mark.parametrize(
    "betas, result",
    [
        ([0.1] * 9 + [1.0], "grid that ends at alpha=0 "),
        ([0.1, float("nan"), 0.1], "alpha is nan at step 2, and it must fall"),
        ([0.1, 1.5, 0.1], "alpha is nan at step 2"),
        ([0.1, -0.1, 0.1], "at step 2, and it must fall from 1 at every step; correct the betas"),
        ([0.0, 0.1], "alpha is 1 at step 1"),
    ],
)
def test_betas_that_make_no_grid_are_refused(folder, betas, result):
    edit(folder / "scheduler/scheduler_config.json", trained_betas=betas, num_train_timesteps=len(betas))
    refused(folder, result)


def test_a_scheduler_without_betas_is_refused(folder):
    edit(folder / "scheduler/scheduler_config.json", _class_name="FlowMatchEulerDiscreteScheduler")
    refused(folder, "scheduler: it is a FlowMatchEulerDiscreteScheduler, which has no betas")
    edit(folder / "scheduler/scheduler_config.json", _class_name="Thing")
    refused(folder, "scheduler: 'Thing' is no scheduler of diffusers")


# ------------------------------------------------------------------------------------------- weights


@pytest.mark.parametrize("part", WEIGHTS)
def test_missing_weights_are_never_made_up(folder, part):
    names = sorted(load_file(folder / WEIGHTS[part]))[3:5]
    rewrite(folder / WEIGHTS[part], lambda have: {k: v for k, v in have.items() if k not in names})
    refused(folder, rf"{part}: its file lacks weights \({names[0]}, {names[1]}\), and none are made up")


@pytest.mark.parametrize("part", WEIGHTS)
def test_weights_that_the_network_has_no_place_for_are_named(folder, part):
    rewrite(folder / WEIGHTS[part], lambda have: have | {"more.weight": torch.zeros(2)})
    refused(folder, rf"{part}: its file holds weights that its config.json has no place for \(more.weight\)")


@pytest.mark.parametrize("part", WEIGHTS)
def test_a_compiled_networks_names_are_told_as_such(folder, part):
    rewrite(folder / WEIGHTS[part], lambda have: {f"_orig_mod.{k}": v for k, v in have.items()})
    refused(folder, rf"{part}: its weights were saved from a compiled network \(_orig_mod\.")


@pytest.mark.parametrize("part", WEIGHTS)
def test_weights_of_another_shape_and_weights_that_are_not_finite_are_refused(folder, part):
    name = next(k for k, v in load_file(folder / WEIGHTS[part]).items() if v.ndim == 2)
    whole = (folder / WEIGHTS[part]).read_bytes()
    rewrite(folder / WEIGHTS[part], lambda have: have | {name: torch.zeros(3, 3)})
    refused(folder, f"{part}: ")
    (folder / WEIGHTS[part]).write_bytes(whole)
    rewrite(folder / WEIGHTS[part], lambda have: have | {name: have[name] * float("nan")})
    refused(folder, rf"{part}: weights are not finite \({name}\)")


def test_weights_are_checked_wherever_a_network_is_loaded(whole, folder, tmp_path):
    rewrite(folder / WEIGHTS["unet"], lambda have: dict(list(have.items())[1:]))
    with pytest.raises(ValueError, match=r"no usable network in .*lacks weights .*make teachers"):
        load_unet(folder / "unet")
    build_control(load_unet(whole / "unet"), 2).save_pretrained(tmp_path / "control", safe_serialization=True)
    rewrite(tmp_path / "control/diffusion_pytorch_model.safetensors", lambda have: dict(list(have.items())[1:]))
    with pytest.raises(ValueError, match=r"no usable ControlNet in .*lacks weights"):
        load_control(tmp_path / "control")
    with pytest.raises(ValueError, match="no usable decoder in"):
        _tiny(folder / "vae", "x")


@pytest.mark.parametrize("files", [["tokenizer.json"], ["vocab.json"], ["merges.txt"]])
def test_a_tokenizer_without_its_files_is_refused(folder, files):
    place = folder / "tokenizer"
    for path in place.iterdir():
        if path.name != "tokenizer_config.json":
            path.unlink()
    if files != ["tokenizer.json"]:
        (place / files[0]).write_text("{}")
    refused(folder, "tokenizer: it has neither tokenizer.json nor vocab.json with merges.txt")


# ------------------------------------------------------------------------------------------- forms that open


def same(a, b):
    return all(torch.equal(x, y) for x, y in zip(a.state_dict().values(), b.state_dict().values(), strict=True))


@pytest.mark.parametrize("sharded", [False, True])
def test_a_folder_with_only_one_variant_opens(whole, tmp_path, sharded):
    size = {"max_shard_size": "60KB"} if sharded else {}
    tiny_pipeline("epsilon").to(torch.float16).save_pretrained(
        tmp_path / "half", safe_serialization=True, variant="fp16", **size
    )
    names = [path.name for path in (tmp_path / "half").rglob("*.safetensors*")]
    assert all("fp16" in name for name in names) and any("index" in name for name in names) == sharded
    half, plain = open_pipeline(tmp_path / "half"), open_pipeline(whole)
    for part in WEIGHTS:
        assert same(getattr(half.pipe, part), getattr(plain.pipe, part).half().float()), part


def test_several_variants_and_no_plain_file_are_refused(folder):
    path = folder / WEIGHTS["unet"]
    for kind in ("fp16", "ema"):
        shutil.copy(path, path.with_name(f"diffusion_pytorch_model.{kind}.safetensors"))
    open_pipeline(folder)
    path.unlink()
    refused(folder, "unet: it has weights as ema, fp16 and no diffusion_pytorch_model.safetensors; leave one of them")


def test_shards_open_and_a_lost_one_is_named(tmp_path):
    tiny_pipeline("epsilon").save_pretrained(tmp_path, safe_serialization=True, max_shard_size="60KB")
    open_pipeline(tmp_path)
    lost = sorted((tmp_path / "unet").glob("*-of-*.safetensors"))[1]
    lost.unlink()
    refused(tmp_path, f"unet: its .* names '{lost.name}', which is not there; fetch the missing file")


def test_a_tokenizer_without_a_limit_gets_the_text_encoders(folder, whole):
    edit(folder / "tokenizer/tokenizer_config.json", model_max_length=10**30)
    model = open_pipeline(folder)
    assert model.pipe.tokenizer.model_max_length == 24
    assert torch.equal(
        model.states(["a red cube left of a blue cone"]),
        open_pipeline(whole).states(["a red cube left of a blue cone"]),
    )


def test_the_hubs_cache_opens_by_its_links(whole, tmp_path):
    entry = tmp_path / "models--somebody--tiny"
    shutil.copytree(whole, entry / "blobs")
    for path in (entry / "blobs").rglob("*"):
        if path.is_file():
            link = entry / "snapshots" / "abc" / path.relative_to(entry / "blobs")
            link.parent.mkdir(parents=True, exist_ok=True)
            link.symlink_to(path)
    open_pipeline(entry / "snapshots" / "abc")


# ------------------------------------------------------------------------------------------- shapes


def put(folder, part, net):
    shutil.rmtree(folder / part)
    net.save_pretrained(folder / part, safe_serialization=True)


def unet_like(folder, **changed):
    config = {k: v for k, v in UNet2DConditionModel.load_config(folder / "unet").items() if not k.startswith("_")}
    return UNet2DConditionModel(**config | changed)


@pytest.mark.parametrize(
    "changed, message",
    [
        ({"in_channels": 9}, "unet: in_channels=9, where the vae's latents have 4 channels; .*no inpainting"),
        ({"out_channels": 8}, "unet: out_channels=8, where the vae's latents have 4 channels"),
        ({"cross_attention_dim": 24}, "unet: cross_attention_dim=24, where the text encoder's states have 16 numbers"),
        ({"time_cond_proj_dim": 8}, "unet: time_cond_proj_dim=8 marks a student conditioned on w; name its teacher"),
        ({"sample_size": None}, "unet: sample_size=None; a whole number from 1 to 256 is due"),
        ({"sample_size": [4, 8]}, r"unet: sample_size=\[4, 8\]"),
        ({"num_class_embeds": 3}, "unet: num_class_embeds=3 asks for more than time and text"),
        ({"addition_embed_type": "text", "encoder_hid_dim": 16}, "unet: addition_embed_type=text asks for more"),
    ],
)  # fmt: skip
def test_a_unet_of_another_shape_is_refused_before_anything_is_drawn(folder, changed, message):
    put(folder, "unet", unet_like(folder, **changed))
    refused(folder, message)


def test_a_vae_of_other_latents_is_refused(folder):
    config = {k: v for k, v in AutoencoderKL.load_config(folder / "vae").items() if not k.startswith("_")}
    put(folder, "vae", AutoencoderKL(**config | {"latent_channels": 16}))
    refused(folder, "unet: in_channels=4, where the vae's latents have 16 channels")
    for changed, message in (
        ({"scaling_factor": 0.0}, "scaling_factor=0.0; a"),
        ({"shift_factor": 0.1}, "shift_factor=0.1"),
    ):
        put(folder, "vae", AutoencoderKL(**config | changed))
        refused(folder, f"vae: {message}")


def test_a_tokenizer_of_another_text_encoder_is_refused(folder):
    config = CLIPTextConfig.from_pretrained(folder / "text_encoder")
    config.vocab_size = 50
    config.bos_token_id, config.eos_token_id = 48, 49
    put(folder, "text_encoder", CLIPTextModel(config))
    refused(folder, "tokenizer: it has 120 entries, where the text encoder knows 50")


@pytest.mark.parametrize(
    "changed, message",
    [
        ({"_class_name": "StableDiffusionXLPipeline"}, "it is a StableDiffusionXLPipeline; only a"),
        ({"text_encoder_2": ["transformers", "CLIPTextModel"]}, "it has a part text_encoder_2, which"),
        ({"vae": None}, "its model_index.json names no vae"),
        ({"vae": ["diffusers", "AutoencoderDC"]}, "vae: it is diffusers.AutoencoderDC; only AutoencoderKL or Auto"),
    ],
)  # fmt: skip
def test_another_kind_of_pipeline_is_refused(folder, changed, message):
    edit(folder / "model_index.json", **changed)
    refused(folder, message)


def test_a_hub_id_that_cannot_be_had_is_one_sentence(monkeypatch):
    def away(*_, **__):
        raise OSError("no network")

    monkeypatch.setattr(StableDiffusionPipeline, "download", away)
    refused("somebody/model", r"not in the hub's cache, and the hub did not give it \(no network\); fetch it where")
    monkeypatch.setattr(folders, "StableDiffusionPipeline", None)  # what is no hub id asks nobody
    refused("./models/there", "there is no such folder, and it has not the form of a hub id, owner/name")


# ------------------------------------------------------------------------------------------- doors


@pytest.mark.parametrize("part", WEIGHTS)
@pytest.mark.parametrize("end", [".bin", ".pt", ".ckpt"])
def test_a_pickle_is_never_read(folder, tmp_path, part, end):
    path, mark = folder / WEIGHTS[part], tmp_path / "mark"
    path.with_name(("pytorch_model" if part == "text_encoder" else "diffusion_pytorch_model") + end).write_bytes(
        pickle.dumps(Poison(mark))
    )
    open_pipeline(folder)
    path.unlink()
    refused(folder, rf"{part}: it has .*\{end} and no .*; a pickle can run code and is never read")
    path.write_bytes(pickle.dumps(Poison(mark)))  # by another name
    refused(folder, f"{part}: ")
    assert not mark.exists()


def test_code_of_a_folder_is_never_run(folder, tmp_path):
    mark = tmp_path / "mark"
    for place in (folder, *(folder / part for part in ("unet", "vae", "text_encoder", "tokenizer", "scheduler"))):
        (place / "evil.py").write_text(f"open({str(mark)!r}, 'w')\nclass Thing: pass\n")
    open_pipeline(folder)
    index = json.loads((folder / "model_index.json").read_text())
    for part in ("unet", "vae", "text_encoder", "tokenizer"):
        edit(folder / "model_index.json", **{part: ["evil", "Thing"]})
        refused(folder, rf"{part}: it is evil.Thing; only .* can be read, and no code of a folder is run")
        edit(folder / "model_index.json", **index)
    edit(folder / "model_index.json", _class_name=["evil", "Thing"])
    refused(folder, "only a StableDiffusionPipeline")
    edit(folder / "model_index.json", **index)
    for name in ("unet/config.json", "text_encoder/config.json", "tokenizer/tokenizer_config.json"):
        before = (folder / name).read_text()
        edit(folder / name, auto_map={"AutoModel": "evil.Thing", "AutoTokenizer": ["evil.Thing", None]})
        refused(folder, r"names code to be run \(auto_map\)")
        (folder / name).write_text(before)
    edit(folder / "text_encoder/config.json", _attn_implementation="somebody/kernel")
    refused(folder, "_attn_implementation='somebody/kernel'; eager and sdpa are allowed")
    assert not mark.exists()


def test_no_path_leaves_the_folder(whole, tmp_path):
    folder = tmp_path / "model"
    tiny_pipeline("epsilon").save_pretrained(folder, safe_serialization=True, max_shard_size="60KB")
    index = folder / "unet/diffusion_pytorch_model.safetensors.index.json"
    before = json.loads(index.read_text())
    shutil.copy(whole / WEIGHTS["unet"], tmp_path / "other.safetensors")
    for name in ("../../other.safetensors", str(tmp_path / "other.safetensors"), "evil.bin"):
        edit(index, weight_map=dict.fromkeys(before["weight_map"], name))
        refused(folder, re.escape(f"names {name!r}; only .safetensors files beside it are read"))
    edit(index, weight_map=[])
    refused(folder, "unet: its .* has no weight_map")
    shutil.rmtree(folder)
    shutil.copytree(whole, folder)
    for name in (WEIGHTS["vae"], "unet/config.json"):
        (tmp_path / "kept").write_bytes((folder / name).read_bytes())
        (folder / name).unlink()
        (folder / name).symlink_to(tmp_path / "kept")
        refused(folder, "is a link out of .*; copy it there")
        (folder / name).unlink()
        shutil.copy(tmp_path / "kept", folder / name)
    shutil.move(folder / "vae", tmp_path / "vae")
    (folder / "vae").symlink_to(tmp_path / "vae")
    refused(folder, "vae: vae is a link out of")


def test_files_that_point_elsewhere_are_refused(folder):
    edit(folder / "tokenizer/tokenizer_config.json", vocab_file="/etc/passwd")
    refused(
        folder, "tokenizer: its tokenizer_config.json names a file by vocab_file, and only files beside it are read"
    )
    (folder / "text_encoder/adapter_config.json").write_text('{"base_model_name_or_path": "somebody/else"}')
    edit(folder / "tokenizer/tokenizer_config.json", vocab_file=None)
    refused(folder, "text_encoder: it holds an adapter")


def test_a_controlnets_folder_has_the_same_doors(whole, tmp_path):
    control, mark = tmp_path / "control", tmp_path / "mark"
    build_control(load_unet(whole / "unet"), 2).save_pretrained(control, safe_serialization=True, max_shard_size="60KB")
    index, config = control / "diffusion_pytorch_model.safetensors.index.json", control / "config.json"
    good = {path: path.read_text() for path in (index, config)}

    def no(words):
        with pytest.raises(ValueError, match=f"no usable ControlNet in .*{words}.*; make it with") as error:
            load_control(control)
        assert "\n" not in str(error.value)

    names = json.loads(good[index])["weight_map"]
    edit(index, weight_map=dict.fromkeys(names, "../../other.safetensors"))
    no("names '../../other.safetensors'; only .safetensors files beside it are read")
    index.write_text(good[index])
    edit(config, auto_map={"AutoModel": "evil.Thing"})
    no("names code to be run")
    config.write_text(good[config])
    load_control(control)
    for path in control.glob("*.safetensors*"):
        path.unlink()
    (control / "diffusion_pytorch_model.bin").write_bytes(pickle.dumps(Poison(mark)))
    no("has diffusion_pytorch_model.bin and no .*never read")
    assert not mark.exists()


def test_a_fingerprint_holds_the_tokenizer_and_the_settings(folder):
    first = open_pipeline(folder).fingerprint
    for name, changed in (("vae", {"scaling_factor": 0.4}), ("unet", {"norm_num_groups": 4})):
        before = (folder / name / "config.json").read_text()
        edit(folder / name / "config.json", **changed)
        assert open_pipeline(folder).fingerprint != first
        (folder / name / "config.json").write_text(before)
    edit(folder / "vae/config.json", _diffusers_version="0.0.1")
    assert open_pipeline(folder).fingerprint == first  # of another release, the same model
    words = json.loads((folder / "tokenizer/tokenizer.json").read_text())
    vocab = words["model"]["vocab"]
    vocab["red</w>"], vocab["blue</w>"] = vocab["blue</w>"], vocab["red</w>"]
    (folder / "tokenizer/tokenizer.json").write_text(json.dumps(words))
    assert open_pipeline(folder).fingerprint != first


def test_the_library_unpickles_nothing_and_trusts_no_code():
    root = Path(adapter.__file__).parent
    for path in root.rglob("*.py"):
        for line in path.read_text().splitlines():
            assert not re.search(
                r"\bpickle\.|import pickle|allow_pickle=True|trust_remote_code=|use_safetensors=False", line
            ), (path, line)
            assert "torch.load(" not in line or "weights_only=True" in line, (path, line)
            assert "np.load(" not in line or "allow_pickle=False" in line, (path, line)

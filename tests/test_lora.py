"""A LoRA adds B A to its layers and to nothing else, returns from its file, and is refused where it does not belong."""

import json
import pickle
import shutil

import pytest
import torch
from diffusers import StableDiffusionPipeline
from safetensors.torch import save_file
from test_unet_distillation import Data, networks
from tiny_pipelines import Poison

from distill_lib.diffusion.noise import normal
from distill_lib.engine.files import save_tensors
from distill_lib.engine.loop import TrainSettings
from distill_lib.networks.lora import check_base, lora_of, merged, styled, with_adapter
from distill_lib.networks.lora_files import load_lora, save_lora
from distill_lib.networks.pipeline import open_pipeline
from distill_lib.networks.pruning import Cut
from distill_lib.sdxs import score_distillation
from distill_lib.sdxs.lora import TrainedLora
from distill_lib.sdxs.one_step import fit_on_pairs, square_loss
from distill_lib.sdxs.score_distillation import fit_by_scores
from distill_lib.sdxs.scoring import Scoring
from distill_lib.shipped import make_lora, pretrained
from distill_lib.shipped.pretrained import RECIPES

SETTINGS = TrainSettings(steps=6, batch_size=4, lr=5e-3, warmup=1, ema=0.0, bf16=False)


class Pairs:
    """Noise with pictures that are no function of the network."""

    spec = "the same every time"

    def __len__(self):
        return 16

    def batch(self, index, device="cpu"):
        return normal(0, "z", 0, index, (4, 8, 8)), Data().x[index], Data().states[index]

    def fresh(self, draws, device="cpu"):
        return draws.normal("z_T", (4, 8, 8)), Data().states[draws.integer("prompt", 16)]


@pytest.fixture
def student():
    return networks(Cut())[0].like(networks(Cut())[0].module.requires_grad_(False))


def drawn(student, rank, seed=0):
    """A LoRA of that network whose factors are all random."""
    lora = lora_of(with_adapter(student, rank, seed).module)
    return {name: normal(seed, name, 0, torch.arange(len(v)), v.shape[1:]) / 10 for name, v in lora.items()}


def answers(net):
    z, _, label = Pairs().batch(torch.arange(4))
    with torch.no_grad():
        return net(z, torch.full((4,), 700), label)


def weights(net):
    return dict(net.module.named_parameters())


def same(a, b, atol=1e-6):
    return a.keys() == b.keys() and all(torch.allclose(a[k], b[k], atol=atol) for k in a)


@pytest.mark.parametrize("scale", [0.5, 1.0, -2.0])
def test_merging_adds_scale_times_ba_to_the_layers_of_the_lora_alone(student, scale):
    lora, before = drawn(student, 3), weights(student)
    after = weights(merged(student, (lora, scale)))
    changed = {name.removesuffix(".lora_A.weight") for name in lora if name.endswith("A.weight")}
    for name, weight in before.items():
        wanted = weight
        if (layer := name.removesuffix(".weight")) in changed:
            a, b = lora[f"{layer}.lora_A.weight"], lora[f"{layer}.lora_B.weight"]
            wanted = weight + scale * (b.flatten(1) @ a.flatten(1)).view_as(weight)
        assert torch.allclose(after[name], wanted, atol=1e-5)


def test_an_adapter_and_the_merged_network_answer_alike(student):
    lora = drawn(student, 2)
    adapted = with_adapter(student, 2, 0, lora)
    assert same(lora_of(adapted.module), lora)
    assert torch.allclose(answers(adapted), answers(merged(student, (lora, 1.0))), atol=1e-5)
    assert not torch.allclose(answers(adapted), answers(student), atol=1e-3)


def test_loras_add_in_any_order_and_cancel_at_the_opposite_scale(student):
    first, second = drawn(student, 2), drawn(student, 4, seed=1)
    assert same(
        weights(merged(student, (first, 1.0), (second, 0.5))),
        weights(merged(student, (second, 0.5), (first, 1.0))),
        1e-5,
    )
    assert same(weights(merged(student, (first, 1.0), (first, -1.0))), weights(student), 1e-5)
    assert same(weights(merged(student)), weights(student))


def test_a_lora_returns_from_diffusers_file(student, tmp_path):
    lora = drawn(student, 2)
    save_lora(tmp_path, lora)
    assert same(load_lora(tmp_path), lora, 1e-3)  # half precision


def test_a_lora_of_another_network_is_refused_in_a_sentence(student):
    lora = drawn(student, 2)
    other = networks(Cut(middle="removed", innermost=True))[0]
    with pytest.raises(
        ValueError, match=r"another network: \d+ of its \d+ weights do not fit \(.* is no layer of it\)"
    ):
        merged(other, (lora, 1.0))
    name = next(name for name in lora if "conv1.lora_A" in name)
    wider = lora | {name: lora[name].repeat(1, 2, 1, 1)}
    with pytest.raises(ValueError, match=r"1 of its .* channels where the LoRA has"):
        check_base(student.module, wider)


def test_a_file_without_a_unets_lora_is_refused(tmp_path):
    with pytest.raises(ValueError, match="cannot be used"):
        load_lora(tmp_path)
    save_tensors(tmp_path / "pytorch_lora_weights.safetensors", {"text_encoder.q.lora_A.weight": torch.ones(2, 2)})
    with pytest.raises(ValueError, match="it changes the text encoder too"):
        load_lora(tmp_path)


def written(folder, tensors, **metadata):
    header = {"lora_adapter_metadata": json.dumps({f"unet.{name}": value for name, value in metadata.items()})}
    save_file(tensors, folder / "pytorch_lora_weights.safetensors", header if metadata else None)


def in_file(lora, pattern="unet.{}.lora_{}.weight"):
    """A LoRA under other names, as in somebody's file."""
    split = {name: name.removesuffix(".weight").rsplit(".lora_", 1) for name in lora}
    return {pattern.format(*split[name]): value.contiguous() for name, value in lora.items()}


def strength(folder, lora):
    """What B of each layer was multiplied by."""
    result = load_lora(folder)
    return {k: (result[k] / v).nanmedian().item() for k, v in lora.items() if ".lora_B" in k}


def test_a_lora_has_the_strength_that_its_header_says(student, tmp_path):
    lora = drawn(student, 4)
    layer = next(iter(lora)).split(".lora_")[0]
    for metadata, c, own in [
        ({}, 1, 1),
        ({"r": 4, "lora_alpha": 16}, 4, 4),
        ({"r": 4, "lora_alpha": 16, "use_rslora": True}, 8, 8),
        ({"r": 4, "lora_alpha": 2, "alpha_pattern": {layer: 12}}, 0.5, 3),
        ({"r": 9, "lora_alpha": 2, "rank_pattern": {layer: 4}}, 0.5, 0.5),  # the rank is the file's own
    ]:
        written(tmp_path, in_file(lora), **metadata)
        for name, lora_strength in strength(tmp_path, lora).items():
            assert lora_strength == pytest.approx(own if name.startswith(f"{layer}.lora") else c), (metadata, name)


def test_diffusers_gives_a_header_the_same_strength(small_pipeline, tmp_path):
    model = open_pipeline(small_pipeline[0], bf16=False)
    lora = drawn(model.network, 4)
    config = {"r": 4, "lora_alpha": 16, "target_modules": sorted({name.split(".lora_")[0] for name in lora})}
    options = {"unet_lora_layers": dict(lora), "unet_lora_adapter_metadata": config}
    StableDiffusionPipeline.save_lora_weights(tmp_path, **options)
    plain = StableDiffusionPipeline.from_pretrained(small_pipeline[0], torch_dtype=torch.float32, safety_checker=None)
    plain.load_lora_weights(tmp_path)
    z, label = (
        normal(0, "z", 0, torch.arange(2), model.network.shape),
        model.states(["a red cube left of a blue cone"] * 2),
    )
    with torch.no_grad():
        reference = plain.unet(z, torch.full((2,), 599), label).sample
        ours = merged(model.network, (load_lora(tmp_path), 1.0))(z, torch.full((2,), 600), label)
    assert torch.allclose(reference, ours, atol=1e-4)


def test_alphas_beside_the_weights_and_kohyas_names_are_read(student, tmp_path):
    lora = drawn(student, 4)
    layers = sorted({name.split(".lora_")[0] for name in lora})
    alphas = {f"unet.{layer}.alpha": torch.tensor(2.0 + i) for i, layer in enumerate(layers)}
    written(tmp_path, in_file(lora) | alphas)
    for name, c in strength(tmp_path, lora).items():
        assert c == pytest.approx((2 + layers.index(name.split(".lora_")[0])) / 4)
    beside = weights(merged(student, (load_lora(tmp_path), 1.0)))
    kohya = {}
    for layer in layers:
        stem = f"lora_unet_{layer.replace('.', '_')}"
        kohya[f"{stem}.lora_down.weight"] = lora[f"{layer}.lora_A.weight"]
        kohya[f"{stem}.lora_up.weight"] = lora[f"{layer}.lora_B.weight"]
        kohya[f"{stem}.alpha"] = alphas[f"unet.{layer}.alpha"]
    written(tmp_path, kohya)
    assert same(weights(merged(student, (load_lora(tmp_path), 1.0))), beside)


@pytest.mark.parametrize(
    "more, message",
    [
        ("{}.lora_magnitude_vector", "holds DoRA"),
        ("{}.lora_B.bias", "holds biases"),
        ("{}.hada_w1_a", "holds LoHa"),
        ("{}.lokr_w1", "holds LoKr"),
        ("text_encoder.{}.lora_A.weight", "changes the text encoder too"),
        ("lora_te_{}.lora_down.weight", "changes the text encoder too"),
        ("{}.to_q_lora.down.weight", "what is read is unet.<layer>.lora_A.weight"),
        ("unet.more.lora_A.weight", "more has only one of its two factors"),
    ],
)
def test_what_cannot_be_merged_is_refused_and_not_dropped(student, tmp_path, more, message):
    layer = next(iter(drawn(student, 2))).split(".lora_")[0]
    name = more.format(layer if more.startswith(("text", "lora_te")) else f"unet.{layer}")
    written(tmp_path, in_file(drawn(student, 2)) | {name: torch.ones(2)})
    with pytest.raises(ValueError, match=f"cannot be used: .*{message}") as error:
        load_lora(tmp_path)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    "header, message",
    [
        ({"use_dora": True}, "its header says use_dora=True; only W"),
        ({"bias": "lora_only"}, "its header says bias='lora_only'"),
        ({"lora_alpha": "much"}, "has alpha='much'; a number is due"),
        ({"lora_alpha": float("inf")}, "has alpha=inf; a number is due"),
    ],
)
def test_a_header_that_cannot_be_honoured_is_refused(student, tmp_path, header, message):
    written(tmp_path, in_file(drawn(student, 2)), **header)
    with pytest.raises(ValueError, match=message):
        load_lora(tmp_path)
    save_file({"unet.a.lora_A.weight": torch.ones(2, 2)}, tmp_path / "pytorch_lora_weights.safetensors",
              {"lora_adapter_metadata": "{"})  # fmt: skip
    with pytest.raises(ValueError, match="cannot be used"):
        load_lora(tmp_path)


@pytest.mark.parametrize("end", [".bin", ".pt"])
def test_a_pickled_lora_is_never_read(tmp_path, end):
    (tmp_path / f"pytorch_lora_weights{end}").write_bytes(pickle.dumps(Poison(tmp_path / "mark")))
    with pytest.raises(ValueError, match=rf"only pytorch_lora_weights\{end} is there, a pickle, which can run code"):
        load_lora(tmp_path)
    shutil.copy(tmp_path / f"pytorch_lora_weights{end}", tmp_path / "pytorch_lora_weights.safetensors")
    with pytest.raises(ValueError, match="cannot be used"):
        load_lora(tmp_path)
    assert not (tmp_path / "mark").exists()


def test_factors_of_another_kernel_or_of_no_common_rank_are_refused(student, tmp_path):
    lora = drawn(student, 2)
    name = next(name for name in lora if "conv1.lora_A" in name)
    with pytest.raises(ValueError, match=r"has weights \(.*, 3, 3\) where the LoRA has \(.*, 1, 1\)"):
        check_base(student.module, lora | {name: lora[name][..., :1, :1]})
    written(tmp_path, in_file(lora | {name: lora[name][:1]}))
    with pytest.raises(ValueError, match="which share no rank"):
        load_lora(tmp_path)


def test_only_the_adapter_is_learned(runs, student):
    _, teacher = networks(Cut())
    fresh = lambda start=None: with_adapter(student, 2, SETTINGS.seed, start)  # noqa: E731
    by_matching = TrainedLora.of(student, fit_on_pairs(fresh(), Pairs(), square_loss, SETTINGS))
    given = Pairs(), square_loss, Scoring(SETTINGS, online_updates=1, online_rate=0.1), (teacher, teacher)
    by_scores, warm = (TrainedLora.of(student, fit_by_scores(fresh(lora), *given)) for lora in (None, by_matching.lora))
    for item in (by_matching, by_scores, warm):
        assert same(weights(merged(item.net, (item.lora, -1.0))), weights(student), 1e-5)
        assert not torch.allclose(answers(item.net), answers(student), atol=1e-4)
    assert not same(by_scores.lora, warm.lora)  # they differ in where they start


def test_an_online_model_with_an_adapter_keeps_the_weights_that_it_starts_with(runs, student, monkeypatch):
    _, teacher = networks(Cut())
    teams, distil = [], score_distillation.distill_scores
    monkeypatch.setattr(
        score_distillation, "distill_scores", lambda team, *given: teams.append(team) or distil(team, *given)
    )
    start = merged(teacher, (drawn(teacher, 2), 1.0))
    for rank in (0, 2):
        scoring = Scoring(SETTINGS, online_updates=1, online_rank=rank, before=SETTINGS)
        fit_by_scores(with_adapter(student, 2, 0), Pairs(), square_loss, scoring, (teacher, start))
    free, held = (
        {n.replace(".base_layer", ""): w for n, w in weights(team.members["online"]).items()} for team in teams
    )
    own = weights(start)
    assert all(torch.equal(held[name], weight) for name, weight in own.items())
    assert not all(torch.equal(free[name], weight) for name, weight in own.items())
    adapter = {name: weight for name, weight in held.items() if name not in own}
    assert adapter and all("lora" in name for name in adapter)
    idle = {name.split(".lora_B")[0] for name, weight in adapter.items() if "lora_B" in name and not weight.any()}
    # all start at zero; of one place, as in the middle here, attention to itself has no gradient for its weights
    assert idle == {f"mid_block.attentions.0.transformer_blocks.0.attn1.to_{part}" for part in "qk"}


def test_a_styled_pipeline_shares_all_but_its_network(small_pipeline):
    model = open_pipeline(small_pipeline[0], bf16=False)
    lora = drawn(model.network, 2)
    style = styled(model, (lora, 1.0))
    assert style.pipe is model.pipe and style.fingerprint != model.fingerprint
    assert same(weights(styled(model, (lora, 0.0)).network), weights(model.network))


def test_diffusers_alone_loads_a_saved_lora_and_answers_as_we_do(small_pipeline, tmp_path):
    model = open_pipeline(small_pipeline[0], bf16=False)
    lora = drawn(model.network, 2)
    save_lora(tmp_path, lora)
    plain = StableDiffusionPipeline.from_pretrained(small_pipeline[0], torch_dtype=torch.float32, safety_checker=None)
    plain.load_lora_weights(tmp_path)
    z = normal(0, "z", 0, torch.arange(2), model.network.shape)
    label, t = model.states(["a red cube left of a blue cone"] * 2), torch.full((2,), 600)
    with torch.no_grad():
        reference = plain.unet(z, t - 1, label).sample  # our grid counts from 1
        ours = merged(model.network, (load_lora(tmp_path), 1.0))(z, t, label)
    assert torch.allclose(reference, ours, atol=1e-5)
    assert not torch.allclose(reference, model.network(z, t, label), atol=1e-3)


def test_a_recipe_ships_a_lora_in_diffusers_format(runs, small_pipeline, tmp_path, monkeypatch):
    recipe = {"pipeline": "scenes", "world": "captioned-clay", "rank": 2, "drop": 0.2, "count": 8, "steps": 2}
    recipe |= {"batch_size": 4, "lr": 1e-2, "warmup": 1, "ema": 0.0, "seed": 0}
    model = open_pipeline(small_pipeline[0], bf16=False)
    monkeypatch.setattr(pretrained, "PRETRAINED", tmp_path)
    monkeypatch.setitem(RECIPES["lora"], "clay", recipe)
    with monkeypatch.context() as patch:
        for name, value in {"pipeline": model, "key": "pipeline", "made": {"weights": "abc"}}.items():
            patch.setattr(pretrained, name, lambda _, value=value: value)
        make_lora.make_lora("clay")
    lora = pretrained.lora("clay")
    check_base(model.network.module, lora)
    assert any(value.abs().max() > 0 for name, value in lora.items() if "lora_B" in name)
    assert pretrained.made("lora-clay")["config"] == recipe | {"pipeline": "abc"}
    with pytest.raises(ValueError, match="make teachers NAMES=lora-oil"):
        pretrained.lora("oil")

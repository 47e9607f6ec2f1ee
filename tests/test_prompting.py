"""What is measured of text-to-image is what its name says, for all methods alike."""

from functools import partial

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import CLIPConfig, CLIPImageProcessor, CLIPModel, CLIPProcessor

from distill_lib.measure import draw, prompts
from distill_lib.measure.draw import sample_pictures
from distill_lib.measure.independent import Sampled
from distill_lib.measure.metrics import Reader, paired
from distill_lib.measure.prompts import Judges, PromptBenchmark, alignment, clip_of, real_pictures
from distill_lib.measure.readers.attributes import AttributeReader
from distill_lib.measure.readers.extractor import Extractor
from distill_lib.networks.pipeline import open_pipeline
from distill_lib.teachers.small_diffusion import build_clip
from distill_lib.worlds.captions import LENGTH, drawn_attributes, names_held_out, say, tokenizer
from distill_lib.worlds.pictures import WORLDS, render_pictures

SIZES = {"width": 16, "layers": 1, "tower": 8, "seed": 0}


@pytest.fixture
def judges():
    torch.manual_seed(0)
    clip = partial(alignment, build_clip(SIZES, 64).eval())
    return Judges(Reader(Extractor(6, 3, 8, 64).eval()), clip, AttributeReader(8).eval())


@pytest.fixture
def prompted(small_pipeline, judges, runs):
    return PromptBenchmark(open_pipeline(small_pipeline[0], bf16=False), judges, "captioned", 8, 4, 1.0, seed=3)


def test_everybody_gets_the_same_prompts_and_noise(prompted, monkeypatch):
    net = prompted.model.network
    image = prompted.pictures(net, 2, 0.0)
    assert torch.equal(image, sample_pictures(net, 2, 0.0, prompted.model.states(prompted.prompts), seed=3))
    assert image.shape == (8, 3, 64, 64) and image.dtype == torch.uint8
    with monkeypatch.context() as patch:
        patch.setattr(draw, "in_batches", None)  # drawn once
        assert torch.equal(prompted.pictures(net, 2, 0.0), image)
    for method in ("dpm++", "unipc"):
        assert not torch.equal(prompted.pictures(net, 2, 0.0, method), image)


def test_rows_compare_with_the_teacher_at_the_same_strength_or_at_the_one_named(prompted):
    net = prompted.model.network
    same = {row["metric"]: row for row in prompted.rows("ddim", net, 4, 1.0)}
    assert same["paired"]["value"] == 0 and same["fid_teacher"]["value"] == pytest.approx(0, abs=1e-6)
    assert same["clip"]["nfe"] == 8  # a guided pair
    other = {row["metric"]: row["value"] for row in prompted.rows("ddim", net, 2, 0.0)}
    assert other["paired"] == pytest.approx(paired(prompted.pictures(net, 2, 0.0), prompted.truth(0.0)).mean().item())
    held = {row["metric"]: row["value"] for row in prompted.rows("regression", net, 2, 0.0, truth_w=1.0)}
    assert held["paired"] == pytest.approx(paired(prompted.pictures(net, 2, 0.0), prompted.truth()).mean().item())
    wanted = {"fid", "kid", "precision", "recall", "clip", "sharpness", "attribute_accuracy", "prompt_accuracy"}
    assert set(other) == wanted | {"fid_teacher", "paired"}


def test_independent_pictures_are_the_benchmarks_own_beside_a_teacher_of_other_prompts_and_noise(prompted, monkeypatch):
    monkeypatch.setattr(prompts, "FEWEST", 4)
    net, calls = prompted.model.network, []
    monkeypatch.setattr(
        prompts, "Rulers", lambda features, draw, truth, seed, real: calls.append((draw, truth, seed, real))
    )
    prompted.rulers(None)
    prompted.rulers(None, 12)
    (draw_of, truth, seed, real), (more, *_) = calls
    assert torch.equal(real(8), prompted.real)
    assert (truth.net, truth.n_steps, truth.w, seed) == (net, 4, 1.0, 3)
    own, other = (draw_of(Sampled(net, 2, 0.0), stream) for stream in ("student", "truth"))
    assert torch.equal(own, prompted.pictures(net, 2, 0.0))
    other_prompts = say(drawn_attributes(8, 8003))
    assert torch.equal(other, sample_pictures(net, 2, 0.0, prompted.model.states(other_prompts), seed=8003))
    assert set(other_prompts).isdisjoint(prompted.prompts)
    assert torch.equal(more(Sampled(net, 2, 0.0), "student")[:8], own)


def test_unseen_prompts_name_a_held_out_pair_and_others_do_not(small_pipeline, judges, runs):
    model = open_pipeline(small_pipeline[0])
    for unseen in (False, True):
        calls = PromptBenchmark(model, judges, "captioned", 16, 4, 1.0, unseen=unseen).wanted_attributes
        assert (names_held_out(calls) == unseen).all() and len(calls) == 16


def test_real_pictures_hold_what_prompts_ask_for_and_bound_what_a_model_can_reach(prompted):
    image, shows = real_pictures("captioned", 6, 0)
    other, unseen = real_pictures("captioned", 6, 0, unseen=True)
    assert not names_held_out(shows).any() and names_held_out(unseen).all() and image.shape == other.shape
    rows = prompted.floor_rows(many=16)
    assert [row["n"] for row in rows if row["metric"] == "floor_fid"] == [8, 16]
    assert {row["method"] for row in rows} == {"real", "autoencoder"}
    values = {row["metric"]: row["value"] for row in rows if row["method"] == "real"}
    assert values["prompt_accuracy"] == prompted.judged(prompted.real, prompted.shows)["prompt_accuracy"]


def test_alignment_is_the_cosine_of_each_picture_with_its_own_prompt(judges):
    image, _ = render_pictures(WORLDS["captioned"], 0, torch.arange(3))
    prompts = say(drawn_attributes(3, 0))
    both = judges.clip(image, prompts)
    for i in range(3):
        single = judges.clip(image[i : i + 1], prompts[i : i + 1])
        assert both[i].item() == pytest.approx(single.item(), abs=1e-5)
    assert both.abs().max() <= 1.0001


def test_of_other_prompts_only_what_needs_no_world_is_told(prompted):
    inputs, words = prompted.model, ["a gray cone right of a red cube"] * 4
    free = PromptBenchmark(inputs, prompted.judges, "", 4, 4, 1.0, prompts=words)
    values = {row["metric"]: row["value"] for row in free.rows("ddim", inputs.network, 2, 1.0)}
    assert set(values) == {"fid_teacher", "paired", "clip", "sharpness"} and free.floor_rows() == []
    assert free.prompts == words and values["paired"] > 0
    with pytest.raises(ValueError, match="prompts of a file have no world"):
        free.rulers(None)


def test_a_clip_of_other_people_judges_by_its_own_cosine(tmp_path):
    tokens = tokenizer()
    known = {
        "bos_token_id": tokens.bos_token_id,
        "eos_token_id": tokens.eos_token_id,
        "pad_token_id": tokens.pad_token_id,
    }
    text = {"vocab_size": len(tokens), "hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1,
            "num_attention_heads": 2, "max_position_embeddings": LENGTH} | known  # fmt: skip
    vision = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2,
              "image_size": 32, "patch_size": 8}  # fmt: skip
    model = CLIPModel(CLIPConfig(text_config=text, vision_config=vision, projection_dim=8)).eval()
    sizes = {"size": {"shortest_edge": 32}, "crop_size": {"height": 32, "width": 32}}
    reads = CLIPProcessor(CLIPImageProcessor(**sizes), tokens)
    model.save_pretrained(tmp_path, safe_serialization=True)
    reads.save_pretrained(tmp_path)
    image, _ = render_pictures(WORLDS["captioned"], 0, torch.arange(3))
    prompts = say(drawn_attributes(3, 0))
    given = reads(text=prompts, images=list(image), return_tensors="pt", padding=True)
    expected = model(**given).logits_per_image.diagonal() / model.logit_scale.exp()
    assert torch.allclose(clip_of(tmp_path)(image, prompts), expected, atol=1e-5)
    with pytest.raises(ValueError, match="is no usable CLIP"):
        clip_of(tmp_path / "nothing")
    with pytest.raises(ValueError, match=f"a prompt has 58 tokens, and the CLIP that judges reads {LENGTH}: shor"):
        clip_of(tmp_path)(image[:1], [" ".join(prompts[0].split()[:7] * 8)])
    weights = load_file(tmp_path / "model.safetensors")
    save_file(dict(list(weights.items())[1:]), tmp_path / "model.safetensors", {"format": "pt"})
    with pytest.raises(ValueError, match="is no usable CLIP: its file lacks weights"):
        clip_of(tmp_path)
    save_file(weights, tmp_path / "model.safetensors", {"format": "pt"})
    for name in ("tokenizer.json", "vocab.json", "merges.txt"):
        (tmp_path / name).unlink(missing_ok=True)
    with pytest.raises(ValueError, match="is no usable CLIP: it has neither tokenizer"):
        clip_of(tmp_path)

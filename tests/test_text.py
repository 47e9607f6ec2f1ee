"""The mini CLIP: its loss, its hard captions, and that it learns which picture a caption is of."""

import pytest
import torch
from torch.nn.functional import normalize

from distill_lib.engine import store
from distill_lib.engine.loop import TrainSettings
from distill_lib.teachers.clip import EMBEDDING, Clip, build_text_encoder, contrastive_loss, train_clip
from distill_lib.worlds.captions import attributes, drawn_attributes, exchanged, say, tokenizer
from distill_lib.worlds.pictures import WORLDS, render_pictures
from distill_lib.worlds.vocabulary import SCENES


def test_an_exchange_changes_the_caption_in_one_attribute_or_in_all_and_keeps_the_rest():
    wanted_attributes = drawn_attributes(400, 0)
    result = exchanged(wanted_attributes, torch.rand(400, generator=torch.Generator().manual_seed(0)))
    alike = (wanted_attributes[:, 0] == wanted_attributes[:, 1]).all(1)
    same = [a == b for a, b in zip(say(wanted_attributes), say(result), strict=True)]
    assert same == alike.tolist()
    moved = (result != wanted_attributes)[:, 0].sum(1)
    everything = (result == wanted_attributes.flip(1)).flatten(1).all(1)
    assert ((moved == 1) | everything | alike).all()
    assert torch.equal(result.sort(1).values, wanted_attributes.sort(1).values)  # nothing is added, nothing lost
    assert 0.15 < (everything & ~alike).float().mean() < 0.6


def test_the_loss_is_the_cross_entropy_over_captions_and_pictures_with_one_hard_caption_more():
    torch.manual_seed(0)
    image, text, wrong = (normalize(torch.randn(3, 5), dim=1) for _ in range(3))
    differs, s = torch.tensor([True, False, True]), torch.tensor(4.0)
    loss = contrastive_loss(image, text, wrong, s, differs)
    for i in range(3):
        row = [4 * (image[i] @ text[j]).item() for j in range(3)]
        if differs[i]:
            row.append(4 * (image[i] @ wrong[i]).item())
        column = [4 * (image[j] @ text[i]).item() for j in range(3)]
        expected = [torch.tensor(item).logsumexp(0).item() - item[i] for item in (row, column)]
        assert loss[i].item() == pytest.approx(sum(expected) / 2, rel=1e-5)


def test_the_text_encoder_pools_the_end_of_the_prompt():
    torch.manual_seed(0)
    tokens = tokenizer()
    text = build_text_encoder(tokens, width=32, layers=1).eval()
    ids = tokens(["a red cube", "a blue cube"], padding="max_length", return_tensors="pt").input_ids
    result = text(ids)
    assert torch.allclose(result.pooler_output, result.last_hidden_state[:, 4], atol=1e-6)  # start, three words, end
    assert not torch.allclose(result.pooler_output[0], result.pooler_output[1], atol=1e-4)


def test_a_few_pairs_are_learned(tmp_path, monkeypatch):
    monkeypatch.setattr(store, "RUNS", tmp_path)
    torch.manual_seed(0)
    spec, tokens = WORLDS["captioned"], tokenizer()
    image, scenes = render_pictures(spec, 0, torch.arange(8))
    net = Clip(build_text_encoder(tokens, width=32, layers=1), width=8)
    wanted_attributes, run = attributes(scenes, spec), store.Run("clip", {}, train_clip)
    settings = TrainSettings(steps=60, batch_size=16, lr=3e-3, warmup=5, ema=0.5, bf16=False)

    class Trainable:
        module = forward = net

    history = list(train_clip(Trainable, SCENES, image, wanted_attributes, settings, run))
    net.load_state_dict(run.weights())
    assert history[-1].loss < 0.8 * history[0].loss
    ids = tokens(say(wanted_attributes), padding="max_length", return_tensors="pt").input_ids
    with torch.no_grad():
        u, v = net.of_image(image / 127.5 - 1), net.of_text(ids)
    assert u.shape == v.shape == (8, EMBEDDING)
    assert (u @ v.T).argmax(1).eq(torch.arange(8)).float().mean() >= 0.75

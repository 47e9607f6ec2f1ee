"""Captions say what the scene holds."""

import os
import subprocess
import sys
from dataclasses import replace

import pytest
import torch

from distill_lib.paths import ROOT
from distill_lib.worlds.captions import (
    HELD_OUT,
    LENGTH,
    PHRASINGS,
    WORDS,
    attributes,
    check_prompt,
    drawn_attributes,
    names_held_out,
    say,
    tokenizer,
)
from distill_lib.worlds.pictures import WORLDS
from distill_lib.worlds.scenes import draw_scenes


def turned(scenes):
    """The same scenes, with the two named solids stored in the other order."""
    order = torch.tensor([1, 0, *range(2, scenes.shape.shape[1])])
    both = {name: column[:, order] for name, column in vars(scenes).items() if column.shape[1:2] == order.shape}
    return replace(scenes, **{name: both[name] for name in ("shape", "color", "texture", "position", "size")})


def test_a_caption_of_two_objects_says_which_stands_left_however_they_are_stored():
    spec = WORLDS["captioned"]
    scenes = draw_scenes(spec, 0, torch.arange(64))
    assert (scenes.position[:, 0, 0] < scenes.position[:, 1, 0]).all()
    assert torch.equal(attributes(turned(scenes), spec), attributes(scenes, spec))


def test_small_is_said_of_about_a_third_of_the_objects():
    spec = WORLDS["captioned"]
    small = attributes(draw_scenes(spec, 0, torch.arange(600)), spec)[..., 3].float()
    assert abs(small.mean() - 1 / 3) < 4 * (2 / 9 / 1200) ** 0.5  # four standard errors of a share of 1/3


def test_all_phrasings_say_the_same_and_name_the_left_solid_as_left():
    spec = WORLDS["captioned"]
    scenes = draw_scenes(spec, 1, torch.arange(len(PHRASINGS))[:1].repeat(len(PHRASINGS)))
    message = say(attributes(scenes, spec), torch.arange(len(PHRASINGS)))
    left, right = message[0].split(" left of ")
    assert message == [text.format(first=left, second=right) for text in PHRASINGS] and len(set(message)) == len(
        PHRASINGS
    )


def test_each_word_of_a_caption_is_one_token_and_every_caption_fits():
    tokens = tokenizer()
    for word in WORDS:
        assert len(tokens(word).input_ids) == 3, word  # with start and end
    spec = WORLDS["captioned"]
    scenes = draw_scenes(spec, 0, torch.arange(200))
    for number in range(len(PHRASINGS)):
        for text in say(attributes(scenes, spec), torch.full((200,), number)):
            ids = tokens(text).input_ids
            assert len(ids) == len(text.split()) + 2 <= LENGTH
            assert tokens.decode(ids, skip_special_tokens=True).strip() == text
    padded = tokens("a red cube", padding="max_length").input_ids
    assert len(padded) == LENGTH and padded[0] == tokens.bos_token_id and padded[4] == tokens.eos_token_id


def test_the_tokenizer_is_the_same_in_every_process():
    code = "from distill_lib.worlds.captions import tokenizer; print(sorted(tokenizer().get_vocab().items()))"
    this_process = str(sorted(tokenizer().get_vocab().items()))
    environment = os.environ | {"PYTHONHASHSEED": "1", "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", code]
    result = subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout.strip()
    assert result == this_process


def test_attributes_are_what_can_be_seen_of_the_scene_from_left_to_right():
    spec = WORLDS["captioned"]
    scenes = draw_scenes(spec, 0, torch.arange(100))
    for i, both in enumerate(attributes(scenes, spec).tolist()):
        order = (0, 1) if scenes.position[i, 0, 0] < scenes.position[i, 1, 0] else (1, 0)
        for (shape, color, texture, small), k in zip(both, order, strict=True):
            assert (shape, color) == (scenes.shape[i, k], scenes.color[i, k])
            assert texture == scenes.texture[i, k] and small == (scenes.size[i, k] < 0.39)


def test_attributes_of_one_object_are_refused():
    with pytest.raises(ValueError, match="two named objects; this world has 1"):
        attributes(draw_scenes(WORLDS["plain"], 0, torch.arange(2)), WORLDS["plain"])


def test_sizes_leave_a_gap_where_a_caption_changes_its_word():
    size = draw_scenes(WORLDS["captioned"], 0, torch.arange(500)).size[:, :2]
    assert not ((size > 0.36) & (size < 0.43)).any() and 0.25 < (size < 0.39).float().mean() < 0.42


def test_held_out_pairs_are_found_whichever_solid_holds_them():
    wanted_attributes = attributes(draw_scenes(WORLDS["captioned"], 0, torch.arange(400)), WORLDS["captioned"])
    result = names_held_out(wanted_attributes)
    assert result.tolist() == [
        any(f"{color} {shape}" in text for color, shape in HELD_OUT) for text in say(wanted_attributes)
    ]
    assert 0.1 < result.float().mean() < 0.4  # 1 - (28/32)^2 = 0.23


def test_prompts_without_scenes_are_as_varied_as_scenes_hold_nothing_held_out_and_do_not_depend_on_how_many():
    wanted_attributes = drawn_attributes(600, 5)
    assert wanted_attributes.shape == (600, 2, 4) and not names_held_out(wanted_attributes).any()
    assert torch.equal(drawn_attributes(40, 5), wanted_attributes[:40]) and not torch.equal(
        drawn_attributes(40, 6), wanted_attributes[:40]
    )
    for column, kinds in enumerate((4, 8, 3, 2)):
        assert wanted_attributes[..., column].unique().tolist() == list(range(kinds))
    assert len({tuple(objects.flatten().tolist()) for objects in wanted_attributes}) > 570


@pytest.mark.parametrize("prompt, word, near", [("a red cubes", "'cubes'", "cube"), ("a teal cone", "'teal'", "small")])
def test_an_unknown_word_is_named_with_its_neighbours(prompt, word, near):
    with pytest.raises(ValueError, match=f"{word} .*{near}"):
        check_prompt(prompt)
    check_prompt("a small red cube left of a checked green sphere.")


@pytest.mark.parametrize(
    "prompt, message",
    [
        ("a red \U0001f600", "'\U0001f600' .did you mean"),
        ("cube" * 2500, r"'cubecube\w*\.\. .did you mean "),
        (" ".join(f"word{i}" for i in range(2000)), "'word0' .*'word2' .*; and 1997 more"),
        ("a red cube " * 1000, "has 3000 words, of which the text encoder reads 22; shorten it"),
        ("a red\0cube", r"holds the character '\\x00', which is no text"),
        ("a red\x1ccube", r"holds the character '\\x1c'"),
        ("a \ud800 cube", r"holds the character '\\ud800'"),
        (7, "the prompt 7 is of type int"),
    ],
)
def test_an_odd_prompt_ends_in_a_short_sentence(prompt, message):
    with pytest.raises(ValueError, match=message) as error:
        check_prompt(prompt)
    text = str(error.value)
    assert text.isprintable() and len(text) < 400


def test_the_longest_caption_and_spaces_of_all_kinds_are_no_odd_prompts():
    check_prompt("on the left a small striped gray cylinder and on the right a small checked yellow sphere")
    check_prompt("a\tred\n cube\r\n")
    check_prompt("")

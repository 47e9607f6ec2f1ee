"""Captions of scenes of two objects: what is there, in words, exactly; and the tokenizer of these words.

    "a small red cube left of a checked green sphere", and other phrasings of the same (`PHRASINGS`)

`small` marks a solid among the smaller third of the world's sizes; between small and not there is a gap. Clutter is
never named. What two objects are is held as attributes (2, 4), from which prompts can be made without a scene.
"""

import difflib
import re
import unicodedata
from collections import Counter
from itertools import pairwise

import torch
from torch import Tensor
from transformers import CLIPTokenizer

from distill_lib.diffusion.noise import uniform
from distill_lib.engine.messages import short
from distill_lib.worlds.scenes import COLORS, SHAPES, TEXTURES, Scenes, SceneSpec

_LONGEST, _NAMED = 40, 3  # characters of an unknown word, and such words, that an error names
_SMALL = 0.39  # below this size
PHRASINGS = (
    "{left} left of {right}",
    "{right} right of {left}",
    "{left} to the left of {right}",
    "{right} to the right of {left}",
    "on the left {left} and on the right {right}",
    "{left} beside {right} on the right",
)
"""Ways to say that one solid stands left of another."""
WORDS = tuple(
    sorted(
        {"a", "an", "small", *TEXTURES[1:], *COLORS, *SHAPES}
        | {word for text in PHRASINGS for word in text.split() if not word.startswith("{")}
    )
)
"""All words that a caption may hold."""
LENGTH = 24
"""Tokens of a prompt with its start and its end; the longest caption has 20."""
HELD_OUT = (("red", "cone"), ("green", "cube"), ("blue", "sphere"), ("yellow", "cylinder"))
"""Pairs of colour and shape that no text-to-image training sees: what a model makes of them it has composed."""


def attributes(scenes: Scenes, spec: SceneSpec) -> Tensor:
    """What a caption of two objects says, (B, 2, 4): shape, colour, texture, small, of the left and of the right one.

    Raises:
        ValueError: the world does not show two named objects.
    """
    if spec.objects != 2:
        raise ValueError(f"attributes are those of two named objects; this world has {spec.objects}")
    small = (scenes.size < _SMALL).long()
    texture = scenes.texture if spec.texture else torch.zeros_like(scenes.texture)
    both = torch.stack([column[:, :2] for column in (scenes.shape, scenes.color, texture, small)], 2)
    swapped = scenes.position[:, 0, 0] > scenes.position[:, 1, 0]
    return torch.where(swapped[:, None, None], both.flip(1), both)


def drawn_attributes(n: int, seed: int, unseen: bool = False) -> Tensor:
    """Attributes of n prompts, (n, 2, 4), as often as in scenes but without a scene.

    None of `HELD_OUT` is among them, or with `unseen` one or two of them in each.
    """
    kinds = torch.tensor([len(SHAPES), len(COLORS), len(TEXTURES)])
    kept, start = torch.empty(0, 2, 4, dtype=torch.long), 0
    while len(kept) < n:
        u = uniform(seed, "prompt", 0, torch.arange(start, start + 2 * n), 8).reshape(-1, 2, 4)
        candidates = torch.cat([(u[..., :3] * kinds).long(), (u[..., 3:] < 1 / 3).long()], 2)
        kept, start = torch.cat([kept, candidates[names_held_out(candidates) == unseen]]), start + 2 * n
    return kept[:n]


def names_held_out(wanted_attributes: Tensor) -> Tensor:
    """Which attributes (B, 2, 4) hold a pair of `HELD_OUT`, bool (B,)."""
    pairs = [(SHAPES.index(shape), list(COLORS).index(color)) for color, shape in HELD_OUT]
    return torch.stack(
        [((wanted_attributes[..., 0] == s) & (wanted_attributes[..., 1] == c)).any(1) for s, c in pairs]
    ).any(0)


def exchanged(wanted_attributes: Tensor, u: Tensor) -> Tensor:
    """Attributes (B, 2, 4) with one that differs, or all, exchanged between the solids; u (B,) in (0, 1) chooses.

    Two solids that are alike stay as they are.
    """
    differs = wanted_attributes[:, 0] != wanted_attributes[:, 1]
    count = differs.sum(1)
    chosen = (u * (count + 1)).long()
    slot = differs & (differs.cumsum(1) - 1 == chosen[:, None])
    which = torch.where((chosen == count)[:, None], torch.ones_like(differs), slot)
    return torch.where(which[:, None], wanted_attributes.flip(1), wanted_attributes)


def say(wanted_attributes: Tensor, phrasing: Tensor | None = None) -> list[str]:
    """Captions of attributes (B, 2, 4), each in the phrasing of its number (B,), the first one unless given."""
    numbers = [0] * len(wanted_attributes) if phrasing is None else phrasing.tolist()
    pairs = [(_noun(left), _noun(right)) for left, right in wanted_attributes]
    return [PHRASINGS[k].format(left=left, right=right) for k, (left, right) in zip(numbers, pairs, strict=True)]


def _noun(solid: Tensor) -> str:
    shape, color, texture, small = solid.tolist()
    words = ["small"] * small + [TEXTURES[texture]] * (texture > 0) + [list(COLORS)[color], SHAPES[shape]]
    return " ".join(["an" if words[0][0] in "aeiou" else "a", *words])


def tokenizer() -> CLIPTokenizer:
    """A CLIP tokenizer that knows `WORDS`, each as one token, and the letters that they are made of; always the same.

    The trainer of the tokenizers library numbers letters in the order of a random hash, so that a network trained with
    one tokenizer would misread the next.
    """
    merges = _merges()
    letters = sorted({letter for word in WORDS for letter in word})
    names = [*letters, *(f"{letter}</w>" for letter in letters), *("".join(pair) for pair in merges)]
    vocab = {name: number for number, name in enumerate([*names, "<|startoftext|>", "<|endoftext|>"])}
    return CLIPTokenizer(vocab=vocab, merges=merges, model_max_length=LENGTH)


def _merges() -> list[tuple[str, str]]:
    """Pairs of neighbours to join, the most frequent first and then by the alphabet, until each word is one piece."""
    words, merges = [[*word[:-1], f"{word[-1]}</w>"] for word in WORDS], []
    while count := Counter(pair for word in words for pair in pairwise(word)):
        best = min(count, key=lambda pair: (-count[pair], pair))
        merges.append(best)
        for word in words:
            for i in range(len(word) - 2, -1, -1):
                if tuple(word[i : i + 2]) == best:
                    word[i : i + 2] = ["".join(best)]
    return merges


def check_prompt(prompt: str) -> None:
    """Refuse a prompt with words that no caption has, or with more of them than the text encoder reads.

    Raises:
        ValueError: names the first few such words and the nearest known ones, or the number of words.
    """
    if not isinstance(prompt, str):
        raise ValueError(f"the prompt {short(prompt)} is of type {type(prompt).__name__}; write it as text")
    odd = next((c for c in prompt if unicodedata.category(c) in ("Cc", "Cs") and c not in "\t\n\r"), "")
    if odd:
        raise ValueError(f"the prompt {short(prompt)} holds the character {short(odd)}, which is no text; remove it")
    words = re.findall(r"[^\s.]+", prompt.lower())
    unknown = [*dict.fromkeys(word for word in words if word not in WORDS)]
    if unknown:
        near = {word: difflib.get_close_matches(word[:_LONGEST], WORDS, 3, 0.4) for word in unknown[:_NAMED]}
        near = {word: close or list(COLORS)[:3] for word, close in near.items()}
        suggestions = "; ".join(
            f"{short(word, _LONGEST)} (did you mean {', '.join(close)}?)" for word, close in near.items()
        )
        more = f"; and {len(unknown) - _NAMED} more" if len(unknown) > _NAMED else ""
        raise ValueError(f"the prompt holds words that the text encoder has never seen: {suggestions}{more}")
    if len(words) > LENGTH - 2:
        raise ValueError(f"the prompt has {len(words)} words, of which the text encoder reads {LENGTH - 2}; shorten it")


_KINDS = (len(SHAPES), len(COLORS), len(TEXTURES), 2)
LOGITS = sum(_KINDS)
"""Answers about one solid."""

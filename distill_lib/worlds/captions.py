"""Captions of scenes of two objects: what is there, in words, exactly; and the tokenizer of these words.

    "a small red cube left of a checked green sphere", and other phrasings of the same
    "a ribbed lime pyramid in front of a dotted pink cube" in the studio

The words are those of a world's `Vocabulary`, of `SCENES` unless another is given. `small` marks a solid among the
smaller third of the world's sizes; between small and not there is a gap. Clutter is never named. What two objects are
is held as attributes (2, 4), from which prompts can be made without a scene: shape, colour, texture, and small or, in
the studio, the relation, which is the same of both solids.
"""

import contextlib
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
from distill_lib.worlds.scenes import Scenes, SceneSpec
from distill_lib.worlds.studio import StudioScenes
from distill_lib.worlds.vocabulary import SCENES, VOCABULARIES, Vocabulary

_LONGEST, _NAMED = 40, 3  # characters of an unknown word, and such words, that an error names
_SMALL = 0.39  # below this size
PHRASINGS = SCENES.phrasings[0]
"""Ways to say that one solid stands left of another; there are as many of every other relation."""
WORDS = SCENES.words
"""All words that a caption of the first world may hold."""
LENGTH = 24
"""Tokens of a prompt with its start and its end; the longest caption has 20."""
HELD_OUT = SCENES.held_out
"""Pairs of colour and shape of the first world that no text-to-image training sees."""


def attributes(scenes: Scenes, spec: SceneSpec) -> Tensor:
    """What a caption of two objects says, (B, 2, 4): shape, colour, texture, small, of the left and of the right one.

    In the studio the first one is the left one or the one in front, and the last attribute says which.

    Raises:
        ValueError: the world does not show two named objects.
    """
    if spec.objects != 2:
        raise ValueError(f"attributes are those of two named objects; this world has {spec.objects}")
    last, swapped = (scenes.size < _SMALL).long(), scenes.position[:, 0, 0] > scenes.position[:, 1, 0]
    if isinstance(scenes, StudioScenes):
        last, swapped = scenes.relation[:, None].expand_as(scenes.shape), scenes.swapped
    texture = scenes.texture if spec.texture else torch.zeros_like(scenes.texture)
    both = torch.stack([column[:, :2] for column in (scenes.shape, scenes.color, texture, last)], 2)
    return torch.where(swapped[:, None, None], both.flip(1), both)


def drawn_attributes(n: int, seed: int, unseen: bool = False, vocabulary: Vocabulary = SCENES) -> Tensor:
    """Attributes of n prompts, (n, 2, 4), as often as in scenes but without a scene.

    None of the pairs held out is among them, or with `unseen` one or two of them in each.
    """
    kinds = torch.tensor(vocabulary.kinds[:3])
    kept, start = torch.empty(0, 2, 4, dtype=torch.long), 0
    while len(kept) < n:
        u = uniform(seed, "prompt", 0, torch.arange(start, start + 2 * n), 8).reshape(-1, 2, 4)
        last = u[..., 3:] < 1 / 3 if vocabulary.sized else (u[:, :1, 3:] < 1 / 2).expand(-1, 2, 1)
        candidates = torch.cat([(u[..., :3] * kinds).long(), last.long()], 2)
        kept, start = torch.cat([kept, candidates[names_held_out(candidates, vocabulary) == unseen]]), start + 2 * n
    return kept[:n]


def names_held_out(wanted_attributes: Tensor, vocabulary: Vocabulary = SCENES) -> Tensor:
    """Which attributes (B, 2, 4) hold a pair held out, bool (B,)."""
    shapes, colors = vocabulary.shapes, vocabulary.colors
    pairs = [(shapes.index(shape), colors.index(color)) for color, shape in vocabulary.held_out]
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


def say(wanted_attributes: Tensor, phrasing: Tensor | None = None, vocabulary: Vocabulary = SCENES) -> list[str]:
    """Captions of attributes (B, 2, 4), each in the phrasing of its number (B,), the first one unless given."""
    numbers = [0] * len(wanted_attributes) if phrasing is None else phrasing.tolist()
    captions = []
    for (first, second), number in zip(wanted_attributes.tolist(), numbers, strict=True):
        text = vocabulary.phrasings[0 if vocabulary.sized else first[3]][number]
        captions.append(text.format(first=_noun(first, vocabulary), second=_noun(second, vocabulary)))
    return captions


def _noun(solid: list[int], vocabulary: Vocabulary) -> str:
    shape, color, texture, last = solid
    words = ["small"] * (last if vocabulary.sized else 0) + [vocabulary.textures[texture]] * (texture > 0)
    words += [vocabulary.colors[color], vocabulary.shapes[shape]]
    return " ".join(["an" if words[0][0] in "aeiou" else "a", *words])


def read_caption(caption: str, vocabulary: Vocabulary = SCENES) -> Tensor:
    """The attributes (2, 4) that a caption in any phrasing says: `say` backwards.

    Raises:
        ValueError: it is no caption of this vocabulary.
    """
    noun = r"an? (?P<{0}>[a-z ]+?)"
    for relation, texts in enumerate(vocabulary.phrasings):
        for text in texts:
            pattern = text.format(first=noun.format("first"), second=noun.format("second"))
            if match := re.fullmatch(pattern, caption):
                with contextlib.suppress(ValueError):  # words of the phrasing taken for those of a solid
                    return torch.tensor([_solid(match[name].split(), relation, vocabulary) for name in _PLACES])
    raise ValueError(f"{short(caption)} is no caption of this world")


_PLACES = "first", "second"


def _solid(words: list[str], relation: int, vocabulary: Vocabulary) -> list[int]:
    last = words[0] == "small" if vocabulary.sized else relation
    *texture, color, shape = words[1:] if vocabulary.sized and last else words
    number = vocabulary.textures.index(texture[0]) if texture else 0
    if len(texture) > 1:
        raise ValueError(f"{' '.join(words)} has more than one texture")
    return [vocabulary.shapes.index(shape), vocabulary.colors.index(color), number, int(last)]


def tokenizer(vocabulary: Vocabulary = SCENES) -> CLIPTokenizer:
    """A CLIP tokenizer that knows a vocabulary's words, each as one token, and their letters; always the same.

    The trainer of the tokenizers library numbers letters in the order of a random hash, so that a network trained with
    one tokenizer would misread the next.
    """
    merges = _merges(vocabulary.words)
    letters = sorted({letter for word in vocabulary.words for letter in word})
    names = [*letters, *(f"{letter}</w>" for letter in letters), *("".join(pair) for pair in merges)]
    vocab = {name: number for number, name in enumerate([*names, "<|startoftext|>", "<|endoftext|>"])}
    return CLIPTokenizer(vocab=vocab, merges=merges, model_max_length=LENGTH)


def vocabulary_behind(tokens: CLIPTokenizer) -> Vocabulary:
    """Whose tokenizer this is, of `VOCABULARIES`; the first one if none of them has exactly these tokens."""
    known = set(tokens.get_vocab())
    fits = (words for words in VOCABULARIES if {f"{word}</w>" for word in words.words} <= known)
    return max(fits, key=lambda words: len(words.words), default=SCENES)


def _merges(known: tuple[str, ...]) -> list[tuple[str, str]]:
    """Pairs of neighbours to join, the most frequent first and then by the alphabet, until each word is one piece."""
    words, merges = [[*word[:-1], f"{word[-1]}</w>"] for word in known], []
    while count := Counter(pair for word in words for pair in pairwise(word)):
        best = min(count, key=lambda pair: (-count[pair], pair))
        merges.append(best)
        for word in words:
            for i in range(len(word) - 2, -1, -1):
                if tuple(word[i : i + 2]) == best:
                    word[i : i + 2] = ["".join(best)]
    return merges


def check_prompt(prompt: str, vocabulary: Vocabulary = SCENES) -> None:
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
    unknown = [*dict.fromkeys(word for word in words if word not in vocabulary.words)]
    if unknown:
        near = {word: difflib.get_close_matches(word[:_LONGEST], vocabulary.words, 3, 0.4) for word in unknown[:_NAMED]}
        near = {word: close or vocabulary.colors[:3] for word, close in near.items()}
        suggestions = "; ".join(
            f"{short(word, _LONGEST)} (did you mean {', '.join(close)}?)" for word, close in near.items()
        )
        more = f"; and {len(unknown) - _NAMED} more" if len(unknown) > _NAMED else ""
        raise ValueError(f"the prompt holds words that the text encoder has never seen: {suggestions}{more}")
    if len(words) > LENGTH - 2:
        raise ValueError(f"the prompt has {len(words)} words, of which the text encoder reads {LENGTH - 2}; shorten it")

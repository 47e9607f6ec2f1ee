"""Captions of scenes: what is there, in words, exactly; and the tokenizer of these words.

    one object     "a striped red cube"
    two objects    "a small red cube left of a checked green sphere", and other phrasings of the same (`PHRASINGS`)

`small` marks a solid among the smaller third of its world's sizes. Clutter is never named.
"""

import difflib
import re

from tokenizers import Tokenizer, models, pre_tokenizers, trainers
from torch import Tensor
from transformers import CLIPTokenizer

from distill_lib.worlds.scenes import COLORS, SHAPES, TEXTURES, Scenes, SceneSpec

__all__ = ["PHRASINGS", "WORDS", "captions", "check_prompt", "tokenizer"]

_SMALL = {1: 0.42 + 0.28 / 3, 2: 0.36 + 0.16 / 3}  # below this size, by the number of named objects
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
        {"a", "small", *TEXTURES[1:], *COLORS, *SHAPES}
        | {word for text in PHRASINGS for word in text.split() if not word.startswith("{")}
    )
)
"""All words that a caption may hold."""
LENGTH = 24
"""Tokens of a prompt with its start and its end; the longest caption has 20."""


def captions(scenes: Scenes, spec: SceneSpec, phrasing: Tensor | None = None) -> list[str]:
    """One caption a scene; for two objects in the phrasing of its number (B,), the first one unless given."""
    return [_caption(scenes, spec, i, 0 if phrasing is None else int(phrasing[i])) for i in range(len(scenes))]


def _caption(scenes: Scenes, spec: SceneSpec, i: int, phrasing: int) -> str:
    names = [f"a {_noun(scenes, spec, i, k)}" for k in range(spec.objects)]
    if spec.objects == 1:
        return names[0]
    if scenes.position[i, 0, 0] > scenes.position[i, 1, 0]:
        names.reverse()
    return PHRASINGS[phrasing].format(left=names[0], right=names[1])


def _noun(scenes: Scenes, spec: SceneSpec, i: int, k: int) -> str:
    words = ["small"] if scenes.size[i, k] < _SMALL[spec.objects] else []
    if spec.texture and scenes.texture[i, k]:
        words.append(TEXTURES[scenes.texture[i, k]])
    return " ".join([*words, list(COLORS)[scenes.color[i, k]], SHAPES[scenes.shape[i, k]]])


def tokenizer() -> CLIPTokenizer:
    """A CLIP tokenizer that knows `WORDS`, each as one token, and the letters that they are made of."""
    start, end = "<|startoftext|>", "<|endoftext|>"
    learned = Tokenizer(models.BPE(end_of_word_suffix="</w>"))
    learned.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    trainer = trainers.BpeTrainer(
        vocab_size=10_000, min_frequency=1, end_of_word_suffix="</w>", special_tokens=[], show_progress=False
    )
    learned.train_from_iterator(WORDS, trainer)
    model = learned.to_str(pretty=False)
    import json

    bpe = json.loads(model)["model"]
    vocab = dict(bpe["vocab"])
    for special in (start, end):
        vocab[special] = len(vocab)
    merges = [tuple(pair) if isinstance(pair, list) else tuple(pair.split(" ")) for pair in bpe["merges"]]
    return CLIPTokenizer(vocab=vocab, merges=merges, model_max_length=LENGTH)


def check_prompt(prompt: str) -> None:
    """Refuse a prompt with words that no caption has.

    Raises:
        ValueError: names each such word and the nearest known ones.
    """
    unknown = [word for word in re.findall(r"[^\s,.]+", prompt.lower()) if word not in WORDS]
    if unknown:
        near = {word: difflib.get_close_matches(word, WORDS, 3, 0.4) or list(COLORS)[:3] for word in unknown}
        told = "; ".join(f"{word!r} (did you mean {', '.join(found)}?)" for word, found in near.items())
        raise ValueError(f"the prompt holds words that the text encoder has never seen: {told}")

"""The first world is what it was before there was a second one: its pictures and words are those that weights know."""

import hashlib

import pytest
import torch

from distill_lib.worlds.captions import drawn_attributes, say, tokenizer
from distill_lib.worlds.pictures import WORLDS
from distill_lib.worlds.scenes import draw_scenes, rendered

# of two pictures, distances and masks of seed 7, at commit cb785aa
PICTURES = {
    "plain": "71457c3fe3f7a2de",
    "textured": "63c9d84d418c9e33",
    "cluttered": "755800a40b28780b",
    "sketch": "988f17da52c0e24b",
    "captioned": "83d094b477c72380",
    "captioned-sketch": "f9f3d580699f649e",
    "captioned-clay": "b62457bd14516871",
    "icons": "476d3f35d1ecb7db",
}


def digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()[:16]


def picture_digest(name: str) -> str:
    parts = rendered(WORLDS[name], draw_scenes(WORLDS[name], 7, torch.arange(2)))
    return digest(b"".join(part.numpy().tobytes() for part in parts))


@pytest.mark.parametrize("name", PICTURES)
def test_pictures_distances_and_masks_are_the_same_to_the_byte(name):
    assert picture_digest(name) == PICTURES[name]


def test_every_world_has_pictures_of_its_own():
    assert len({picture_digest(name) for name in WORLDS}) == len(WORLDS)


def test_captions_and_tokens_are_the_same():
    captions = say(drawn_attributes(50, 3), torch.arange(50) % 6)
    assert digest("|".join(captions).encode()) == "b55179387f6c425f"
    assert digest(str(sorted(tokenizer().get_vocab().items())).encode()) == "93f182b7d4a00c77"

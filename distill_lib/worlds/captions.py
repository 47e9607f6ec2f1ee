"""Captions of scenes: what is there, in words, exactly.

    one object    "a striped red cube"
    two objects   "a small red cube left of a checked green sphere"

`small` marks a solid among the smaller third of its world's sizes. Clutter is never named.
"""

from distill_lib.worlds.scenes import COLORS, SHAPES, TEXTURES, Scenes, SceneSpec

__all__ = ["captions"]

_SMALL = {1: 0.42 + 0.28 / 3, 2: 0.36 + 0.16 / 3}  # below this size, by the number of named objects


def captions(scenes: Scenes, spec: SceneSpec) -> list[str]:
    """One caption a scene."""
    return [_caption(scenes, spec, i) for i in range(len(scenes))]


def _caption(scenes: Scenes, spec: SceneSpec, i: int) -> str:
    names = [_noun(scenes, spec, i, k) for k in range(spec.objects)]
    if spec.objects == 1:
        return f"a {names[0]}"
    left_first = scenes.position[i, 0, 0] < scenes.position[i, 1, 0]
    return f"a {names[0]} {'left' if left_first else 'right'} of a {names[1]}"


def _noun(scenes: Scenes, spec: SceneSpec, i: int, k: int) -> str:
    words = ["small"] if scenes.size[i, k] < _SMALL[spec.objects] else []
    if spec.texture and scenes.texture[i, k]:
        words.append(TEXTURES[scenes.texture[i, k]])
    return " ".join([*words, list(COLORS)[scenes.color[i, k]], SHAPES[scenes.shape[i, k]]])

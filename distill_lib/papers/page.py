"""What the page of evidence says beside the claims: their themes, and the points that the papers leave open.

themes.yaml    claims of the second edition by what they are about
unsaid.yaml    what a paper does not say and we had to settle; and where we do otherwise than it says

A place of a point is a name in the library, a field of a recipe of shipped weights, or a field of a profile.
"""

from typing import Literal

from pydantic import Field

from distill_lib.papers.manifest import Strict, read_model


class Theme(Strict):
    """Ids of claims under one title."""

    title: str
    claims: list[str]


class Point(Strict):
    """One point of a paper that it leaves open, or that we do otherwise.

    where: item or section of the paper; of successors the paper itself.
    point: what is not said, or what the paper does.
    ours: what we do.
    code, recipes, settings: where that stands: names of the library, fields of recipes.yaml and of a profile.
    tried: artefacts in which other choices are measured.
    claims: that rest on it.
    """

    paper: Literal["guided", "sdxs", "successors"]
    where: str
    point: str
    ours: str
    code: list[str] = Field([])
    recipes: list[str] = Field([])
    settings: list[str] = Field([])
    tried: list[str] = Field([])
    claims: list[str] = Field([])


class _Themes(Strict):
    themes: list[Theme]


class Points(Strict):
    """unsaid.yaml."""

    unsaid: list[Point]
    otherwise: list[Point]


def themes() -> list[Theme]:
    """The themes, in the order of the page."""
    return read_model(_Themes, "themes.yaml").themes


def points() -> Points:
    """What the papers leave open, and where we do otherwise."""
    return read_model(Points, "unsaid.yaml")

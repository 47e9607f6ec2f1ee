"""The students of a profile: which halvings the notebooks ask for, so that all find the same runs."""

from dataclasses import replace
from typing import Any

from distill_lib.guided.halving import halve_down, stochastic_students
from distill_lib.networks.adapter import Network, Trained
from distill_lib.networks.pipeline import Latents, TextToImage
from distill_lib.profiles import Profile, Text
from distill_lib.shipped import pretrained
from distill_lib.teachers.inpainting import Masked
from distill_lib.worlds.pictures import Pictures

__all__ = ["deterministic", "for_inpainting", "for_one_strength", "in_latents", "range_of", "stochastic"]


def range_of(settings: Profile) -> tuple[float, float]:
    """Strengths that the shipped student of stage one was trained for."""
    return 0.0, pretrained.made(f"student-{settings.world}")["config"]["w_max"]


def _how(settings: Profile, pictures: Pictures, seed: int) -> dict[str, Any]:
    """What every halving of a profile shares; only the deterministic chain is watched on its way."""
    settings_of = lambda n_steps: replace(settings.halving_settings(n_steps, seed), snapshots=0)  # noqa: E731
    return {"pictures": pictures, "settings_of": settings_of, "reuse": settings.reuse}


def deterministic(settings: Profile, pictures: Pictures, seed: int) -> dict[int, Trained]:
    """Students of all w for the deterministic sampler by their steps, from the shipped student of stage one."""
    name = f"student-{settings.world}"
    first = Network(pretrained.student(settings.world).requires_grad_(False))
    watched = lambda n_steps: settings.halving_settings(n_steps, seed)  # noqa: E731
    how = _how(settings, pictures, seed) | {"w_range": range_of(settings), "settings_of": watched}
    return halve_down(first, pretrained.made(name)["weights"], settings.halving_start, **how)


def stochastic(settings: Profile, chain: dict[int, Trained], pictures: Pictures, seed: int) -> dict[int, Trained]:
    """Their counterparts for the stochastic sampler; with one step it is the same student."""
    return stochastic_students(chain, **_how(settings, pictures, seed), w_range=range_of(settings))


def for_one_strength(settings: Profile, w: float, pictures: Pictures, seed: int) -> dict[int, Trained]:
    """Students for a single w by their steps, halved from the guided pair itself."""
    name = f"teacher-{settings.world}"
    pair = Network(pretrained.teacher(settings.world).requires_grad_(False))
    how = _how(settings, pictures, seed) | {"name": f"single-{w:g}", "w_range": (w, w)}
    return halve_down(pair, pretrained.made(name)["weights"], settings.halving_start, **how)


def in_latents(
    settings: Profile, how: Text, first: tuple[Network, str], w_max: float, pictures: Latents, seed: int
) -> dict[int, Trained]:
    """Text-to-image students of all w by their steps, from a student of stage one for w up to w_max, and its key."""
    settings_of = lambda n_steps: how.halving.with_seed(1000 * seed + n_steps)  # noqa: E731
    shared = {"w_range": (0.0, w_max), "reuse": settings.reuse}
    return halve_down(*first, how.start, pictures, settings_of, "text-halving", **shared)


def for_inpainting(settings: Profile, told: TextToImage, pictures: Masked, seed: int) -> dict[int, Trained]:
    """Inpainting students of all w by their steps, from the shipped student of stage one."""
    how, made = settings.latent, pretrained.made(f"inpaintstudent-{settings.latent.pipeline}")
    first = pretrained.inpaint_network("inpaintstudent", how.pipeline, told)
    settings_of = lambda n_steps: how.inpainting.with_seed(1000 * seed + n_steps)  # noqa: E731
    w_range = 0.0, made["config"]["w_max"]
    name = "inpaint-halving"
    return halve_down(
        first, made["weights"], how.start, pictures, settings_of, name, w_range=w_range, reuse=settings.reuse
    )

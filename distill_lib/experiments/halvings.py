"""The students of a profile: which halvings the notebooks ask for, so that all find the same runs."""

from dataclasses import replace

from distill_lib.diffusion.schedules import step_counts
from distill_lib.engine.loop import TrainSettings
from distill_lib.guided.halving import Halving, halve_down, stochastic_students
from distill_lib.networks.adapter import Keyed, Network, Trained
from distill_lib.networks.pipeline import Latents, TextToImage
from distill_lib.profiles import Profile, Text
from distill_lib.shipped import pretrained
from distill_lib.worlds.pictures import Pictures


def range_of(settings: Profile) -> tuple[float, float]:
    """Strengths that the shipped student of stage one was trained for."""
    return 0.0, pretrained.made(f"student-{settings.world}")["config"]["w_max"]


def _plan(settings: Profile, seed: int, w_range: tuple[float, float]) -> list[Halving]:
    """The halvings of a profile, watched on their way as it says."""
    counts = step_counts(settings.halving_start)
    return [Halving(n, settings.halving_settings(n, seed), w_range, reuse=settings.reuse) for n in counts]


def _unwatched(plan: list[Halving]) -> list[Halving]:
    """The same without snapshots: only the deterministic chain is watched on its way."""
    return [replace(halving, settings=replace(halving.settings, snapshots=0)) for halving in plan]


def deterministic(settings: Profile, pictures: Pictures, seed: int) -> dict[int, Trained]:
    """Students of all w for the deterministic sampler by their steps, from the shipped student of stage one."""
    made = pretrained.made(f"student-{settings.world}")
    first = Keyed(Network(pretrained.student(settings.world).requires_grad_(False)), made["weights"])
    return halve_down(first, pictures, _plan(settings, seed, range_of(settings)))


def stochastic(settings: Profile, chain: dict[int, Trained], pictures: Pictures, seed: int) -> dict[int, Trained]:
    """Their counterparts for the stochastic sampler; with one step it is the same student."""
    return stochastic_students(chain, pictures, _unwatched(_plan(settings, seed, range_of(settings))))


def for_one_strength(settings: Profile, w: float, pictures: Pictures, seed: int) -> dict[int, Trained]:
    """Students for a single w by their steps, halved from the guided pair itself."""
    made = pretrained.made(f"teacher-{settings.world}")
    pair = Keyed(Network(pretrained.teacher(settings.world).requires_grad_(False)), made["weights"])
    return halve_down(pair, pictures, _unwatched(_plan(settings, seed, (w, w))), f"single-{w:g}")


def _in_latents(training: TrainSettings, start: int, w_max: float, reuse: int, seed: int) -> list[Halving]:
    """The halvings of a latent network, all with the same settings but for their seeds."""
    counts = step_counts(start)
    return [Halving(n, training.with_seed(1000 * seed + n), (0.0, w_max), reuse=reuse) for n in counts]


def in_latents(
    settings: Profile, how: Text, first: tuple[Network, str], w_max: float, pictures: Latents, seed: int
) -> dict[int, Trained]:
    """Text-to-image students of all w by their steps, from a student of stage one for w up to w_max, and its key."""
    plan = _in_latents(how.halving, how.start, w_max, settings.reuse, seed)
    return halve_down(Keyed(*first), pictures, plan, "text-halving")


def for_inpainting(settings: Profile, told: TextToImage, pictures: Latents, seed: int) -> dict[int, Trained]:
    """Inpainting students of all w by their steps, from the shipped student of stage one."""
    how, made = settings.latent, pretrained.made(f"inpaintstudent-{settings.latent.pipeline}")
    first = Keyed(pretrained.inpaint_network("inpaintstudent", how.pipeline, told), made["weights"])
    plan = _in_latents(how.inpainting, how.start, made["config"]["w_max"], settings.reuse, seed)
    return halve_down(first, pictures, plan, "inpaint-halving")

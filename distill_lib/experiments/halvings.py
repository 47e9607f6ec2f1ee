"""The students of a profile: which halvings the notebooks ask for, so that all find the same runs."""

from dataclasses import replace

from distill_lib.diffusion.schedules import step_counts
from distill_lib.guided.halving import Halving, halve_down
from distill_lib.networks.adapter import Keyed, Network, Trained
from distill_lib.networks.pipeline import Latents
from distill_lib.profiles import Profile, Text
from distill_lib.shipped import pretrained
from distill_lib.worlds.pictures import Pictures


def halving_of(settings: Profile, n_steps: int, seed: int, snapshots: bool = True) -> Halving:
    """The halving of a profile to n_steps for all w, as its notebooks share it; watched on its way as it says.

    Args:
        settings, n_steps, seed: of the training.
        snapshots: keep weights on the way; only those of the deterministic chain are looked at.
    """
    training = settings.halving_settings(n_steps, seed)
    training = training if snapshots else replace(training, snapshots=0)
    return Halving(n_steps, training, pretrained.w_range(settings.world), reuse=settings.reuse)


def _plan(settings: Profile, seed: int, snapshots: bool = True) -> list[Halving]:
    return [halving_of(settings, n, seed, snapshots) for n in step_counts(settings.halving_start)]


def deterministic(settings: Profile, pictures: Pictures, seed: int) -> dict[int, Trained]:
    """Students of all w for the deterministic sampler by their steps, from the shipped student of stage one."""
    made = pretrained.made(f"student-{settings.world}")
    first = Keyed(Network(pretrained.student(settings.world).requires_grad_(False)), made["weights"])
    return halve_down(first, pictures, _plan(settings, seed))


def for_one_strength(settings: Profile, w: float, pictures: Pictures, seed: int) -> dict[int, Trained]:
    """Students for a single w by their steps, halved from the guided pair itself."""
    made = pretrained.made(f"teacher-{settings.world}")
    pair = Keyed(Network(pretrained.teacher(settings.world).requires_grad_(False)), made["weights"])
    plan = [replace(halving, w_range=(w, w)) for halving in _plan(settings, seed, snapshots=False)]
    return halve_down(pair, pictures, plan, f"single-{w:g}")


def in_latents(
    settings: Profile, sizes: Text, first: tuple[Network, str], w_max: float, pictures: Latents, seed: int
) -> dict[int, Trained]:
    """Text-to-image students of all w by their steps, from a student of stage one for w up to w_max, and its key."""
    counts, reuse = step_counts(sizes.start), settings.reuse
    plan = [Halving(n, sizes.halving.with_seed(1000 * seed + n), (0.0, w_max), reuse=reuse) for n in counts]
    return halve_down(Keyed(*first), pictures, plan, "text-halving")

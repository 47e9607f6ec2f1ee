"""What notebook 17 trains: one network for all numbers of steps, and adapters in place of stage one, at equal cost."""

from collections.abc import Sequence
from dataclasses import replace

import torch

from distill_lib.diffusion.noise import Draws
from distill_lib.diffusion.schedules import step_counts
from distill_lib.engine.loop import TrainSettings, finish
from distill_lib.engine.replay import replay
from distill_lib.engine.store import Run
from distill_lib.experiments.halvings import halving_of
from distill_lib.guided.halving import Halving
from distill_lib.guided.shortcut import Shortcuts, distill_shortcut_once
from distill_lib.guided.stage_one import distill_guidance
from distill_lib.networks.adapter import Network, Parent, Trained
from distill_lib.profiles import Profile
from distill_lib.worlds.pictures import Pictures, identity

MIXTURES = {"shortcut": 1 / 4, "shortcut-own": 3 / 4}
"""Share of the samples whose target is the network's own two steps, by method: the paper's, and the reverse."""
_UPDATE = 3  # evaluations: forward, and backward, which costs two


def halving_evaluations(halving: Halving) -> int:
    """What a halving costs in network evaluations: 3 a sample and update, and 2 of the teacher a sample and target.

    The teacher is one network, as the student of stage one and each student after it are. A batch whose target is
    reused is drawn once (`engine.replay`).
    """
    updates, none, drawn = halving.settings.steps, torch.arange(0), []
    loop = ((step, Draws(0, step, none)) for step in range(updates))
    for _ in replay(loop, lambda draws: drawn.append(draws.step), halving.reuse):
        pass
    return halving.settings.batch_size * (_UPDATE * updates + 2 * len(drawn))


def shortcut_evaluations(share: float) -> float:
    """What `guided.shortcut` costs a sample and update: 3, and for its target 2 of the average or 1 of the teacher."""
    return _UPDATE + 2 * share + (1 - share)


def equal_updates(chain: Sequence[Halving], batch_size: int, share: float) -> int:
    """Updates of `guided.shortcut` that cost no more than a chain of halvings, and less by one update at most.

    Raises:
        ValueError: the chain costs less than one of them.
    """
    cost = sum(halving_evaluations(halving) for halving in chain)
    updates = int(cost / (batch_size * shortcut_evaluations(share)))
    if not updates:
        raise ValueError(f"a chain of {cost} evaluations pays for no update of batch_size={batch_size}; take a smaller")
    return updates


def chain_of(settings: Profile, seed: int) -> list[Halving]:
    """The halvings of a profile, as `halvings.deterministic` and notebook 03 train them."""
    return [halving_of(settings, n, seed) for n in step_counts(settings.halving_start)]


def shortcuts_of(settings: Profile, share: float, seed: int) -> Shortcuts:
    """One network for all steps of a chain: its settings but for the updates, which cost as much as the chain's."""
    chain = chain_of(settings, seed)
    base = chain[0].settings
    updates = equal_updates(chain, base.batch_size, share)
    training = replace(base, steps=updates, seed=1000 * seed + settings.halving_start, snapshots=0)
    return Shortcuts(settings.halving_start, training, chain[0].w_range, share)


def one_network(settings: Profile, first: Parent, mixture: str, pictures: Pictures, seed: int) -> Trained:
    """The finished network of a mixture of `MIXTURES`, from the student of stage one `first`."""
    return distill_shortcut_once(first, pictures, shortcuts_of(settings, MIXTURES[mixture], seed))


def fold_guidance(
    student: Network, teacher: Network, pictures: Pictures, settings: TrainSettings, w_max: float, title: str
) -> Trained:
    """A finished training of stage one, whatever of the student learns: all of it, or adapters alone.

    Args:
        student: starts as the teacher.
        teacher: the guided pair.
        settings, w_max: as in `guided.stage_one.distill_guidance`.
        title: of the progress.
    """
    config = {"settings": settings, "pictures": identity(pictures), "w_max": w_max, "teacher": teacher}
    config |= {"student": student}
    run = Run("folded", config, distill_guidance)
    training = distill_guidance(student, teacher, pictures, settings, run, w_max)
    return Trained(student, finish(student, training, run, title), run)

"""Seeds that keep what measures apart from what trains: one range for each use.

Scenes, prompts and noise are counted (`noise`): what is drawn depends on a seed and a number. Trainings draw from the
seeds of their recipes, below 700; whatever is measured with draws from a range of its own.
"""

HELD_OUT_SEEDS: dict[str, range] = {
    "pairs": range(700, 710),  # noise of a teacher's answers that students are compared with
    "shown": range(999, 1000),  # scenes to look at
    "measured": range(1000, 1010),  # pictures of a world behind the metrics, by part
    "looks": range(1010, 1020),  # scenes in several looks
    "twins": range(2000, 2010),  # scenes in two looks, for transfer
    "looks again": range(2010, 2020),  # others, for what is left between two true sets
    "probe": range(3000, 3010),  # pictures that a probe for looks is fitted to
    "edits": range(5000, 5010),  # scenes before and after an edit
    "steered": range(7000, 7010),  # scenes with maps
    "truth": range(8000, 8010),  # prompts and noise of the teacher that independent pictures are compared with
}
"""By use, one seed for each number: mostly the seed of a notebook's run."""
TRAINING_SEEDS = range(100, 110)
"""Of prompts and noise that a notebook's own pairs are made from, where the run's seed itself draws those measured."""
_MOST = 10_000


def _seed(seeds: range, number: int) -> int:
    if not 0 <= number < _MOST:
        raise ValueError(f"seed={number} cannot be kept apart from the others; take one from 0 to {_MOST - 1}")
    return seeds[number] if number < len(seeds) else _MOST * seeds.start + number


def held_out_seed(use: str, number: int = 0) -> int:
    """The seed of a use of `HELD_OUT_SEEDS` for the number of a run or a part.

    Beyond the range it is 10,000 times the start of the range plus the number. Numbers are below 10,000 and starts
    differ, so no two uses share a seed.

    Raises:
        ValueError: there is no such use, or the number is negative or above 9999.
    """
    if use not in HELD_OUT_SEEDS:
        raise ValueError(f"use={use!r} has no seeds; choose one of {', '.join(HELD_OUT_SEEDS)}, or add a range")
    return _seed(HELD_OUT_SEEDS[use], number)


def training_seed(number: int = 0) -> int:
    """The seed of prompts and noise of a notebook's own pairs, for the number of a run; raises as `held_out_seed`."""
    return _seed(TRAINING_SEEDS, number)

"""A bank of batches: where a batch is dear, since its target evaluates a teacher, it may serve several updates.

With `reuse` = r > 1 the steps fall into spans of `BANK` * r. In each span `BANK` batches are drawn and gone through in
turn, r times:  b_0 b_1 .. b_19  b_0 b_1 .. b_19  ..  A batch is a function of the step that it is drawn for, and a run
that was killed draws again what it still needs.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from typing import TypeVar

from distill_lib.diffusion.noise import Draws

BANK = 20
"""Batches that are gone through before any of them is used again."""
Batch = TypeVar("Batch")


def replay(
    loop: Iterable[tuple[int, Draws]], batch_of: Callable[[Draws], Batch], reuse: int = 1
) -> Iterator[tuple[Draws, Batch]]:
    """The draws and the batch of each step of a `Loop`, or of what is left of it.

    Args:
        loop: steps and their draws; a step that comes several times in a row has as many slices.
        batch_of: makes a batch of the draws of the step that it is first used at.
        reuse: updates that a batch serves; with 1 each step has its own, and none is kept.

    Returns:
        For each step the draws that its batch was made of, and the batch.
    """
    bank = BANK if reuse > 1 else 1
    kept: dict[tuple[int, int], tuple[Draws, Batch]] = {}
    now, part = -1, 0
    for step, draws in loop:
        now, part = step, part + 1 if step == now else 0  # the slice of a step
        start = step - step % (bank * reuse)
        first = start + step % bank  # the step that this batch was drawn for
        if (first, part) not in kept:
            kept = {drawn: both for drawn, both in kept.items() if drawn[0] >= start and reuse > 1}
            kept[first, part] = (first_draws := replace(draws, step=first)), batch_of(first_draws)
        yield kept[first, part]

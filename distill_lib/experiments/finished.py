"""What is left of a training that is over: the student, and nothing that trained it.

A loop and what a signal calls hold each other, and so do the networks of a team (`engine.trainable.Team`). Such rings
wait for Python's collector, which looks seldom where a million objects live. Until then they hold the averages, the
moments of the optimiser and the online model: of the small U-Net after score distillation ten times its own size.
"""

import gc

from distill_lib.networks.adapter import Trained


def finished(trained: Trained) -> Trained:
    """The same student, which calls its own module and no team's; what trained it is freed now."""
    trained.net.forward = trained.net.module
    gc.collect()
    return trained

"""Training undistilled networks that predict x, eps, v or (x, eps), each under a weighting of its error.

Salimans and Ho 2022 (arXiv 2202.00512), section 4 and Table 1. With v and SNR + 1 it is `methods.teacher` without the
dropped class.
"""

from collections.abc import Iterator

from distill_lib.losses.heads import head_loss
from distill_lib.models import Network
from distill_lib.schedules import OURS
from distill_lib.store import Run
from distill_lib.training import Loop, Progress, TrainSettings
from distill_lib.worlds.datasets import Pictures

__all__ = ["train_head"]


def train_head(
    net: Network, head: str, weighting: str, pictures: Pictures, settings: TrainSettings, run: Run
) -> Iterator[Progress]:
    """Train net.module on pictures; head and weighting are names of `losses.heads`."""
    loop = Loop(net, settings, run)
    for _, draws in loop:
        x, label = pictures.batch(draws.integer("picture", len(pictures)).cpu(), loop.device)
        t = 1 + draws.integer("t", OURS.T - 1)
        yield loop.update(head_loss(net, head, weighting, x, draws.normal("eps", x.shape[1:]), t, label))

"""Training the teacher: a conditional diffusion model whose condition is sometimes dropped.

Ho and Salimans 2022 (arXiv 2207.12598), Algorithm 1, in v (Salimans and Ho 2022, arXiv 2202.00512, section 4).
"""

from collections.abc import Iterator

from distill_lib.diffusion.errors import v_loss
from distill_lib.diffusion.guidance import dropped
from distill_lib.engine.loop import Loop, Progress, TrainSettings
from distill_lib.engine.store import Run
from distill_lib.networks.adapter import Network
from distill_lib.worlds.pictures import Pictures


def train_teacher(
    net: Network, pictures: Pictures, settings: TrainSettings, run: Run, drop: float = 0.1
) -> Iterator[Progress]:
    """Train net.module on pictures; with probability `drop` the condition is replaced by the null one."""
    loop = Loop(net, settings, run)
    for _, draws in loop:
        x, label = pictures.batch(draws.integer("picture", len(pictures)).cpu(), loop.device)
        label = dropped(label, net.null, draws.uniform("drop") < drop)
        t = 1 + draws.integer("t", net.schedule.T)
        eps = draws.normal("eps", x.shape[1:])
        yield loop.update(v_loss(net, x, eps, t, label, net.schedule))

"""A one-step student learns a style's LoRA (Fig. 4): by feature matching, or by Algorithm 1.

A one-step student learns its own LoRA as in SDXS (Song et al. 2024, arXiv 2403.16627, Fig. 4): by Algorithm 1, with
the style's LoRA merged into the offline network, into the teacher behind the pairs, and not into the online network.
The student's own weights stand still.

Differs from the paper: convolutions of residual units change as well as attention layers, since our U-Nets have few of
the latter; and the offline LoRA is merged, which changes no answer.
"""

import copy
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from distill_lib.engine import store
from distill_lib.engine.loop import TrainSettings, finish
from distill_lib.networks.adapter import Network
from distill_lib.networks.lora import lora_of, merged, with_adapter
from distill_lib.sdxs.one_step import Matching, regressed
from distill_lib.sdxs.score_distillation import Segment, Team, distill_scores
from distill_lib.teachers.latents import Pairs


@dataclass(frozen=True)
class Learned:
    """A student with its own LoRA merged, that LoRA, the curve of the training as (step, loss), and its run's key."""

    net: Network
    lora: dict[str, Tensor]
    curve: list[tuple[float, float]]
    key: str


def _learned(student: Network, trained: Network, curve: list[tuple[float, float]], key: str) -> Learned:
    lora = lora_of(trained.module)
    return Learned(merged(student, (lora, 1.0)), lora, curve, key)


def learned_by_matching(
    student: Network, pairs: Pairs, cost: Matching, about: dict[str, Any], settings: TrainSettings, rank: int
) -> Learned:
    """A student's LoRA by a loss on pairs alone (eq. 10); arguments as in `one_step.regressed`."""
    net = with_adapter(student, rank, settings.seed)
    done = regressed(net, pairs, cost, about | {"rank": rank, "trained": "adapter"}, settings)
    return _learned(student, net, done.curve, done.key)


def learned_by_scores(
    student: Network,
    pairs: Pairs,
    cost: Matching,
    networks: tuple[Network, Network],
    about: dict[str, Any],
    settings: TrainSettings,
    *,
    rank: int,
    segment: Segment,
    w: float,
    start: Learned | None = None,
    **how: Any,
) -> Learned:
    """A student's LoRA by Algorithm 1.

    Args:
        student: of one step, with its own weights, which stay as they are.
        pairs, cost, about, settings: as in `score_distillation.scored`; the pairs are those of the teacher, with the
            style or not.
        networks: the offline network, and what the online one starts as a copy of.
        rank: of the LoRA.
        segment, w, how: as in `sdxs.score_distillation.distill_scores`.
        start: after a warm-up; without it the LoRA starts at nothing.
    """
    offline, first = networks
    net = with_adapter(student, rank, settings.seed, start and start.lora)
    team = Team(net, first.like(copy.deepcopy(first.module).requires_grad_(True)))
    config = {"settings": settings, "pairs": pairs, "student": student, "cost": cost, "networks": networks}
    config |= {"rank": rank, "segment": segment, "w": w} | how | about
    config |= {"warm": start.key if start else "none"}
    run = store.Run("lora", config, learned_by_scores)
    training = distill_scores(team, offline, pairs, settings, run, matching=cost, segment=segment, w=w, **how)
    return _learned(student, net, finish(team, training, run, "LoRA by scores"), run.key)

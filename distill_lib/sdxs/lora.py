"""A one-step student learns a style's LoRA (Fig. 4): by feature matching, or by Algorithm 1.

SDXS (Song et al. 2024, arXiv 2403.16627), Fig. 4: by Algorithm 1, with the LoRA of the style merged into the offline
network, into the teacher behind the pairs, and not into the online network. The student's own weights stand still.

Differs from the paper: convolutions of residual units change as well as attention layers, since our U-Nets have few of
the latter; and the offline LoRA is merged, which changes no answer.
"""

import copy
from dataclasses import dataclass

from torch import Tensor

from distill_lib.engine.loop import TrainSettings, finish
from distill_lib.engine.store import Run
from distill_lib.engine.trainable import Team
from distill_lib.networks.adapter import Network
from distill_lib.networks.lora import lora_of, merged
from distill_lib.sdxs.one_step import Matching, regressed
from distill_lib.sdxs.score_distillation import Scoring, distill_scores
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
    student: Network, adapted: Network, pairs: Pairs, cost: Matching, settings: TrainSettings
) -> Learned:
    """A student's LoRA by a loss on pairs alone (eq. 10); arguments as in `learned_by_scores`."""
    done = regressed(adapted, pairs, cost, settings)
    return _learned(student, adapted, done.curve, done.key)


def learned_by_scores(
    student: Network,
    adapted: Network,
    pairs: Pairs,
    cost: Matching,
    networks: tuple[Network, Network],
    scoring: Scoring,
) -> Learned:
    """A student's LoRA by Algorithm 1.

    Args:
        student: of one step.
        adapted: a copy of it with the adapter that is trained (`networks.lora.with_adapter`).
        pairs, cost, scoring: as in `score_distillation.scored`; the pairs are those of the teacher, with the style or
            not.
        networks: the offline network, and what the online one starts as a copy of.
    """
    offline, first = networks
    team = Team(student=adapted, online=first.like(copy.deepcopy(first.module).requires_grad_(True)))
    config = {"scoring": scoring, "pairs": pairs, "student": adapted, "cost": cost, "networks": networks}
    run = Run("lora", config, learned_by_scores)
    training = distill_scores(team, offline, pairs, cost, scoring, run)
    return _learned(student, adapted, finish(team, training, run, "LoRA by scores"), run.key)

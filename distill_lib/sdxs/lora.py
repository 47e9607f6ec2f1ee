"""A one-step student learns a style's LoRA (Fig. 4): by feature matching, or by Algorithm 1.

SDXS (Song et al. 2024, arXiv 2403.16627), Fig. 4: by Algorithm 1, with the LoRA of the style merged into the offline
network, into the teacher behind the pairs, and not into the online network. The student's own weights stand still.

Differs from the paper: convolutions of residual units change as well as attention layers, since our U-Nets have few of
the latter; and the offline LoRA is merged, which changes no answer. How the online model learns is not said there: with
all of its weights it forgets a style that it starts with in dozens of updates, so here it may learn through an adapter
of its own (`scoring.Scoring.online_rank`), over weights that stand still.
"""

from dataclasses import dataclass

from torch import Tensor

from distill_lib.networks.adapter import Network, Trained
from distill_lib.networks.lora import lora_of, merged


@dataclass(frozen=True)
class TrainedLora:
    """A student with its own LoRA merged, that LoRA, the curve of the training as (step, loss), and its run's key."""

    net: Network
    lora: dict[str, Tensor]
    curve: list[tuple[float, float]]
    key: str

    @classmethod
    def of(cls, student: Network, adapted: Trained) -> "TrainedLora":
        """What a student has learned whose adapter (`networks.lora.with_adapter`) was trained.

        The trainings are those of the student itself, `one_step.fit_on_pairs` and `score_distillation.fit_by_scores`.
        """
        lora = lora_of(adapted.net.module)
        return cls(merged(student, (lora, 1.0)), lora, adapted.curve, adapted.key)

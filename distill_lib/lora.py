"""Style LoRAs: low-rank changes of some layers of a U-Net, kept, checked, merged and learned.

    W' = W + sum_i s_i B_i A_i        A (r, in), B (out, r); of a convolution, A has its kernel and B is 1 x 1       (1)

Hu et al. 2021 (arXiv 2106.09685). s is the scale at which a style is asked for, and styles add. Files are
read and written by `lora_files`, layers are PEFT's: this module only says which layers, and refuses a LoRA of another
network.

A one-step student learns its own LoRA as in SDXS (Song et al. 2024, arXiv 2403.16627, Fig. 4): by Algorithm 1, with
the style's LoRA merged into the offline network, into the teacher behind the pairs, and not into the online network.
The student's own weights stand still.

Differs from the paper: convolutions of residual units change as well as attention layers, since our U-Nets have few of
the latter; and the offline LoRA is merged, which changes no answer.
"""

import copy
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from diffusers import UNet2DConditionModel
from peft.utils import get_peft_model_state_dict
from torch import Tensor

from distill_lib import sdxs, store
from distill_lib.lora_files import LORA_FILE, load_lora, save_lora
from distill_lib.methods.adversarial_tuning import add_low_rank
from distill_lib.methods.pair_regression import Pairs
from distill_lib.methods.score_distillation import Segment, Team, distill_scores
from distill_lib.models import Network
from distill_lib.pipelines import TextToImage
from distill_lib.training import TrainSettings, finish

__all__ = [
    "LORA_FILE",
    "Learned",
    "check_base",
    "learned_by_matching",
    "learned_by_scores",
    "load_lora",
    "lora_of",
    "merged",
    "named",
    "save_lora",
    "styled",
    "with_adapter",
]

Lora = Mapping[str, Tensor]
"""`<layer>.lora_A.weight` and `<layer>.lora_B.weight` of each layer that changes; alpha is the rank, so that s is 1."""


def lora_of(unet: UNet2DConditionModel) -> dict[str, Tensor]:
    """The weights of the adapter that a U-Net holds, copied."""
    return {name: value.detach().cpu().clone() for name, value in get_peft_model_state_dict(unet).items()}


def named(unet: UNet2DConditionModel, lora: Lora) -> dict[str, Tensor]:
    """A LoRA with kohya's names of layers, which hold underscores for dots, turned into the network's own."""
    own = {f"lora_unet_{name.replace('.', '_')}": name for name, _ in unet.named_modules()}
    ends = len(".lora_A.weight")
    return {own.get(name[:-ends], name[:-ends]) + name[-ends:]: value for name, value in lora.items()}


def check_base(unet: UNet2DConditionModel, lora: Lora) -> None:
    """Refuse a LoRA that belongs to another network.

    Raises:
        ValueError: names how many layers do not fit and the first of them.
    """
    layers, wrong = dict(unet.named_modules()), []
    ends = {".lora_A.weight": 1, ".lora_B.weight": 0}  # of the layer's own weight (out, in, ..)
    for name, value in named(unet, lora).items():
        layer, side = name[: -len(".lora_A.weight")], name[-len(".lora_A.weight") :]
        weight = getattr(layers.get(layer), "weight", None)
        if weight is None or side not in ends:
            wrong.append(f"{layer} is no layer of it")
        elif weight.shape[ends[side]] != value.shape[ends[side]]:
            wrong.append(
                f"{layer} has {weight.shape[ends[side]]} channels where the LoRA has {value.shape[ends[side]]}"
            )
        elif len(weight.shape) != len(value.shape) or (".lora_A" in side and weight.shape[2:] != value.shape[2:]):
            wrong.append(f"{layer} has weights {tuple(weight.shape)} where the LoRA has {tuple(value.shape)}")
    if wrong:
        raise ValueError(
            f"this LoRA was made for another network: {len(wrong)} of its {len(lora)} weights do not fit ({wrong[0]}); "
            "use it with the network that it was trained on"
        )


def merged(net: Network, *loras: tuple[Lora, float]) -> Network:
    """(1): a copy of a network with LoRAs, each at its scale, added to its weights.

    Raises:
        ValueError: as `check_base`.
    """
    unet = copy.deepcopy(net.module)
    for lora, _ in loras:
        check_base(unet, lora)
    for lora, scale in loras:
        unet.load_lora_adapter(named(unet, lora), prefix=None)
        unet.fuse_lora(lora_scale=scale)
        unet.unload_lora()
    return net.like(unet.eval().requires_grad_(False))


def styled(told: TextToImage, *loras: tuple[Lora, float]) -> TextToImage:
    """A pipeline whose network is `merged` with LoRAs; it shares all else. Raises as `check_base`."""
    return replace(told, network=merged(told.network, *loras))


@dataclass(frozen=True)
class Learned:
    """A student with its own LoRA merged, that LoRA, the curve of the training as (step, loss), and its run's key."""

    net: Network
    lora: dict[str, Tensor]
    curve: list[tuple[float, float]]
    key: str


def with_adapter(student: Network, rank: int, seed: int, start: Lora | None = None) -> Network:
    """A copy of a frozen student with an adapter to train: a fresh one, which changes nothing yet, or `start`."""
    net = student.like(copy.deepcopy(student.module))
    torch.manual_seed(seed)
    add_low_rank(net, rank)
    if start is not None:
        given = {name.replace(".weight", ".default.weight"): value for name, value in start.items()}
        net.module.load_state_dict(given, strict=False)
    return net


def _learned(student: Network, trained: Network, curve: list[tuple[float, float]], key: str) -> Learned:
    lora = lora_of(trained.module)
    return Learned(merged(student, (lora, 1.0)), lora, curve, key)


def learned_by_matching(
    student: Network, pairs: Pairs, cost: sdxs.Matching, about: dict[str, Any], settings: TrainSettings, rank: int
) -> Learned:
    """A student's LoRA by a loss on pairs alone (eq. 10); arguments as in `sdxs.regressed`."""
    net = with_adapter(student, rank, settings.seed)
    done = sdxs.regressed(net, pairs, cost, about | {"rank": rank, "trained": "adapter"}, settings)
    return _learned(student, net, done.curve, done.key)


def learned_by_scores(
    student: Network,
    pairs: Pairs,
    cost: sdxs.Matching,
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
        pairs, cost, about, settings: as in `sdxs.scored`; the pairs are those of the teacher, with the style or not.
        networks: the offline network, and what the online one starts as a copy of.
        rank: of the LoRA.
        segment, w, how: as in `methods.score_distillation.distill_scores`.
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

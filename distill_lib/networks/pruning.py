"""Block removal: a small U-Net from a large one, by its configuration and then by its weights.

SDXS (Song et al. 2024, arXiv 2403.16627), section 3.1, after BK-SDM (Kim et al. 2023, arXiv 2305.15798). What is kept
starts from the teacher's weights; in an up stage with fewer units the last one copies the teacher's last, which is the
one of its shape.

    SDXS_512     Stable Diffusion 2.1 base, 865,910,724 weights, to 318,695,364
    SDXS_1024    Stable Diffusion XL, 2,567,463,684 weights, to 745,225,604
"""

import contextlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from diffusers import UNet2DConditionModel
from torch import Tensor, nn

from distill_lib.networks.unet import config_of


@dataclass(frozen=True, kw_only=True)
class Cut:
    """What is removed.

    middle: `kept`, `plain` (one convolution unit without attention), or `removed`.
    innermost: the last down stage and the first up stage go.
    finest: the stages of the highest resolution lose their attention to text.
    layers: units a down stage keeps, and one more an up stage; None: all.
    depths: transformer blocks kept at each attention, by stage from the highest resolution; None: all.
    """

    middle: Literal["kept", "plain", "removed"] = "kept"
    innermost: bool = False
    finest: bool = False
    layers: int | None = None
    depths: tuple[int, ...] | None = None


SDXS_512 = Cut(middle="removed", innermost=True, finest=True, layers=1)
SDXS_1024 = Cut(middle="plain", depths=(1, 1, 2))
_PLAIN = {"CrossAttnDownBlock2D": "DownBlock2D", "CrossAttnUpBlock2D": "UpBlock2D"}
_BY_STAGE = ("attention_head_dim", "num_attention_heads", "cross_attention_dim", "layers_per_block")


def pruned_config(config: dict[str, Any], cut: Cut) -> dict[str, Any]:
    """The arguments of diffusers' U-Net that is left of one with these.

    Raises:
        ValueError: the cut asks for what is not there: an only stage, more units or depths than there are.
    """
    new = dict(config)
    levels = len(config["block_out_channels"])
    if cut.middle != "kept":
        if config.get("mid_block_type", "UNetMidBlock2DCrossAttn") is None:
            raise ValueError(f"middle={cut.middle!r}: the network has no middle stage")
        new["mid_block_type"] = "UNetMidBlock2D" if cut.middle == "plain" else None
    if cut.innermost:
        if levels < 2:
            raise ValueError("innermost=True: the network has one stage only")
        new["block_out_channels"] = tuple(config["block_out_channels"])[:-1]
        new["down_block_types"] = tuple(config["down_block_types"])[:-1]
        new["up_block_types"] = tuple(config["up_block_types"])[1:]
        for name in (*_BY_STAGE, "transformer_layers_per_block", "only_cross_attention"):
            if isinstance(config.get(name), list | tuple):
                new[name] = tuple(config[name])[:-1]
    if cut.finest:
        down, up = list(new["down_block_types"]), list(new["up_block_types"])
        down[0], up[-1] = _PLAIN.get(down[0], down[0]), _PLAIN.get(up[-1], up[-1])
        new["down_block_types"], new["up_block_types"] = tuple(down), tuple(up)
    if cut.layers is not None:
        had = config["layers_per_block"]
        if not 1 <= cut.layers <= (min(had) if isinstance(had, list | tuple) else had):
            raise ValueError(f"layers={cut.layers}: the network has {had} a stage")
        new["layers_per_block"] = cut.layers
    if cut.depths is not None:
        n_stages = len(new["block_out_channels"])
        had = config["transformer_layers_per_block"]
        had = (had,) * n_stages if isinstance(had, int) else tuple(had)[:n_stages]
        if len(cut.depths) != n_stages or any(n < 1 or n > most for n, most in zip(cut.depths, had, strict=False)):
            raise ValueError(f"depths={cut.depths}: the network has {had}")
        new["transformer_layers_per_block"] = cut.depths
    return new


def prune(teacher: UNet2DConditionModel, cut: Cut, inherit: bool = True) -> UNet2DConditionModel:
    """The student that a cut leaves, with the teacher's weights where it keeps them, or with random ones.

    Raises:
        ValueError: as `pruned_config`; or a kept layer has no counterpart of its shape in the teacher.
    """
    with torch.device(next(teacher.parameters()).device):
        student = UNet2DConditionModel(**pruned_config(config_of(teacher), cut))
    if not inherit:
        return student
    gone = len(teacher.up_blocks) - len(student.up_blocks)
    start_from(student, teacher, lambda name: _source(name, teacher, student, gone))
    return student


def start_from(net: nn.Module, other: nn.Module, source_of: Callable[[str], str | None]) -> None:
    """Give a network weights of another one, each by its name there; those without a name stay as they are.

    Raises:
        ValueError: there is none of the name and the shape.
    """
    have, weights = other.state_dict(), net.state_dict()
    for name, value in weights.items():
        if (source := source_of(name)) is None:
            continue
        if source not in have or have[source].shape != value.shape:
            present = tuple(have[source].shape) if source in have else "nothing"
            raise ValueError(f"{name} {tuple(value.shape)} would start from {source}: {present}; this cut does not fit")
        weights[name] = have[source]
    net.load_state_dict(weights)


def _source(name: str, teacher: UNet2DConditionModel, student: UNet2DConditionModel, gone: int) -> str:
    """The teacher's name of the weight that one of the student's starts from."""
    parts = name.split(".")
    if parts[0] != "up_blocks":
        return name
    stage = int(parts[1])
    parts[1] = str(stage + gone)
    if parts[2] in ("resnets", "attentions"):
        n_student, n_teacher = (len(net.up_blocks[k].resnets) for net, k in ((student, stage), (teacher, stage + gone)))
        unit = int(parts[3])
        parts[3] = str(n_teacher - 1 if unit == n_student - 1 else unit)
    return ".".join(parts)


def stages(unet: UNet2DConditionModel, down: bool = True) -> Iterator[nn.Module]:
    """Where student and teacher are compared: the last unit of each down and each up stage, before any resampling.

    Differs from the paper: it taps whole stages; but the last down stage of a cut network has lost its downsampler.

    Args:
        unet: the network.
        down: with the down stages, or the up stages alone, as for a ControlNet.
    """
    blocks: Sequence[nn.Module] = [*(unet.down_blocks if down else ()), *unet.up_blocks]
    for block in blocks:
        yield (getattr(block, "attentions", None) or block.resnets)[-1]


def bottleneck(unet: UNet2DConditionModel) -> nn.Module:
    """Where a U-Net is smallest: its middle stage, or where that went the last unit of its last down stage."""
    return unet.mid_block if unet.mid_block is not None else list(stages(unet))[len(unet.down_blocks) - 1]


def counterparts(
    student: UNet2DConditionModel, teacher: UNet2DConditionModel, down: bool = True
) -> tuple[list[nn.Module], list[nn.Module]]:
    """The `stages` of a cut network, and those of the network it was cut from that stand beside them."""
    first = len(teacher.down_blocks) if down else 0
    teacher_stages, student_stages = list(stages(teacher, down)), list(stages(student, down))
    kept = len(student.down_blocks) if down else 0
    return student_stages, teacher_stages[:kept] + teacher_stages[
        first + len(teacher.up_blocks) - len(student.up_blocks) :
    ]


@contextlib.contextmanager
def tapped(modules: Iterable[nn.Module]) -> Iterator[list[Tensor]]:
    """A list that the outputs of modules go into, in the order in which they are called, while the block lasts."""
    outputs: list[Tensor] = []

    def keep(_module: nn.Module, _given: Any, out: Any) -> None:
        outputs.append(out if isinstance(out, Tensor) else out[0])

    hooks = [module.register_forward_hook(keep) for module in modules]
    try:
        yield outputs
    finally:
        for hook in hooks:
            hook.remove()

"""Low-rank changes of some layers of a U-Net: made, read, checked and merged.

    W' = W + sum_i s_i B_i A_i        A (r, in), B (out, r); of a convolution, A has its kernel and B is 1 x 1       (1)

Hu et al. 2021 (arXiv 2106.09685). s is the scale at which a style is asked for, and styles add. Files are
read and written by `lora_files`, layers are PEFT's: this module only says which layers, and refuses a LoRA of another
network.
"""

import copy
from collections.abc import Mapping
from dataclasses import replace

import torch
from diffusers import UNet2DConditionModel
from peft import LoraConfig
from peft.utils import get_peft_model_state_dict
from torch import Tensor

from distill_lib.networks.adapter import Network
from distill_lib.networks.pipeline import TextToImage

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


def styled(model: TextToImage, *loras: tuple[Lora, float]) -> TextToImage:
    """A pipeline whose network is `merged` with LoRAs; it shares all else. Raises as `check_base`."""
    return replace(model, network=merged(model.network, *loras))


def with_adapter(student: Network, rank: int, seed: int, start: Lora | None = None) -> Network:
    """A copy of a frozen student with an adapter to train: a fresh one, which changes nothing yet, or `start`."""
    net = student.like(copy.deepcopy(student.module))
    torch.manual_seed(seed)
    add_low_rank(net, rank)
    if start is not None:
        given = {name.replace(".weight", ".default.weight"): value for name, value in start.items()}
        net.module.load_state_dict(given, strict=False)
    return net


_TARGETS = ["to_q", "to_k", "to_v", "to_out.0", "conv1", "conv2"]


def add_low_rank(student: Network, rank: int) -> None:
    """Freeze the student and give it an adapter of PEFT, which at first changes nothing; undone by `merge_low_rank`."""
    student.module.requires_grad_(False)
    student.module.add_adapter(LoraConfig(r=rank, lora_alpha=rank, target_modules=_TARGETS))


def merge_low_rank(student: Network) -> None:
    """Add the adapter to the weights it belongs to, so that a plain network is left."""
    student.module.fuse_lora()
    student.module.unload_lora()

"""LoRA files as they are: PEFT's names, diffusers' older ones, and kohya's, with the strength that each says it has.

    W' = W + c B A,     c = alpha / r, or alpha / sqrt(r) where `use_rslora` says so                             (1)

alpha stands in the header (`lora_adapter_metadata`: `lora_alpha`, `alpha_pattern`), or in a tensor `<layer>.alpha`;
without either it is r. c is put into B here, so that whoever merges needs not know of it. What a file asks for that (1)
does not hold (DoRA, biases, LoHa, LoKr, a text encoder's part) is refused, not dropped.
"""

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from diffusers import StableDiffusionPipeline
from peft.utils.other import get_pattern_key
from safetensors import safe_open
from torch import Tensor

from distill_lib.networks.doors import one_line

LORA_FILE = "pytorch_lora_weights.safetensors"
"""As diffusers names it."""
_ENDS = {
    ".lora_A.weight": "A", ".lora.down.weight": "A", ".lora_down.weight": "A",
    ".lora_B.weight": "B", ".lora.up.weight": "B", ".lora_up.weight": "B",
    ".alpha": "alpha",
}  # fmt: skip
_OTHER_KINDS = {
    "lora_magnitude_vector": "DoRA", "dora_scale": "DoRA", "hada_": "LoHa", "lokr_": "LoKr", "oft_": "OFT",
    "ia3_": "IA3",     ".diff": "weights in full", "lora_mid": "LoCon with a middle factor", "bias": "biases",
}  # fmt: skip
_TEXT = ("text_encoder", "lora_te")
_ELSEWHERE = ("lora_unet_input_blocks_", "lora_unet_middle_block_", "lora_unet_output_blocks_")
_HEADER = "lora_adapter_metadata"
_OFF = {"use_dora": (False, None), "lora_bias": (False, None), "bias": ("none", None), "use_qalora": (False, None)}


def save_lora(folder: Path, lora: Mapping[str, Tensor]) -> None:
    """Write a LoRA in half precision, as `StableDiffusionPipeline.load_lora_weights` reads it."""
    half = {name: value.half().contiguous() for name, value in lora.items()}
    StableDiffusionPipeline.save_lora_weights(folder, unet_lora_layers=half, safe_serialization=True)


def _read(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The tensors of a file, and what its header says of the U-Net's LoRA."""
    if not path.is_file() and (other := sorted(p.name for p in path.parent.glob("*") if p.suffix in (".bin", ".pt"))):
        raise ValueError(f"only {other[0]} is there, a pickle, which can run code and is never read; save safetensors")
    with safe_open(path, "pt") as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}
        header = (file.metadata() or {}).get(_HEADER)
    metadata = json.loads(header) if header else {}
    if not isinstance(metadata, dict):
        raise ValueError(f"its header's {_HEADER} is no JSON object; save the LoRA again")
    return tensors, {name.removeprefix("unet."): value for name, value in metadata.items()}


def _factors(tensors: dict[str, Tensor]) -> dict[str, dict[str, Tensor]]:
    """A, B and, where it is there, alpha of each layer of the U-Net."""
    for name in tensors:
        if name.startswith(_TEXT):
            raise ValueError(
                f"it changes the text encoder too ({name}), which stands still here; save its U-Net's part"
            )
        if name.startswith(_ELSEWHERE):
            raise ValueError(
                f"it names layers as Stability's own code does ({name}), which nothing here translates; take a file "
                "with diffusers' names"
            )
        if kind := next((kind for part, kind in _OTHER_KINDS.items() if part in name), None):
            raise ValueError(f"it holds {kind} ({name}); only W + c B A can be merged, a plain LoRA")
    layers: dict[str, dict[str, Tensor]] = {}
    for name, value in tensors.items():
        end = next((end for end in _ENDS if name.endswith(end)), None)
        if not name.startswith(("unet.", "lora_unet_")) or end is None:
            raise ValueError(f"it holds {name}; what is read is unet.<layer>.lora_A.weight, .lora_B.weight and .alpha")
        layers.setdefault(name.removeprefix("unet.").removesuffix(end), {})[_ENDS[end]] = value.float()
    if not layers:
        raise ValueError("it holds no LoRA of a U-Net: no name in it starts with 'unet.'")
    return layers


def _strength(layer: str, factors: dict[str, Tensor], metadata: dict[str, Any]) -> float:
    """c of (1)."""
    rank = len(factors["A"])
    patterns = metadata.get("alpha_pattern") or {}
    alpha = patterns.get(get_pattern_key(list(patterns), layer), metadata.get("lora_alpha", rank))
    if "alpha" in factors:
        alpha = factors["alpha"].item()
    if isinstance(alpha, bool) or not isinstance(alpha, int | float) or not math.isfinite(alpha):
        raise ValueError(f"{layer} has alpha={alpha!r}; a number is due")
    return alpha / (math.sqrt(rank) if metadata.get("use_rslora") else rank)


def load_lora(place: Path) -> dict[str, Tensor]:
    """A LoRA from a folder, or from a file of any name, in float32, its strength put into B.

    Returns:
        `<layer>.lora_A.weight` (r, in, ..) and `<layer>.lora_B.weight` (out, r, ..) of each layer that changes; kohya's
        layers keep their names, `lora_unet_` and underscores, until the network is known (`lora.named`).

    Raises:
        ValueError: there is no such file, it is broken, or it holds anything but a plain LoRA of a U-Net.
    """
    path = place if place.is_file() else place / LORA_FILE
    try:
        tensors, metadata = _read(path)
        if odd := [name for name, allowed in _OFF.items() if metadata.get(name) not in (*allowed, [])]:
            raise ValueError(
                f"its header says {odd[0]}={metadata[odd[0]]!r}; only W + c B A can be merged, a plain LoRA"
            )
        lora = {}
        for layer, factors in _factors(tensors).items():
            if not {"A", "B"} <= set(factors):
                raise ValueError(f"{layer} has only one of its two factors; save the LoRA again")
            a, b = factors["A"], factors["B"]
            if a.ndim < 2 or b.ndim < 2 or len(a) != b.shape[1] or not len(a):
                raise ValueError(f"{layer} has factors {tuple(a.shape)} and {tuple(b.shape)}, which share no rank")
            b = b * _strength(layer, factors, metadata)
            if not (a.isfinite().all() and b.isfinite().all()):
                raise ValueError(f"{layer} holds numbers that are not finite; fetch or train it again")
            lora |= {f"{layer}.lora_A.weight": a, f"{layer}.lora_B.weight": b}
    except Exception as error:
        raise ValueError(f"{path} cannot be used: {one_line(error)}") from error
    return lora

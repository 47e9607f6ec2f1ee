"""What is kept of an unfinished training, as tensors by name: weights, their average, and the optimiser's moments."""

from collections.abc import Iterable, Mapping, Sequence

import torch
from torch import Tensor, nn


def packed(
    names: Iterable[str],
    parameters: Sequence[nn.Parameter],
    averages: Sequence[Tensor],
    optimizer: torch.optim.Optimizer,
) -> dict[str, Tensor]:
    """Tensors by `<kind>.<name of the parameter>`; without moments where there has been no gradient."""
    state: dict[str, Tensor] = {}
    for name, parameter, average in zip(names, parameters, averages, strict=True):
        kept = {"weight": parameter, "average": average} | _moments_of(optimizer, parameter)
        state |= {f"{kind}.{name}": value for kind, value in kept.items()}
    return state


@torch.no_grad()
def unpacked(
    state: Mapping[str, Tensor],
    names: Iterable[str],
    parameters: Sequence[nn.Parameter],
    averages: Sequence[Tensor],
    optimizer: torch.optim.Optimizer,
) -> None:
    """Give parameters, averages and optimiser what `packed` had of them."""
    kept: dict[str, dict[str, Tensor]] = {name: {} for name in names}
    for key, value in state.items():
        kind, _, name = key.partition(".")
        kept[name][kind] = value
    for of, parameter, average in zip(kept.values(), parameters, averages, strict=True):
        parameter.copy_(of.pop("weight"))
        average.copy_(of.pop("average"))
        _set_moments(optimizer, parameter, of)


def _moments_of(optimizer: torch.optim.Optimizer, parameter: nn.Parameter) -> dict[str, Tensor]:
    """What an optimiser keeps of a parameter, by kind; bitsandbytes counts steps by a number, and shares its tables."""
    kept = optimizer.state[parameter]
    if isinstance(optimizer, torch.optim.AdamW):
        return dict(kept)
    return {kind: torch.as_tensor(value).clone() for kind, value in kept.items()}


def _set_moments(optimizer: torch.optim.Optimizer, parameter: nn.Parameter, kept: Mapping[str, Tensor]) -> None:
    """Give an optimiser what `_moments_of` had of a parameter; nothing where that is empty."""
    if not kept:
        return
    state = {kind: value.to(parameter.device, copy=True) for kind, value in kept.items()}
    if not isinstance(optimizer, torch.optim.AdamW):
        state["step"] = int(state["step"])
    optimizer.state[parameter] = state

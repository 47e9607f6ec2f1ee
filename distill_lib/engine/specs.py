"""What a key holds of a value: all that tells it from another one of its kind, as plain data.

    text, number, truth, nothing      itself
    table, list, tuple, range         of its parts
    dataclass                         its qualified name and its fields: a loss that is one names itself
    function, class                   its qualified name; of a partial or a method also what is bound
    tensor                            its type, its shape and a hash of its numbers
    network                           its qualified name, its configuration, a hash of its weights, and its hooks
    pipeline of diffusers             its networks
    what has a `spec`                 that

Anything else is refused: by its address it would never be found again, and by its name it would be found too often.
"""

import dataclasses
import hashlib
from collections.abc import Mapping
from functools import partial
from inspect import isbuiltin, isclass, isfunction, ismethod, unwrap
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn


def _name(kind: Any) -> str:
    name = f"{kind.__module__}.{kind.__qualname__}"
    if isfunction(kind) and "<" in kind.__qualname__:
        raise ValueError(
            f"{name} has no name of its own, so that a key cannot hold it; use a function of a module, a partial of "
            "one, or a frozen dataclass that is called"
        )
    return name


def _hash(tensor: Tensor) -> str:
    data = tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy()
    return hashlib.sha256(data.tobytes()).hexdigest()[:16]


def _network(net: nn.Module) -> dict[str, Any]:
    config = getattr(net, "config", None)
    # what starts with _ is where it was loaded from
    kept = {k: str(v) for k, v in config.items() if k[0] != "_"} if isinstance(config, Mapping) else {}
    weights = hashlib.sha256(str([(k, spec_of(v)) for k, v in sorted(net.state_dict().items())]).encode())
    of = {"of": _name(type(net)), "config": kept, "weights": weights.hexdigest()[:16]}
    return of | ({"hooks": hooks} if (hooks := _hooks(net)) else {})


def _hooks(net: nn.Module) -> dict[str, list[Any]]:
    """Functions that change what goes into a layer of a network or comes out of it; no weights tell of them."""
    layers = net.named_modules()
    hooks_by_layer = {
        name: [*layer._forward_pre_hooks.values(), *layer._forward_hooks.values()] for name, layer in layers
    }
    return {name: spec_of(hooks) for name, hooks in hooks_by_layer.items() if hooks}


def spec_of(value: Any) -> Any:
    """What a key holds of a value, ready for JSON.

    Raises:
        ValueError: nothing tells the value apart: a lambda, a function made inside another one, an object of any sort.
    """
    if value is None or isinstance(value, str | int | float):
        return value
    if isinstance(value, Mapping):
        return {str(key): spec_of(part) for key, part in value.items()}
    if isinstance(value, list | tuple | range):
        return [spec_of(part) for part in value]
    if isinstance(value, Path | torch.dtype | torch.device):
        return str(value)
    if isinstance(value, Tensor):
        return [str(value.dtype), list(value.shape), _hash(value)]
    if isinstance(value, nn.Module):
        return _network(value)
    if isinstance(value, partial):
        return {"of": spec_of(value.func), "given": spec_of(value.args), "named": spec_of(value.keywords)}
    if ismethod(value):
        return {"of": _name(value.__func__), "self": spec_of(value.__self__)}
    if isfunction(value) or isclass(value) or isbuiltin(value):
        return _name(unwrap(value))
    if hasattr(value, "spec"):
        return {"of": _name(type(value)), "spec": spec_of(value.spec)}
    if dataclasses.is_dataclass(value):
        fields = {field.name: spec_of(getattr(value, field.name)) for field in dataclasses.fields(value)}
        return {"of": _name(type(value)), **fields}
    if isinstance(parts := getattr(value, "components", None), dict):
        return {name: spec_of(part) for name, part in parts.items() if isinstance(part, nn.Module)}
    raise ValueError(f"a key cannot hold {type(value).__qualname__}; give it a `spec`, or make it a frozen dataclass")

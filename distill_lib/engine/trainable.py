"""What a training is given: a module, and how it is called."""

from collections.abc import Callable
from typing import Any, Protocol

from torch import nn


class Trainable(Protocol):
    """A module, and how it is called (compiled, wrapped for several processes)."""

    module: nn.Module
    forward: Callable[..., Any]


class Bare:
    """A module as `Trainable`, called as it is."""

    def __init__(self, module: nn.Module) -> None:
        self.module = self.forward = module


class Together(nn.Module):
    """Several networks as one module, each called by its name, so that one loop trains and keeps all of them."""

    def __init__(self, **networks: nn.Module) -> None:
        super().__init__()
        for name, network in networks.items():
            self.add_module(name, network)

    def forward(self, who: str, *given: Any, **named: Any) -> Any:
        return self.get_submodule(who)(*given, **named)

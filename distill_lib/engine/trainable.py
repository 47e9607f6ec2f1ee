"""What a training is given: a module, and how it is called."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.func import functional_call


class Trainable(Protocol):
    """A module, and how it is called (compiled, wrapped for several processes)."""

    module: nn.Module
    forward: Callable[..., Any]


class Bare:
    """A module as `Trainable`, called as it is, or compiled."""

    def __init__(self, module: nn.Module, compiled: bool = False) -> None:
        self.module = module
        self.forward = torch.compile(module, dynamic=False) if compiled else module


class Together(nn.Module):
    """Several networks as one module, each called by its name; each has a bound of its own on gradients."""

    def __init__(self, **networks: nn.Module) -> None:
        super().__init__()
        for name, network in networks.items():
            self.add_module(name, network)

    def forward(self, part: str, *given: Any, **named: Any) -> Any:
        return self.get_submodule(part)(*given, **named)


class Team:
    """Trainables behind one module, so that one loop trains and keeps all of them; a call of each goes through it."""

    def __init__(self, **members: Trainable) -> None:
        self.members = members
        self.module = self.forward = Together(**{name: member.module for name, member in members.items()})
        for name, member in members.items():
            member.forward = partial(self._call, name)

    def _call(self, *given: Any, **named: Any) -> Any:
        return self.forward(*given, **named)  # what a loop has wrapped it in by then


def fixed(net: nn.Module, *given: Any) -> Any:
    """What a network answers with its weights held fixed: they get no gradient, and what is given does."""
    return functional_call(net, {name: value.detach() for name, value in net.named_parameters()}, given)


def players(module: nn.Module) -> list[list[nn.Parameter]]:
    """Parameters of each network of `Together`, or of any other module in one list."""
    networks = module.children() if isinstance(module, Together) else [module]
    return [list(network.parameters()) for network in networks]


def clip_each(players: Sequence[Sequence[nn.Parameter]], bound: float) -> Tensor:
    """Scale the gradients of each player down to a norm of `bound` where theirs is larger; the largest norm, ().

    One norm over all players would let a loud critic scale the step of a student, which Adam does not undo: its moments
    mix steps that were scaled differently. Players without gradients are left out.
    """
    loud = [player for player in players if any(p.grad is not None for p in player)]
    return torch.stack([nn.utils.clip_grad_norm_(player, bound, foreach=True) for player in loud]).amax()

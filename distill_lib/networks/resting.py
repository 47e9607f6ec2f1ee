"""Finished networks wait in the machine's memory, so that the card has room for the one that is trained or that draws.

On a machine without a GPU both places are one, and nothing moves.
"""

import contextlib
from collections.abc import Iterator

import torch

from distill_lib.engine.precision import default_device
from distill_lib.networks.adapter import Network


def put_away(net: Network) -> None:
    """Move the weights of all networks that an answer comes from to the machine's memory."""
    for module in net.modules:
        module.to("cpu")


@contextlib.contextmanager
def at_hand(net: Network) -> Iterator[None]:
    """A block in which a network answers where networks live; afterwards its weights are where they were."""
    before: list[tuple[torch.nn.Module, torch.device]] = [(m, next(m.parameters()).device) for m in net.modules]
    for module in net.modules:
        module.to(default_device())
    try:
        yield
    finally:
        for module, device in before:
            module.to(device)

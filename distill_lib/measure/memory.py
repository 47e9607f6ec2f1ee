"""How many bytes a piece of work holds: counted as it runs, on real tensors, or on fake ones that have no memory.

    live(t) = bytes of all storages that exist at time t, each counted once whatever views it has                  (1)
    peak    = max over t of live(t)                                                                                 (2)
    kept    = live after forward - live before it: what autograd keeps for the way back                             (3)

Fake tensors (torch's `FakeTensorMode`) carry shape, type and device, and no numbers. So a training step of a network of
billions of weights is counted in seconds on any machine. They stand on the CPU here: torch differentiates no fake
tensor of a GPU on a machine without one. `as_on_gpu` makes up for what differs there.
"""

import contextlib
import weakref
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses import FakeTensorMode
from torch.nn import functional
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

_FULL = ("group_norm", "layer_norm")
"""What autocast computes in float32 on a GPU, and in bfloat16 on a CPU, of all that Stable Diffusion is made of."""


class Live(TorchDispatchMode):
    """Within the block `now` is (1), of what is made there or given to `add`, and `peak` is (2), in bytes."""

    def __init__(self) -> None:
        super().__init__()
        self.now = self.peak = 0
        self._known: dict[int, weakref.ref] = {}

    def add(self, tensors: Iterable[Tensor]) -> int:
        """Count tensors that were made before the block; the bytes by which they raise `now`."""
        before = self.now
        for tensor in tensors:
            self._count(tensor)
        return self.now - before

    def _count(self, tensor: Tensor) -> None:
        storage = tensor.untyped_storage()
        address, size = storage._cdata, storage.nbytes()
        if address in self._known:
            return

        def gone(_: object) -> None:
            self.now -= size
            del self._known[address]

        self._known[address] = weakref.ref(storage, gone)
        self.now += size
        self.peak = max(self.peak, self.now)

    def __torch_dispatch__(
        self, function: Callable[..., Any], types: object, args: tuple = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        out = function(*args, **(kwargs or {}))
        for leaf in tree_leaves(out):
            if isinstance(leaf, Tensor):
                self._count(leaf)
        return out


def _in_full(norm: Callable[..., Tensor]) -> Callable[..., Tensor]:
    def norm_in_full(*given: Any, **named: Any) -> Any:
        if torch.is_autocast_enabled("cpu"):
            given = tuple(part.float() if isinstance(part, Tensor) else part for part in given)
            named = {key: part.float() if isinstance(part, Tensor) else part for key, part in named.items()}
        return norm(*given, **named)

    return norm_in_full


@contextlib.contextmanager
def as_on_gpu() -> Iterator[None]:
    """A block in which tensors of the CPU are kept for the way back as a GPU keeps them: normalisation is computed in
    float32 under autocast, and attention is fused, which keeps no weights of attention. Build networks before it: a
    `Network` switches fused attention off.
    """
    plain = {name: getattr(functional, name) for name in _FULL}
    for name, norm in plain.items():
        setattr(functional, name, _in_full(norm))  # a TorchFunctionMode is left where a checkpoint evaluates again
    try:
        with fused_attention():
            yield
    finally:
        for name, norm in plain.items():
            setattr(functional, name, norm)


@contextlib.contextmanager
def fused_attention() -> Iterator[None]:
    """A block in which attention is fused, whatever `Network` has switched off for this process."""
    with sdpa_kernel([SDPBackend.FLASH_ATTENTION]):
        yield


def fake() -> FakeTensorMode:
    """A block in which tensors have no memory; constants that were made before it, as schedules, may be used."""
    return FakeTensorMode(allow_non_fake_inputs=True)


def bytes_of(tensors: Iterable[Tensor]) -> int:
    """Bytes of the storages behind tensors, each counted once."""
    return sum({s._cdata: s.nbytes() for s in (tensor.untyped_storage() for tensor in tensors)}.values())


def held_by(*modules: nn.Module) -> list[Tensor]:
    """All parameters and buffers of modules."""
    return [tensor for module in modules for tensor in (*module.parameters(), *module.buffers())]


@contextlib.contextmanager
def saved(apart: Iterable[Tensor] = ()) -> Iterator[list[Tensor]]:
    """A list of the tensors that autograd keeps for the way back within the block, but for storages of `apart`.

    What a checkpointed part keeps is its input alone.
    """
    known, kept = {tensor.untyped_storage()._cdata for tensor in apart}, []

    def pack(tensor: Tensor) -> Tensor:
        if tensor.untyped_storage()._cdata not in known:
            kept.append(tensor)
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        yield kept

"""What processes that train together share (`accelerate launch`): a batch, the mean of their gradients, one decision.

Each holds all weights and takes its part of a batch; parts are equal, so that the mean of the processes' gradients is
that of the whole batch:                    g = 1/N sum_n g_n                                                      (1)
It is taken after the way back, of the parameters that have a gradient. DistributedDataParallel takes it on the way, and
refuses what some methods do: a step that leaves one of two networks without a gradient.
"""

import os
from collections.abc import Iterable, Iterator, Sequence
from datetime import timedelta

import torch
from accelerate import Accelerator, PartialState
from accelerate.utils import DistributedType, broadcast_object_list
from torch import Tensor, nn

from distill_lib.engine.precision import default_device

_GROUP = 2**23
"""Numbers that are exchanged at once, at least: few enough that a copy of them is no matter of memory."""
_SHARDED = (DistributedType.FSDP, DistributedType.DEEPSPEED, DistributedType.MEGATRON_LM)


def check_kind(accelerator: Accelerator) -> None:
    """Refuse a launch that cuts weights in parts.

    Raises:
        ValueError: it is FSDP, DeepSpeed or Megatron-LM.
    """
    if accelerator.distributed_type in _SHARDED:
        kind = accelerator.distributed_type.value
        raise ValueError(f"accelerate's {kind} cuts weights in parts, which is not supported; launch with --multi_gpu")


def groups(gradients: Iterable[Tensor]) -> Iterator[list[Tensor]]:
    """Tensors in their order, in lists of at least `_GROUP` numbers each but the last."""
    group: list[Tensor] = []
    for grad in gradients:
        group.append(grad)
        if sum(x.numel() for x in group) >= _GROUP:
            yield group
            group = []
    if group:
        yield group


def average_gradients(accelerator: Accelerator, parameters: Sequence[nn.Parameter]) -> None:
    """Give every process the mean (1) of all gradients, group by group; nothing to do for one process."""
    if accelerator.num_processes == 1:
        return
    for group in groups(p.grad for p in parameters if p.grad is not None):
        mean = accelerator.reduce(torch.cat([x.flatten() for x in group]), "mean")
        for x, part in zip(group, mean.split([x.numel() for x in group]), strict=True):
            x.copy_(part.view_as(x))


def agreed(answer: bool) -> bool:
    """What the first of the processes answers: all go one way, though a file shows up later for some of them.

    They wait for it as long as another training of the same run may take.
    """
    if int(os.environ.get("WORLD_SIZE") or 1) == 1:
        return answer
    PartialState(cpu=default_device().type == "cpu", timeout=timedelta(days=1))
    return broadcast_object_list([answer])[0]

"""What all readers share: pictures that are blurred and grainy while they learn, and reading every picture once."""

import hashlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import conv2d, pad

from distill_lib.diffusion.noise import Draws
from distill_lib.diffusion.pixels import to_unit
from distill_lib.engine.loop import Loop, Progress, TrainSettings
from distill_lib.engine.precision import autocast
from distill_lib.engine.store import Run
from distill_lib.engine.trainable import Trainable

_PART = 256  # pictures taken to float at a time
_KEPT = 32  # sets of pictures whose answers are kept


def degrade(image: Tensor, blur: Tensor, grain: Tensor, eps: Tensor) -> Tensor:
    """Pictures (B, 3, R, R) blurred by a Gaussian of `blur` pixels, then overlaid with `grain` times eps, clipped.

    Args:
        image: in [-1, 1].
        blur: standard deviation in pixels, (B,); 0 leaves a picture as it is.
        grain: standard deviation of the noise, (B,).
        eps: unit noise, (B, 3, R, R).
    """
    b, c, r, _ = image.shape
    offset = torch.arange(-3, 4, device=image.device)
    kernel = (-offset.square() / (2 * blur.clamp(min=1e-3).square())[:, None]).exp()
    kernel = (kernel / kernel.sum(1, keepdim=True)).repeat_interleave(c, 0)[:, None]
    rows = pad(image.reshape(1, b * c, r, r), (3, 3, 3, 3), mode="replicate")
    blurred = conv2d(conv2d(rows, kernel[:, :, None], groups=b * c), kernel[..., None], groups=b * c)
    return (blurred.reshape(b, c, r, r) + grain[:, None, None, None] * eps).clamp(-1, 1)


def chosen(*sets: Tensor) -> Callable[[Draws], list[Tensor]]:
    """Batches of pictures and of what is known of them, (N, ..) each, by numbers drawn once a step."""

    def batch(draws: Draws) -> list[Tensor]:
        index = draws.integer("picture", len(sets[0])).cpu()
        return [part[index] for part in sets]

    return batch


def train_degraded(
    net: Trainable,
    batch: Callable[[Draws], Sequence[Tensor]],
    loss: Callable[..., Tensor],
    settings: TrainSettings,
    run: Run,
    most: float = 1.0,
) -> Iterator[Progress]:
    """Train net.module on pictures of which half are blurred, by up to 1.2 pixels, and half overlaid with noise.

    Args:
        batch: the draws of a step -> pictures uint8 (B, 3, R, R), then what is known of them.
        loss: (answers, *known, blur, grain) -> (B,): answers in float32; how much of each, in [0, 1], (B,).
        most: share of all of it; 0 leaves pictures as they are.
    """
    loop = Loop(net, settings, run)
    for _, draws in loop:
        image, *known = (part.to(loop.device) for part in batch(draws))
        blur, grain = (most * (2 * draws.uniform(stream) - 1).clamp(min=0) for stream in ("blur", "grain"))
        x = degrade(to_unit(image), 1.2 * blur, 0.15 * grain, draws.normal("eps", image.shape[1:]))
        with autocast(loop.device, settings.bf16):
            answers = net.forward(x)
        answers = answers.float() if isinstance(answers, Tensor) else [answer.float() for answer in answers]
        yield loop.update(loss(answers, *known, blur, grain))


@torch.no_grad()
def answers_of(net: nn.Module, image: Tensor, prepare: Callable[[Tensor], Tensor] = to_unit) -> list[Tensor]:
    """All that a network answers to `prepare` of pictures uint8 (N, 3, R, R), (N, ..) each, on the CPU."""
    device = next(net.parameters(), torch.empty(0)).device
    answers_by_part = []
    for part in image.split(_PART):
        answers = net(prepare(part.to(device)))
        answers_by_part.append([answer.cpu() for answer in ((answers,) if isinstance(answers, Tensor) else answers)])
    return [torch.cat(parts) for parts in zip(*answers_by_part, strict=True)]


class Once:
    """A function of pictures (N, 3, R, R) that reads the same pictures once: the last sets are known by their bytes.

    Many metrics read the same pictures, and each loads them as a tensor of its own.
    """

    def __init__(self, read: Callable[[Tensor], Any]) -> None:
        self._read, self._known = read, {}

    def __call__(self, image: Tensor) -> Any:
        """What `read` says of the pictures."""
        key = image.shape, image.dtype, hashlib.sha256(image.detach().cpu().contiguous().numpy()).digest()
        if key not in self._known:
            self._known[key] = self._read(image)
            if len(self._known) > _KEPT:
                del self._known[next(iter(self._known))]
        return self._known[key]

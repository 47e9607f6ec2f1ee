"""Whether a network can tell a student's pictures from the teacher's: the classifier two-sample test.

    two_sample_accuracy = share of judged pictures whose maker is named right                                  (1)
    calibration         = (1) of the teacher's pictures against the same blurred by 0.45 pixels                (2)

Lopez-Paz and Oquab 2017 (arXiv 1610.06545). A small convolutional network is trained on one half of the pairs, both
makers' answers to the same prompts and noise, and judged on the other half. Of equal distributions (1) is 1/2, whatever
the network; above it something tells them apart, and no choice of features had to say what. A network that sees nothing
gives 1/2 too, so (2) stands beside it: a blur that is hardly visible has to be seen. No loss of any method uses it.
"""

from collections.abc import Iterator

import torch
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits

from distill_lib.diffusion.pixels import to_bytes, to_unit
from distill_lib.engine.loop import Loop, Progress, TrainSettings, finish
from distill_lib.engine.store import Run
from distill_lib.engine.trainable import Bare, Trainable
from distill_lib.measure.gates import Gate
from distill_lib.measure.readers.common import answers_of, degrade
from distill_lib.measure.rows import Estimate, Row, tidy

BLUR = 0.45
"""Pixels, of (2)."""
BLURRED = "teacher, blurred"
"""The method of the rows of (2)."""
SEES = Gate(BLURRED, "two_sample_accuracy", low=0.85)
"""What (2) has to reach before (1) says anything."""
_LEAST = 8  # pairs


class Discerner(nn.Module):
    """Pictures (B, 3, R, R) in [-1, 1] -> logit that the first maker drew them, (B,); a mean over places."""

    def __init__(self, width: int = 32) -> None:
        super().__init__()
        layers: list[nn.Module] = [nn.Conv2d(3, width, 3, 1, 1), nn.SiLU()]  # detail first, at full size
        for a, b in ((width, width), (width, 2 * width), (2 * width, 2 * width)):
            layers += [nn.Conv2d(a, b, 3, 2, 1), nn.GroupNorm(8, b), nn.SiLU()]
        self.body = nn.Sequential(*layers)
        self.read = nn.Linear(2 * width, 1)

    def forward(self, image: Tensor) -> Tensor:
        return self.read(self.body(image).mean((2, 3)))[:, 0]


def train_discerner(
    net: Trainable, image: Tensor, other: Tensor, settings: TrainSettings, run: Run
) -> Iterator[Progress]:
    """Train net.module, a `Discerner`, on as many pictures of each maker, uint8 (N, 3, R, R), half of them mirrored."""
    loop = Loop(net, settings, run)
    for _, draws in loop:
        index, first = draws.integer("picture", len(image)).cpu(), draws.index % 2 == 0
        x = torch.where(first.cpu()[:, None, None, None], image[index], other[index]).to(loop.device)
        x = torch.where((draws.uniform("mirror") < 0.5)[:, None, None, None], x.flip(3), x)
        yield loop.update(binary_cross_entropy_with_logits(net.forward(to_unit(x)), first.float(), reduction="none"))


def two_sample_accuracy(image: Tensor, other: Tensor, settings: TrainSettings) -> Estimate:
    """(1) of two makers' pictures of the same prompts and noise, uint8 (N, 3, R, R), and its standard error.

    The network is trained on the first half, and found again where it has been; `settings` also hold its seed. The
    error is that of the judged pairs alone: another network would name others.

    Raises:
        ValueError: there are not as many pictures of both, or fewer than eight.
    """
    if image.shape != other.shape or len(image) < _LEAST:
        sizes = f"{tuple(image.shape)} and {tuple(other.shape)}"
        raise ValueError(f"pictures {sizes} cannot be told apart; as many of both are due, {_LEAST} at least")
    half = len(image) // 2
    torch.manual_seed(settings.seed)
    net = Bare(Discerner())
    config = {"settings": settings, "image": image[:half], "other": other[:half], "start": net.module}
    run = Run("two-sample", config, two_sample_accuracy)
    finish(net, train_discerner(net, image[:half], other[:half], settings, run), run, "two samples")
    first, second = (answers_of(net.module, part[half:])[0] for part in (image, other))
    right = ((first > 0).double() + (second <= 0).double()) / 2  # of each pair, since its two pictures are alike
    return Estimate(right.mean().item(), (right.std() / len(right) ** 0.5).item())


def blurred(image: Tensor, pixels: float = BLUR) -> Tensor:
    """Pictures uint8 (N, 3, R, R) under a Gaussian blur."""
    parts = []
    for part in image.split(256):
        blur = torch.full((len(part),), pixels)
        parts.append(to_bytes(degrade(to_unit(part), blur, torch.zeros_like(blur), torch.zeros(part.shape))))
    return torch.cat(parts)


def two_sample_rows(pictures: dict[str, Tensor], truth: Tensor, settings: TrainSettings, seed: int) -> list[Row]:
    """(1) of each method's pictures uint8 (n, 3, R, R) beside the teacher's from the same noise, and (2)."""
    rows = []
    for method, image in (pictures | {BLURRED: blurred(truth)}).items():
        accuracy = two_sample_accuracy(image, truth, settings)
        rows += tidy({"two_sample_accuracy": accuracy}, method=method, seed=seed, n=len(truth) - len(truth) // 2)
    return rows

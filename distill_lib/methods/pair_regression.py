"""A one-step network by plain regression on pairs of noise and the teacher's answer to it.

Luhman and Luhman 2021 (arXiv 2101.02388). The reference that SDXS starts from: its blur is measured in
`06_latent_teacher`.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from distill_lib.losses.one_step import one_step, square_loss
from distill_lib.models import Network, denoiser
from distill_lib.noise import normal
from distill_lib.pipelines import TextToImage
from distill_lib.solvers import check_sampler, sample_by
from distill_lib.store import Run, cached
from distill_lib.training import Loop, Progress, TrainSettings

__all__ = ["Pairs", "teacher_pairs", "train_on_pairs"]

_BATCH = 64
_PART = 1024


@dataclass(frozen=True)
class Pairs:
    """The teacher's latents x (N, C, H, W), the prompts that it was told, and the seed of the noise behind them.

    The noise of each is found again by its number, which counts from `first`.
    """

    x: Tensor
    prompts: list[str]
    told: TextToImage
    seed: int
    first: int = 0

    @property
    def spec(self) -> dict[str, Any]:
        """What tells them from other pairs, for keys."""
        return {"told": self.told, "x": self.x, "prompts": self.prompts, "seed": self.seed, "first": self.first}

    def __len__(self) -> int:
        return len(self.x)

    def part(self, start: int, stop: int) -> "Pairs":
        """Those from `start` up to `stop`."""
        prompts = self.prompts[start:stop]
        return replace(self, x=self.x[start:stop], prompts=prompts, first=self.first + start)

    def batch(self, index: Tensor, device: torch.device | str = "cpu") -> tuple[Tensor, Tensor, Tensor]:
        """z_T, x and text states (B, L, D) of the pairs `index` (B,)."""
        states = self.told.states([self.prompts[i] for i in index.tolist()])
        z_T = normal(self.seed, "pairs", 0, self.first + index.to(device), self.x.shape[1:])
        return z_T, self.x[index].float().to(device), states.to(device)


@torch.no_grad()
def teacher_pairs(
    told: TextToImage, prompts: list[str], n_steps: int, w: float, seed: int, name: str, sampler: str = "ddim"
) -> Pairs:
    """The teacher's own samples; kept in a cache under `name`, which says which teacher.

    Data-free: nothing but prompts and noise goes in. Kept in parts, so that a run that was cut off goes on. A faster
    solver in place of "ddim" comes nearer to the end of the teacher's way with as many steps.

    Raises:
        ValueError: `solvers.SAMPLERS` has no such sampler.
    """
    check_sampler(sampler)
    net, found = told.network, []
    for numbers in torch.arange(len(prompts), device=net.device).split(_PART):

        def make(numbers: Tensor = numbers) -> dict[str, Tensor]:
            parts = []
            for index in numbers.split(_BATCH):
                label = told.states([prompts[i] for i in index.tolist()]).to(net.device)
                z_T = normal(seed, "pairs", 0, index, net.shape)
                fresh = lambda i, index=index: normal(seed, "pairs", 1 + i, index, net.shape)  # noqa: E731
                x = sample_by(sampler, denoiser(net, label, w), z_T, n_steps, fresh, net.schedule)
                parts.append(x.cpu())
            return {"x": torch.cat(parts)}

        spec = {"teacher": name, "prompts": [prompts[i] for i in numbers.tolist()], "first": numbers[0].item()}
        spec |= {"steps": n_steps, "w": w, "seed": seed, "bf16": net.bf16, "sampler": sampler}
        found.append(cached("pairs", spec, make, teacher_pairs)["x"])
    return Pairs(torch.cat(found), prompts, told, seed)


def train_on_pairs(
    net: Network,
    pairs: Pairs,
    settings: TrainSettings,
    run: Run,
    loss: Callable[[Tensor, Tensor], Tensor] = square_loss,
) -> Iterator[Progress]:
    """Train net.module, which starts as the teacher, to make in one step what the teacher made in many.

    Args:
        net: the student.
        pairs: noise, the teacher's answer to it, and prompts.
        settings, run: of the training.
        loss: loss(x_hat, x) -> (B,), what a difference of latents costs.
    """
    loop = Loop(net, settings, run)
    for _, draws in loop:
        z_T, x, label = pairs.batch(draws.integer("pair", len(pairs)).cpu(), loop.device)
        yield loop.update(loss(one_step(net, z_T, label, net.schedule), x))

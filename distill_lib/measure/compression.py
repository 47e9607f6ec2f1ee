"""Measuring what was made smaller: tiny decoders on held-out latents, and cut U-Nets at every noise level.

    psnr              10 log10(4 / mean |x - x_hat|^2)             of pictures in [-1, 1]; the largest square is 4  (1)
    psnr_coarse       (1) of both pictures after `pooled`          what the first term of eq. 5 holds on to         (2)
    sharpness_kept    sharpness / sharpness of the large decoder   above 1: texture that the large one did not draw (3)
    prediction_error  |v_student - v_teacher|^2 / |v_teacher|^2    at one noise level, each summed over samples     (4)
    prompt_size       |v_null - v_teacher|^2 / |v_teacher|^2       the unit of (4): what the prompt changes         (5)

Architectures and equations are those of SDXS (Song et al. 2024, arXiv 2403.16627), section 3.1 and Fig. 2; the paper
judges neither part alone. Latents that measure come from noise that no pair was shipped of.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from diffusers import UNet2DConditionModel
from torch import Tensor, nn
from torch.nn.functional import avg_pool2d, interpolate

from distill_lib.diffusion.guidance import without_condition
from distill_lib.diffusion.noise import normal
from distill_lib.diffusion.pixels import to_bytes
from distill_lib.diffusion.samplers import nfe
from distill_lib.diffusion.schedules import add_noise
from distill_lib.measure.metrics import fid, laplacian_variance, median_seconds, paired, psnr
from distill_lib.measure.prompts import PromptBenchmark
from distill_lib.measure.rows import Row, tidy
from distill_lib.networks.adapter import Network
from distill_lib.networks.pruning import Cut, pruned_config
from distill_lib.teachers.latents import Pairs

Predict = Callable[[Tensor, Tensor, Tensor], Tensor]
_BATCH = 64
DECODERS: dict[str, dict[str, Any]] = {
    "eq. 5": {"loss": "coarse"},
    "eq. 5 without critic": {"loss": "coarse", "fooling": 0.0},
    "absolute": {"loss": "l1", "fooling": 0.0},
    "squares": {"loss": "square", "fooling": 0.0},
    "features and critic": {"loss": "features"},
}
"""What `tiny_decoder.tiny_decoder` is called with, by the name of the row."""
UNETS: dict[str, dict[str, Any]] = {
    "OKD + FKD": {},
    "OKD alone": {"lambda_f": 0.0},
    "OKD + FKD + denoising": {"denoising": 1.0},
    "OKD + FKD, random start": {"inherit": False},
}
"""What `SdxsTask.small_unet` of `experiments` is called with, by the name of the row."""


def pooled(image: Tensor, factor: int) -> Tensor:
    """Pictures uint8 (N, 3, R, R) whose squares of `factor` pixels are their mean, as large as before."""
    mean = avg_pool2d(image.float(), factor)
    return interpolate(mean, scale_factor=factor, mode="nearest").round().to(torch.uint8)


def picture_rows(benchmark: PromptBenchmark, image: Tensor, truth: Tensor, columns: Row) -> list[Row]:
    """What the judges find in pictures of the prompts, and how far they are from true ones and, if any, the world's.

    image, truth: uint8 (n, 3, R, R), of the same latents or noise.
    """
    reader = benchmark.judges.reader
    values = benchmark.judged(image) | {"fid_teacher": fid(reader, image, truth)}
    if benchmark.world:
        values["fid"] = fid(reader, image, benchmark.real)
    return tidy(values | {"paired": paired(image, truth).mean().item()}, **columns, n=len(image))


@torch.no_grad()
def pictures_by(decode: Callable[[Tensor], Tensor], held: Pairs) -> Tensor:
    """Pictures uint8 (n, 3, R, R) that a decoder into [-1, 1] makes of latents."""
    return torch.cat([to_bytes(decode(part)).cpu() for part in held.x.float().split(_BATCH)])


def _cost_rows(module: nn.Module, work: Callable[[], object], repeats: int, columns: Row) -> list[Row]:
    values = {"params": sum(p.numel() for p in module.parameters()), "seconds": median_seconds(work, repeats)}
    return tidy(values, **columns, n=1)


@torch.no_grad()
def decoder_rows(
    benchmark: PromptBenchmark,
    held: Pairs,
    decode: Callable[[Tensor], Tensor],
    module: nn.Module,
    truth: Tensor,
    method: str,
    repeats: int = 3,
    factor: int = 4,
) -> tuple[list[Row], Tensor]:
    """Rows of a decoder, and its pictures uint8 (n, 3, R, R) of the held-out latents.

    Args:
        held: latents of the prompts of `benchmark`.
        decode: latents (B, C, H, W) -> pictures (B, 3, R, R) in [-1, 1].
        module: whose weights are counted.
        truth: the large decoder's pictures of the same latents; (1) and (2) are left out where they are the same.
        repeats: timed calls at batch 1.
        factor: of (2).
    """
    z, image = held.x[:1].float(), pictures_by(decode, held)
    columns = {"method": method, "seed": benchmark.seed}
    rows = picture_rows(benchmark, image, truth, columns)
    values = {"sharpness_kept": laplacian_variance(image) / laplacian_variance(truth)}
    if not torch.equal(image, truth):
        values["psnr"] = psnr(image, truth)
        values["psnr_coarse"] = psnr(pooled(image, factor), pooled(truth, factor))
    rows += tidy(values, **columns, n=len(image))
    return rows + _cost_rows(module, lambda: decode(z), repeats, columns), image


@dataclass(frozen=True)
class Probe:
    """Latents at some noise levels, with the same noise for everybody, and what a teacher answers to them.

    All answers are in float32, since rounding to bfloat16 is as large as the error of a good student. The levels `ts`
    are those of the teacher's grid.
    """

    held: Pairs
    ts: Sequence[int]
    seed: int

    @cached_property
    def teacher(self) -> Network:
        """Whose answers are wanted."""
        return self.held.model.network.exact()

    @cached_property
    def _given(self) -> list[tuple[Tensor, Tensor, Tensor]]:
        net = self.teacher
        x, label = self.held.x.float().to(net.device), self.held.model.states(self.held.prompts).to(net.device)
        eps = normal(self.seed, "prediction", 0, torch.arange(len(x), device=x.device), x.shape[1:])
        ts = [torch.full((len(x),), t, device=x.device) for t in self.ts]
        return [(add_noise(x, eps, t, net.schedule), t, label) for t in ts]

    @torch.no_grad()
    def _answers(self, predict: Predict) -> list[Tensor]:
        parts = [zip(*(tensor.split(_BATCH) for tensor in given), strict=True) for given in self._given]
        return [torch.cat([predict(*part) for part in level]).double() for level in parts]

    @cached_property
    def _wanted(self) -> list[Tensor]:
        return self._answers(self.teacher)

    def _rows(self, predict: Predict, method: str, metric: str) -> list[Row]:
        rows = []
        for t, v, wanted in zip(self.ts, self._answers(predict), self._wanted, strict=True):
            value = ((v - wanted).square().sum() / wanted.square().sum()).item()
            rows += tidy({metric: value}, method=method, t=t / self.teacher.schedule.T, seed=self.seed, n=len(v))
        return rows

    def prediction_rows(self, student: Network, method: str) -> list[Row]:
        """(4) of a student, one row a noise level."""
        return self._rows(student.exact(), method, "prediction_error")

    def prompt_rows(self, method: str) -> list[Row]:
        """(5), one row a noise level, under the name that the teacher's rows have."""
        net = self.teacher
        return self._rows(lambda z_t, t, label: net(z_t, t, without_condition(label, net.null)), method, "prompt_size")


@torch.no_grad()
def unet_rows(
    benchmark: PromptBenchmark,
    probe: Probe,
    method: str,
    net: Network,
    n_steps: int,
    sampler: str,
    repeats: int = 3,
) -> list[Row]:
    """Rows of a U-Net: its pictures, its predictions by (4), its weights, and the seconds of one evaluation at batch 1.

    Pictures are guided, at the strength of `benchmark`; distances are to the teacher's by the same sampler and noise in
    as many steps. `net` is the U-Net behind the teacher's adapter.
    """
    teacher, w = benchmark.model.network, benchmark.w
    image, truth = (benchmark.pictures(drawing, n_steps, w, sampler) for drawing in (net, teacher))
    columns = {"method": method, "seed": benchmark.seed}
    rows = picture_rows(benchmark, image, truth, columns | {"steps": n_steps, "w": w, "nfe": nfe(n_steps, w, True)})
    rows += probe.prediction_rows(net, method)
    z, label = probe.held.x[:1].float().to(net.device), benchmark.states[:1].to(net.device)
    t = torch.full((1,), teacher.schedule.T, device=net.device)
    return rows + _cost_rows(net.module, lambda: net(z, t, label), repeats, columns)


def meta_unets(config: dict[str, Any], cut: Cut) -> tuple[UNet2DConditionModel, UNet2DConditionModel]:
    """The U-Net of a configuration and the one that a cut leaves, both with shapes alone and no memory behind them."""
    with torch.device("meta"):
        return UNet2DConditionModel(**config), UNet2DConditionModel(**pruned_config(config, cut))

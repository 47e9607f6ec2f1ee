"""`preflight`: whether a teacher can be distilled on this machine, in two minutes, before hours are spent.

Disk, memory (`plan`), device and numbers; the teacher's folder, its prediction and its grid; forward and backward of
each role with its own weights; a picture that it draws; then a smoke distillation on mock data of its shape: two
updates of stage one and two of a halving by the loop that the notebook uses, with the savings of the profile.
"""

import argparse
import shutil
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from math import prod
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor

from distill_lib import profiles
from distill_lib.diffusion.guidance import combine, guided_pair
from distill_lib.diffusion.noise import normal
from distill_lib.diffusion.samplers import sample
from distill_lib.diffusion.solvers import SOLVERS
from distill_lib.engine.loop import TrainSettings
from distill_lib.engine.precision import current, default_device
from distill_lib.engine.store import Run
from distill_lib.experiments.fitting import adopted
from distill_lib.guided.halving import Halving, halve_steps
from distill_lib.guided.stage_one import distill_guidance, stage_one_loss
from distill_lib.measure.plan import GB
from distill_lib.networks.adapter import Network, denoiser
from distill_lib.networks.pipeline import TextToImage
from distill_lib.networks.sdxl import open_teacher
from distill_lib.paths import runs_folder
from distill_lib.profiles import Text
from distill_lib.run.plan import check_fits, memory_here, trainings

_STEPS = 8  # of the picture


@dataclass(frozen=True)
class Mock:
    """Noise of the shape of a teacher's latents, all under the empty prompt."""

    model: TextToImage
    count: int = 64

    def __len__(self) -> int:
        return self.count

    def batch(self, index: Tensor, device: torch.device | str = "cpu") -> tuple[Tensor, Tensor]:
        """Latents x (B, C, s, s) and states (B, L, D)."""
        net = self.model.network
        return normal(0, "mock", 0, index.to(device), net.shape), net.null.to(device).expand(len(index), -1, -1)


def picture_sets(sizes: Text) -> int:
    """How many sets of pictures notebook 07 measures, each of all prompts: students, DDIM, solvers, the teacher."""
    few, strengths = len(sizes.students), len({min(sizes.ws), sizes.w, max(sizes.ws)})
    plain = len([n for n in {*sizes.students, 2 * max(sizes.students)} if n <= sizes.teacher_steps])
    at_each = few + plain + 1
    return strengths * at_each + few * len(SOLVERS) + 1  # and stage one's student, at one strength


def disk_needed(weights: int, sizes: Text, latent: int, picture: int) -> int:
    """Bytes that notebook 07 keeps at the sizes of a profile.

        weights of each training; the state of one, twice, while it goes on: weights, average, two moments
        latents that the teacher draws to train on, in float32
        `picture_sets` of all prompts, a byte a number

    Args:
        weights, latent, picture: numbers of the U-Net, of the latent of a picture, and of the picture.
    """
    halvings = sizes.start.bit_length() - 1
    files = sizes.stage_one.snapshots + 1 + halvings * (sizes.halving.snapshots + 1)
    drawn = 4 * latent * sizes.pairs + picture * sizes.prompts * picture_sets(sizes)
    return 4 * weights * (files + 2 * 4) + drawn


def check_disk(net: Network, side: int, sizes: Text) -> str:
    """Free bytes of the folder of runs, in words, beside what a teacher of pictures of a side needs.

    Raises:
        ValueError: they do not suffice.
    """
    folder = runs_folder()
    folder.mkdir(parents=True, exist_ok=True)
    weights = sum(p.numel() for p in net.module.parameters())
    free, wanted = shutil.disk_usage(folder).free, disk_needed(weights, sizes, prod(net.shape), 3 * side**2)
    if free < wanted:
        raise ValueError(
            f"{folder} has {free / GB:.1f} GB free, and trainings and pictures take {wanted / GB:.1f}: free it, or "
            "move it by DISTILL_RUNS"
        )
    return f"{free / GB:.1f} GB free, {wanted / GB:.1f} needed"


def check_memory(teacher: str, sizes: Text) -> tuple[Text, list[str]]:
    """The sizes with moments that fit, and what each training needs beside what is there, in words.

    Raises:
        ValueError: it does not fit.
    """
    (where, memory), words = memory_here(), []
    plans = trainings(teacher, sizes, memory)
    for plan, need in plans:
        check_fits(need, plan, where, memory)
        size = f"{need.most / GB:.2f} GB of {memory / GB:.1f} on {where}, moments by {plan.savings.optimizer}"
        words.append(f"{plan.method} in batches of {plan.batch}: {size}")
    return adopted(sizes, [plan for plan, _ in plans]), words


def check_roles(model: TextToImage) -> Iterator[str]:
    """Forward and backward of each role with the teacher's weights, on one sample.

    Raises:
        ValueError: an answer or a gradient is not finite, or w gets no gradient.
    """
    net = model.network
    device, t = net.device, torch.tensor([net.schedule.T // 2], device=net.device)
    z = torch.randn(1, *net.shape, device=device)
    label, w = torch.randn_like(net.null)[None].to(device), torch.ones(1, device=device)
    with torch.no_grad():
        v_cond, v_uncond = guided_pair(net, z, t, label, net.null)
    v_w = combine(v_cond, v_uncond, w)
    _finite("teacher", v_w)
    yield f"teacher: answers differ by {(v_cond - v_uncond).square().mean().sqrt():.3g} with and without a condition"
    student = net.student()
    loss = stage_one_loss(student(z, t, label, w), v_cond, v_w, torch.ones_like(w)).mean()
    loss.backward()
    gradient = student.module.time_embedding.cond_proj.weight.grad
    _finite("student", torch.stack([loss.detach(), gradient.abs().sum()]))
    if not gradient.any():
        raise ValueError("student: no gradient reaches the layer that reads w; its U-Net does not use timestep_cond")
    yield f"student: loss {loss.item():.3g}, and w gets a gradient"


def _finite(role: str, answer: Tensor) -> None:
    if not answer.isfinite().all():
        raise ValueError(f"{role}: an answer is not finite; PRECISION=fp32 tells whether bfloat16 is too coarse for it")


def draw(model: TextToImage, folder: Path) -> str:
    """A picture of the teacher in a few steps under the empty prompt, written to a folder; where it is.

    Raises:
        ValueError: all of its pixels are alike.
    """
    net = model.network
    label = net.null.to(net.device)[None]
    with torch.no_grad():
        z = sample(denoiser(net, label, 1.0), torch.randn(1, *net.shape, device=net.device), _STEPS, net.schedule)
        image = model.pictures(z)[0].cpu()
    if image.float().std() == 0:
        raise ValueError(
            f"the picture of {_STEPS} steps has one colour; the decoder or the U-Net is not what it should be"
        )
    folder.mkdir(parents=True, exist_ok=True)
    Image.fromarray(image.permute(1, 2, 0).numpy()).save(folder / "teacher.png")
    return f"{_STEPS} steps, {folder / 'teacher.png'}"


def smoke(model: TextToImage, sizes: Text) -> Iterator[str]:
    """Two updates of stage one and of a halving by the loop, batches as in the profile, on mock data.

    Raises:
        ValueError: as `Loop` and its update.
    """
    net = model.network
    older = net.student()
    older.module.requires_grad_(False)
    kinds = {"stage one": (sizes.stage_one, net), "halving": (sizes.halving, older)}
    for kind, (settings, teacher) in kinds.items():
        run = Run("preflight", {"kind": kind}, distill_guidance)
        shutil.rmtree(run.folder, ignore_errors=True)
        student, start = net.student(), time.perf_counter()
        two = replace(settings, steps=2, warmup=0, snapshots=0)
        if torch.cuda.is_available():
            torch.cuda.reset_peak_memory_stats()  # else it would be the most of all checks until then
        losses = [progress.loss for progress in _training(kind, student, teacher, two, run, model)]
        held = torch.cuda.max_memory_allocated() / GB if torch.cuda.is_available() else 0
        shutil.rmtree(run.folder, ignore_errors=True)
        more = f", {held:.2f} GB held at most" * bool(held)
        yield f"{kind}: loss {losses[-1]:.3g}, {(time.perf_counter() - start) / 2:.3g} s an update{more}"


def _training(
    kind: str, student: Network, teacher: Network, settings: TrainSettings, run: Run, model: TextToImage
) -> Iterator:
    if kind == "stage one":
        return distill_guidance(student, teacher, Mock(model), settings, run)
    return halve_steps(student, teacher, Mock(model), Halving(4, settings), run)


def preflight(teacher: str, sizes: Text) -> Iterator[tuple[str, str]]:
    """Each check and what it found, in order.

    Raises:
        ValueError: the first check that fails, with what to do.
    """
    yield "device", f"{memory_here()[0]}, {default_device()}, computing in {current()}"
    sizes, memory = check_memory(teacher, sizes)
    for words in memory:
        yield "memory", words
    model = open_teacher(teacher)
    net = model.network
    weights = sum(p.numel() for p in net.module.parameters())
    side = net.shape[1] << len(model.pipe.vae.config.block_out_channels) - 1
    yield "disk", check_disk(net, side, sizes)
    grid = f"predicts {net.predicts}, {net.schedule.T} times, {side} pixels"
    yield "teacher", f"{weights / 1e6:.1f} million weights, {grid}"
    for words in check_roles(model):
        yield "role", words
    yield "picture", draw(model, runs_folder() / "preflight")
    for words in smoke(model, sizes):
        yield "smoke", words


def main(arguments: list[str] | None = None) -> None:
    """Command line."""
    parser = argparse.ArgumentParser(prog="distill_lib.run preflight", description=__doc__.splitlines()[0])
    parser.add_argument("teacher", help="a folder in diffusers' format")
    parser.add_argument("--profile", default="gpu")
    args = parser.parse_args(arguments)
    settings, start = profiles.load(args.profile), time.perf_counter()
    for check, words in preflight(args.teacher, settings.other or settings.latent):
        print(f"{time.perf_counter() - start:5.0f} s  {check}: {words}", flush=True)
    print("all checks passed")

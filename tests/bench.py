"""`make bench`: our loops and samplers against the plain way with diffusers and torch, each pair in one run.

Plain means: float32, two calls for a guided pair, noise by torch.randn, a DataLoader with a worker, diffusers' EMAModel
and DDIMScheduler. A target of our halving serves as many updates as in the committed runs. `peak_share` is the
arithmetic of our way (FLOPs counted by torch) as a share of the fastest 3 x 3 convolution that this machine shows,
forward and backward in bfloat16, in the same run.
"""

import argparse
import json
import time
from collections.abc import Callable, Iterator
from functools import partial
from itertools import cycle
from typing import Any

import torch
from diffusers import UNet2DConditionModel
from diffusers.training_utils import EMAModel
from torch import Tensor
from torch.nn.functional import conv2d
from torch.utils.data import DataLoader, TensorDataset
from torch.utils.flop_counter import FlopCounterMode

from distill_lib import profiles
from distill_lib.diffusion.guidance import guidance_embedding
from distill_lib.diffusion.pixels import to_patches, to_unit
from distill_lib.diffusion.schedules import OURS, add_noise, v_from
from distill_lib.engine.files import atomic
from distill_lib.engine.loop import Progress, TrainSettings
from distill_lib.engine.origin import origin
from distill_lib.engine.replay import BANK
from distill_lib.engine.store import Run
from distill_lib.guided.halving import Halving, halve_steps
from distill_lib.guided.stage_one import distill_guidance
from distill_lib.measure.draw import BATCH, classes, sample_pictures
from distill_lib.measure.metrics import median_seconds
from distill_lib.networks.adapter import Network
from distill_lib.networks.unet import student_of
from distill_lib.paths import COMMITTED, figures_folder
from distill_lib.shipped import pretrained
from distill_lib.teachers.denoising import train_teacher
from distill_lib.worlds.pictures import DatasetSpec, Pictures, load

_STEPS = 12
_SIZE = 64


def _forward(unet: UNet2DConditionModel, z: Tensor, t: Tensor, label: Tensor, w: Tensor | None = None) -> Tensor:
    features = None if w is None else guidance_embedding(w, unet.config.time_cond_proj_dim)
    return unet(z, t - 1, torch.zeros(len(z), 1, 8), class_labels=label, timestep_cond=features).sample


def _plain_step(unet: UNet2DConditionModel, pictures: Pictures, loss_of: Callable[..., Tensor]) -> Callable[[], None]:
    """One training step as a first script would have it."""
    images = TensorDataset(pictures.image, pictures.label)
    batches = cycle(DataLoader(images, _SIZE, shuffle=True, num_workers=1, drop_last=True, persistent_workers=True))
    optimizer = torch.optim.AdamW(unet.parameters(), lr=1e-4)
    average = EMAModel(unet.parameters(), decay=0.999)

    def step() -> None:
        image, label = next(batches)
        x = to_patches(to_unit(image))
        loss = loss_of(unet, x, label, torch.randint(1, OURS.T + 1, (len(x),)), torch.randn_like(x))
        loss.backward()
        torch.nn.utils.clip_grad_norm_(unet.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        average.step(unet.parameters())

    return step


def _teacher_loss(unet: UNet2DConditionModel, x: Tensor, label: Tensor, t: Tensor, eps: Tensor) -> Tensor:
    return (v_from(x, eps, t) - _forward(unet, add_noise(x, eps, t), t, label)).square().mean()


def _stage_one_loss(teacher: UNet2DConditionModel) -> Callable[..., Tensor]:
    def loss(unet: UNet2DConditionModel, x: Tensor, label: Tensor, t: Tensor, eps: Tensor) -> Tensor:
        z, w = add_noise(x, eps, t), 4 * torch.rand(len(x))
        with torch.no_grad():
            v_cond = _forward(teacher, z, t, label)
            v_uncond = _forward(teacher, z, t, torch.full_like(label, unet.config.num_class_embeds - 1))
        strength = w[:, None, None, None]
        return ((1 + strength) * v_cond - strength * v_uncond - _forward(unet, z, t, label, w)).square().mean()

    return loss


def _halving_loss(teacher: UNet2DConditionModel, n: int = 8) -> Callable[..., Tensor]:
    scheduler = OURS.to_scheduler()
    scheduler.set_timesteps(2 * n)

    def loss(unet: UNet2DConditionModel, x: Tensor, label: Tensor, t: Tensor, eps: Tensor) -> Tensor:
        t = OURS.T // n * torch.randint(1, n + 1, (1,))  # a scheduler steps a whole batch from one timestep
        z, w = add_noise(x, eps, t.expand(len(x))), 4 * torch.rand(len(x))
        with torch.no_grad():
            z_s = z
            for k in (t, t - OURS.T // n // 2):
                v = _forward(teacher, z_s, k.expand(len(x)), label, w)
                z_s = scheduler.step(v, int(k) - 1, z_s).prev_sample
        return (z_s - _forward(unet, z, t.expand(len(x)), label, w)).square().mean()

    return loss


def _plain_sampler(unet: UNet2DConditionModel, n: int, w: float) -> Callable[[], Tensor]:
    """The loop of a diffusers tutorial: a scheduler, two calls a step for the pair, one for a student."""
    label = classes(BATCH, unet.config.num_class_embeds - 1)
    null = torch.full_like(label, unet.config.num_class_embeds - 1)

    @torch.no_grad()
    def generate() -> Tensor:
        scheduler = OURS.to_scheduler()
        scheduler.set_timesteps(n)
        z = torch.randn(BATCH, 12, unet.config.sample_size, unet.config.sample_size)
        for k in scheduler.timesteps:
            t = k.expand(BATCH) + 1
            if unet.config.time_cond_proj_dim:
                v = _forward(unet, z, t, label, torch.full((BATCH,), w))
            else:
                v = (1 + w) * _forward(unet, z, t, label) - w * _forward(unet, z, t, null)
            z = scheduler.step(v, k, z).prev_sample
        return z

    return generate


def _conv_peak() -> float:
    """FLOP/s of a 3 x 3 convolution, 128 channels, forward and backward, bfloat16, channels last."""
    x = (
        torch.randn(64, 128, 32, 32, dtype=torch.bfloat16)
        .contiguous(memory_format=torch.channels_last)
        .requires_grad_()
    )
    weight = torch.randn(128, 128, 3, 3, dtype=torch.bfloat16).contiguous(memory_format=torch.channels_last)
    weight.requires_grad_()
    seconds = median_seconds(lambda: conv2d(x, weight, padding=1).sum().backward())
    return 3 * 2 * 64 * 128 * 128 * 9 * 32 * 32 / seconds


def _rate_of_loop(training: Iterator[Progress], steps: int = _STEPS) -> float:
    """Images a second of a training generator over `steps` after its first ones, which compile."""
    for _ in range(3):
        next(training)
    start = time.perf_counter()
    for _ in range(steps):
        next(training)
    return steps * _SIZE / (time.perf_counter() - start)


def _rate_of_step(step: Callable[[], None]) -> float:
    return _SIZE / median_seconds(step, 5)


def _flops_a_picture(unet: UNet2DConditionModel, forwards: float, backward: bool) -> float:
    """FLOPs of one picture: `forwards` passes, and a training pass of three times a forward one."""
    size = unet.config.sample_size
    w = torch.ones(1) if unet.config.time_cond_proj_dim else None
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        _forward(unet, torch.zeros(1, 12, size, size), torch.ones(1).long(), torch.zeros(1).long(), w)
    return counter.get_total_flops() * (forwards + 3 * backward)


def main() -> None:
    """Measure every pair and write figures/<profile>/bench.json."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--profile", default="quick", help="the folder below figures/ that the result is written to")
    folder = figures_folder(parser.parse_args().profile)
    compiled = torch.cuda.is_available()
    settings = TrainSettings(steps=10_000, batch_size=_SIZE, lr=1e-4, checkpoint_seconds=1e9)
    pictures = load(DatasetSpec(name="textured", count=2048))
    peak = _conv_peak()
    results: list[dict[str, Any]] = []

    def teacher() -> UNet2DConditionModel:
        return pretrained.teacher("textured")

    def run(kind: str) -> Run:
        return Run(f"bench-{kind}", {"at": time.time()}, train_teacher)

    def add(label: str, ours: float, plain: float, flops: float) -> None:
        share = ours * flops / peak
        results.append(
            {
                "what": label,
                "ours": ours,
                "plain": plain,
                "ratio": ours / plain,
                "unit": "images/s",
                "peak_share": share,
            }
        )
        print(
            f"{label}: {ours:.0f} images/s, plain {plain:.0f}, ratio {ours / plain:.2f}, {share:.0%} of peak",
            flush=True,
        )

    net = Network(teacher(), compiled=compiled)
    ours = _rate_of_loop(train_teacher(net, pictures, settings, run("teacher")))
    plain = _rate_of_step(_plain_step(teacher(), pictures, _teacher_loss))
    add("train the teacher", ours, plain, _flops_a_picture(net.module, 0, True))

    pair = Network(teacher().requires_grad_(False), compiled=compiled)
    student = Network(student_of(pair.module), compiled=compiled)
    ours = _rate_of_loop(distill_guidance(student, pair, pictures, settings, run("stage-one")))
    plain = _rate_of_step(
        _plain_step(student_of(teacher()), pictures, _stage_one_loss(teacher().requires_grad_(False)))
    )
    add("stage one", ours, plain, _flops_a_picture(pair.module, 1, False) + _flops_a_picture(student.module, 0, True))

    frozen = Network(student_of(teacher()).requires_grad_(False), compiled=compiled)
    student = Network(student_of(frozen.module), compiled=compiled)
    reuse = profiles.load(COMMITTED).reuse
    training = halve_steps(student, frozen, pictures, Halving(8, settings, reuse=reuse), run("halving"))
    ours = _rate_of_loop(training, BANK * reuse)  # as many steps with new targets as in any such span
    plain = _rate_of_step(_plain_step(student_of(teacher()), pictures, _halving_loss(student_of(teacher()))))
    add("halving", ours, plain, _flops_a_picture(student.module, 2 / reuse, True))

    label = classes(BATCH, pair.null)
    for case, net, plain_unet, n, calls in (
        ("sample the guided pair, 8 steps", pair, teacher(), 8, 16),
        ("sample the student, 4 steps", frozen, student_of(teacher()), 4, 4),
    ):
        ours = BATCH / median_seconds(partial(sample_pictures, net, n, 1.0, label), 3)
        plain = BATCH / median_seconds(_plain_sampler(plain_unet.requires_grad_(False), n, 1.0), 3)
        add(case, ours, plain, _flops_a_picture(plain_unet, calls, False))

    with atomic(folder / "bench.json") as part:
        part.write_text(json.dumps(results, indent=1))
    print(f"convolution peak {peak / 1e9:.0f} GFLOP/s; {origin()['device']}; written to {folder / 'bench.json'}")


if __name__ == "__main__":
    main()

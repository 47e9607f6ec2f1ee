"""One training step, or one sampler, as a first script with diffusers and torch would have it."""

from collections.abc import Callable
from itertools import cycle

import torch
from diffusers import UNet2DConditionModel
from diffusers.training_utils import EMAModel
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from bench.rates import Way
from distill_lib.diffusion.guidance import guidance_embedding
from distill_lib.diffusion.pixels import to_patches, to_unit
from distill_lib.diffusion.schedules import OURS, add_noise, v_from
from distill_lib.measure.draw import classes
from distill_lib.worlds.pictures import Pictures


class Optimised:
    """AdamW, clipping and diffusers' average of the weights of a network."""

    def __init__(self, module: nn.Module) -> None:
        self.weights = [weight for weight in module.parameters() if weight.requires_grad]
        self.optimizer = torch.optim.AdamW(self.weights, lr=1e-4)
        self.average = EMAModel(self.weights, decay=0.999)

    def update(self, loss: Tensor) -> None:
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.weights, 1.0)
        self.optimizer.step()
        self.optimizer.zero_grad()
        self.average.step(self.weights)


def batches(size: int, *tensors: Tensor) -> Callable[[], list[Tensor]]:
    """What gives the next batch of a DataLoader with a worker, without an end."""
    loader = DataLoader(
        TensorDataset(*tensors), size, shuffle=True, num_workers=1, drop_last=True, persistent_workers=True
    )
    endless = cycle(loader)
    return lambda: next(endless)


def forward(unet: UNet2DConditionModel, z: Tensor, t: Tensor, label: Tensor, w: Tensor | None = None) -> Tensor:
    features = None if w is None else guidance_embedding(w, unet.config.time_cond_proj_dim)
    return unet(z, t - 1, torch.zeros(len(z), 1, 8), class_labels=label, timestep_cond=features).sample


def step_on_pictures(unet: UNet2DConditionModel, pictures: Pictures, size: int, loss_of: Callable[..., Tensor]) -> Way:
    """A training step on pictures and noise, whose loss is the mean of `loss_of`."""
    following, learner = batches(size, pictures.image, pictures.label), Optimised(unet)

    def step() -> None:
        image, label = following()
        x = to_patches(to_unit(image))
        t = torch.randint(1, OURS.T + 1, (len(x),))
        learner.update(loss_of(unet, x, label, t, torch.randn_like(x)))

    return step


def teacher_loss(unet: UNet2DConditionModel, x: Tensor, label: Tensor, t: Tensor, eps: Tensor) -> Tensor:
    return (v_from(x, eps, t) - forward(unet, add_noise(x, eps, t), t, label)).square().mean()


def stage_one_loss(teacher: UNet2DConditionModel) -> Callable[..., Tensor]:
    def loss(unet: UNet2DConditionModel, x: Tensor, label: Tensor, t: Tensor, eps: Tensor) -> Tensor:
        z, w = add_noise(x, eps, t), 4 * torch.rand(len(x))
        with torch.no_grad():
            v_cond = forward(teacher, z, t, label)
            v_uncond = forward(teacher, z, t, torch.full_like(label, unet.config.num_class_embeds - 1))
        strength = w[:, None, None, None]
        return ((1 + strength) * v_cond - strength * v_uncond - forward(unet, z, t, label, w)).square().mean()

    return loss


def halving_loss(teacher: UNet2DConditionModel, n: int = 8) -> Callable[..., Tensor]:
    scheduler = OURS.to_scheduler()
    scheduler.set_timesteps(2 * n)

    def loss(unet: UNet2DConditionModel, x: Tensor, label: Tensor, t: Tensor, eps: Tensor) -> Tensor:
        t = OURS.T // n * torch.randint(1, n + 1, (1,))  # a scheduler steps a whole batch from one timestep
        z, w = add_noise(x, eps, t.expand(len(x))), 4 * torch.rand(len(x))
        with torch.no_grad():
            z_s = z
            for k in (t, t - OURS.T // n // 2):
                v = forward(teacher, z_s, k.expand(len(x)), label, w)
                z_s = scheduler.step(v, int(k) - 1, z_s).prev_sample
        return (z_s - forward(unet, z, t.expand(len(x)), label, w)).square().mean()

    return loss


def sampler(unet: UNet2DConditionModel, n: int, w: float, size: int) -> Way:
    """The loop of a diffusers tutorial: a scheduler, two calls a step for the pair, one for a student."""
    label = classes(size, unet.config.num_class_embeds - 1)
    null = torch.full_like(label, unet.config.num_class_embeds - 1)

    @torch.no_grad()
    def generate() -> Tensor:
        scheduler = OURS.to_scheduler()
        scheduler.set_timesteps(n)
        z = torch.randn(size, 12, unet.config.sample_size, unet.config.sample_size)
        for k in scheduler.timesteps:
            t = k.expand(size) + 1
            if unet.config.time_cond_proj_dim:
                v = forward(unet, z, t, label, torch.full((size,), w))
            else:
                v = (1 + w) * forward(unet, z, t, label) - w * forward(unet, z, t, null)
            z = scheduler.step(v, k, z).prev_sample
        return z

    return generate

"""One real update of a method, and one picture, with networks of a given size: what a plan can be compared with.

Weights are random, data is noise. `gpu-check` runs it at the size of Stable Diffusion 2.1, `preflight` at a teacher's.
"""

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from diffusers import AutoencoderKL
from torch import Tensor

from distill_lib.diffusion.pixels import to_bytes
from distill_lib.diffusion.samplers import sample
from distill_lib.engine.savings import checkpoint, in_bf16, optimizer_of
from distill_lib.measure.memory import Live, fake
from distill_lib.measure.plan import GB, Plan, as_frozen, one_update
from distill_lib.measure.roles import METHODS, Architecture, given, network
from distill_lib.networks.adapter import denoiser
from distill_lib.networks.unet import W_FEATURES


@dataclass(frozen=True)
class Trial:
    """Of two updates: the loss of the last, its seconds, and the bytes that a GPU gave out at most, 0 on a CPU."""

    method: str
    loss: float
    seconds: float
    peak: int

    def line(self, planned: int = 0) -> str:
        """In words, beside the bytes that `counted` says."""
        beside = f", planned {planned / GB:.2f}" * bool(planned)
        held = f", {self.peak / GB:.2f} GB held at most{beside}" * bool(self.peak)
        return f"{self.method}: loss {self.loss:.4g}, {self.seconds:.3g} s an update{held}"


def counted(model: Architecture, plan: Plan) -> int:
    """Bytes that `update` holds at most, as a plan counts them: without text encoders and autoencoder, which stand by
    in a training and not in a trial, and without what the teacher draws before."""
    with fake(), Live() as live:
        cast = METHODS[plan.method](partial(network, model, plan.bf16))
        for net in cast.frozen.values():
            as_frozen(net, plan)
        one_update(cast, model, plan, live)
    return live.peak


def update(model: Architecture, plan: Plan, device: torch.device) -> Trial:
    """Two updates of a method with networks of random weights.

    Raises:
        ValueError: the loss or a gradient is not finite, or a trained parameter but those of unused layers has none.
    """
    saving, on_gpu = plan.savings, device.type == "cuda"
    if on_gpu:
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(device)
    with torch.device(device):
        cast = METHODS[plan.method](partial(network, model, plan.bf16))
        for net in cast.frozen.values():
            net.module.eval().requires_grad_(False)
            if plan.bf16 and saving.frozen_bf16:
                in_bf16(net.module)
        named = {f"{name}.{key}": p for name, net in cast.trained.items() for key, p in net.module.named_parameters()}
        for net in cast.trained.values():
            net.module.train()
            if saving.checkpointing:
                checkpoint(net.module)
        average = [] if saving.offload else [p.detach().clone() for p in named.values()]
        optimizer = optimizer_of(named, {}, 1e-5, saving.optimizer)
        for _ in range(2):
            start, mean = time.perf_counter(), 0.0
            for _ in range(saving.slices):
                loss = cast.loss(*given(model, plan.pixels, plan.batch // saving.slices)).mean() / saving.slices
                loss.backward()
                mean += loss.item()
            norm = torch.nn.utils.clip_grad_norm_([p for p in named.values() if p.grad is not None], 1.0).item()
            optimizer.step()
            optimizer.zero_grad()
            if on_gpu:
                torch.cuda.synchronize(device)
            seconds = time.perf_counter() - start
    del average
    if not torch.tensor([mean, norm]).isfinite().all() or norm == 0:
        raise ValueError(
            f"{plan.method}: the loss is {mean} and the norm of its gradient {norm}; both should be finite"
        )
    return Trial(plan.method, mean, seconds, torch.cuda.max_memory_allocated(device) if on_gpu else 0)


@torch.no_grad()
def pictures(model: Architecture, pixels: int, device: torch.device, steps: Sequence[int] = (8, 4, 1)) -> Iterator[str]:
    """A picture of the guided teacher, of a halved student and of one of one step, each in words.

    Raises:
        ValueError: one has another size than asked for.
    """
    kinds = {"teacher": {}, "student of halving": {"time_cond_proj_dim": W_FEATURES}, "student of one step": {}}
    with torch.device(device):
        vae = AutoencoderKL(**model.vae).eval()
        for (kind, changed), n_steps in zip(kinds.items(), steps, strict=True):
            net = network(model, True, **changed)
            z, _, label = given(model, pixels, 1)
            start = time.perf_counter()
            image: Tensor = to_bytes(vae.decode(sample(denoiser(net, label, 1.0), z, n_steps)).sample)
            seconds = time.perf_counter() - start
            if image.shape != (1, 3, pixels, pixels):
                raise ValueError(f"{kind}: the picture is {tuple(image.shape)}, not of {pixels} pixels")
            yield f"{kind}: {n_steps} steps, {seconds:.3g} s with the decoder"

"""What one training of a text-to-image student holds in memory, role by role, before any weight is loaded.

    held = networks + average of weights + moments + gradients + what the way back needs + what is made on it       (1)
    peak = the most of (1) at one time: gradients come as the second last goes, so it is less than their sum    (2)

One update is carried out on fake tensors (`measure.memory`) by the losses themselves, so that all is counted; only the
bytes of the moments follow from the number of weights. These are the bytes that PyTorch is asked for. A GPU needs more:
`reserve` is our estimate, and no plan has been compared with a card yet.
"""

import gc
from dataclasses import dataclass, field, replace
from functools import partial

import psutil
import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode, sdpa_backward_flop_count, sdpa_flop_count
from transformers import CLIPTextConfig, CLIPTextModel

from distill_lib.diffusion.guidance import guided_pair
from distill_lib.engine.precision import default_device
from distill_lib.engine.savings import Savings, in_bf16
from distill_lib.engine.sharing import groups
from distill_lib.measure.memory import Live, as_on_gpu, bytes_of, fake, held_by
from distill_lib.measure.roles import METHODS, Architecture, Cast, given, network
from distill_lib.networks.adapter import Network

GB = 10**9
_DRAWN = 64  # pictures that a teacher draws at once (`teachers.latents`)
_SMALL, _BLOCK = 4096, 256  # bitsandbytes: entries from which on moments have 8 bits, and entries that share a scale
_ATTENTION = {  # which torch does not count on a CPU
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu: lambda *shapes, **_: sdpa_flop_count(*shapes[:3]),
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward: lambda *shapes, **_: sdpa_backward_flop_count(
        *shapes[:4]
    ),
}
_BESIDE = "text encoder, autoencoder"
OPTIMIZERS = ("adamw", "adamw8bit", "paged_adamw8bit")
"""By the names of `Savings.optimizer`."""


@dataclass(frozen=True, kw_only=True)
class Plan:
    """One training.

    method: one of `METHODS`. pixels: side of a picture. batch: samples an update and a process. bf16: networks compute
    in bfloat16; weights that are trained, their gradients and their average are float32 all the same. resting: networks
    of the teacher's size that stand on the card unused, as finished students do.
    """

    method: str = "halving"
    pixels: int = 512
    batch: int = 4
    processes: int = 1
    bf16: bool = True
    resting: int = 0
    savings: Savings = field(default_factory=Savings)


@dataclass(frozen=True)
class Needed:
    """What a plan comes to: bytes and weights by role, and operations of an update and a process.

    `bytes["peak"]` is (2); `bytes["drawing"]` is what is held at most before, while the teacher draws the pictures of
    the training. `moments` are bytes by the name of an optimiser.
    """

    bytes: dict[str, int]
    weights: dict[str, int]
    flops: int
    moments: dict[str, int] = field(default_factory=dict)

    def by(self, optimizer: str) -> "Needed":
        """The same training with another optimiser: moments are held from its start to its end, the peak included."""
        less = self.bytes["moments"] - self.moments[optimizer]
        changed = {"moments": self.moments[optimizer], "peak": self.bytes["peak"] - less}
        return replace(self, bytes=self.bytes | changed)

    @property
    def reserve(self) -> int:
        """What a GPU takes besides, estimated: 1 GB of its own, and 5 % of the peak between blocks."""
        return GB + self.most // 20

    @property
    def most(self) -> int:
        """Bytes at the worst time."""
        return max(self.bytes["peak"], self.bytes["drawing"])

    @property
    def whole(self) -> int:
        """Bytes that a card has to have: those of the worst time, and the reserve."""
        return self.most + self.reserve


def moment_tensors(parameter: Tensor, optimizer: str) -> list[Tensor]:
    """What an optimiser of `OPTIMIZERS` keeps of a parameter on the card, empty."""
    count = parameter.numel()
    if optimizer == "paged_adamw8bit":
        return []  # in the machine's memory, and fetched by the page
    if optimizer == "adamw" or count < _SMALL:
        return [torch.empty(count), torch.empty(count), torch.empty(())]
    blocks = -(-count // _BLOCK)
    return [torch.empty(n, dtype=kind) for n, kind in 2 * ((count, torch.uint8), (blocks, torch.float32))]


def beside_bytes(model: Architecture) -> tuple[int, int]:
    """Weights and bytes of text encoders and autoencoder, which stand by in float32."""
    with torch.device("meta"):
        module = nn.ModuleList(CLIPTextModel(CLIPTextConfig(**config)) for config in model.texts)
        module.append(AutoencoderKL(**model.vae))
    return sum(p.numel() for p in module.parameters()), sum(t.nbytes for t in held_by(module))


def _teacher_weights(model: Architecture) -> int:
    with torch.device("meta"):
        return sum(p.numel() for p in UNet2DConditionModel(**model.unet).parameters())


def drawing_bytes(model: Architecture, plan: Plan) -> int:
    """Bytes of the teacher, in float32 as it was opened, at its worst time while it draws."""
    with fake(), torch.no_grad(), Live() as live:
        teacher = network(model, plan.bf16)
        z, t, label = given(model, plan.pixels, _DRAWN)
        with as_on_gpu():
            guided_pair(teacher, z, t, label, teacher.null)
    return live.peak


def as_frozen(net: Network, plan: Plan) -> Network:
    """A frozen network as a plan holds it: in evaluation, and rounded to bfloat16 where its savings say so."""
    net.module.eval().requires_grad_(False)
    if plan.bf16 and plan.savings.frozen_bf16:
        in_bf16(net.module)
    return net


def _parameters(cast: Cast) -> list[nn.Parameter]:
    return [p for net in cast.trained.values() for p in net.module.parameters()]


def one_update(cast: Cast, model: Architecture, plan: Plan, live: Live) -> tuple[dict[str, int], int]:
    """Bytes by role of one update, but of the networks; its operations."""
    saving, parameters = plan.savings, _parameters(cast)
    for net in cast.trained.values():
        net.module.train()
        if saving.checkpointing:
            net.module.enable_gradient_checkpointing()
    average = [] if saving.offload else [p.detach().clone() for p in parameters]
    moments = [part for p in parameters for part in moment_tensors(p, saving.optimizer)]
    before, live.peak = live.now, live.now
    batch, kept = given(model, plan.pixels, plan.batch // saving.slices), 0
    with FlopCounterMode(display=False, custom_mapping=_ATTENTION) as counter, as_on_gpu():
        for _ in range(min(saving.slices, 2)):  # from the second slice on gradients are there from the start
            loss = cast.loss(*batch).mean()
            kept = kept or live.now - before
            loss.backward()
    gradients = [p.grad for p in parameters if p.grad is not None]
    if plan.processes > 1:  # which exchange a group at a time, as one tensor that accelerate copies
        for group in groups(gradients):
            torch.cat([x.flatten() for x in group]).clone()
    sizes = {"average": bytes_of(average), "moments": bytes_of(moments), "gradients": bytes_of(gradients)}
    flops = counter.get_total_flops() * saving.slices // min(saving.slices, 2)
    return sizes | {"kept for the way back": kept}, flops


def memory_here() -> tuple[str, int]:
    """Where networks live on this machine, and the bytes that are there in all."""
    device = default_device()
    if device.type == "cuda":
        return torch.cuda.get_device_name(device), torch.cuda.get_device_properties(device).total_memory
    return "this machine", psutil.virtual_memory().total


def needed(model: Architecture, plan: Plan, drawing: int | None = None) -> Needed:
    """What one training needs, by a first update on fake tensors.

    `drawing` is what `drawing_bytes` says of model, pixels and precision, where it is known.

    Raises:
        ValueError: the method is unknown, or the batch does not divide into its slices.
    """
    if plan.method not in METHODS:
        raise ValueError(f"method={plan.method!r} is unknown; choose one of {', '.join(METHODS)}")
    if plan.batch % plan.savings.slices:
        raise ValueError(f"a batch of {plan.batch} does not divide into {plan.savings.slices} slices; take a divisor")
    beside_weights, beside = beside_bytes(model)
    drawing = drawing_bytes(model, plan) if drawing is None else drawing
    teacher = 4 * _teacher_weights(model)
    gc.collect()
    with fake(), Live() as live:
        cast = METHODS[plan.method](partial(network, model, plan.bf16))
        for net in cast.frozen.values():
            as_frozen(net, plan)
        nets = {name: net.module for name, net in (cast.trained | cast.frozen).items()}
        sizes = {name: bytes_of(held_by(module)) for name, module in nets.items()}
        weights = {name: sum(p.numel() for p in module.parameters()) for name, module in nets.items()}
        kinds = {name: bytes_of([m for p in _parameters(cast) for m in moment_tensors(p, name)]) for name in OPTIMIZERS}
        gc.collect()
        parts, flops = one_update(cast, model, plan, live)
    sizes |= {_BESIDE: beside, "resting": plan.resting * teacher}
    peak = live.peak + beside + plan.resting * teacher
    if plan.method == "stage-one":  # which first measures the size of guidance, on as many samples as are drawn at once
        peak = max(peak, sum(sizes.values()) + parts["average"] + parts["moments"] + drawing - teacher)
    sizes |= parts | {"peak": peak, "drawing": drawing + beside}
    return Needed(sizes, weights | {_BESIDE: beside_weights}, flops, kinds)

"""Models as ONNX graphs: from token ids or a class, noise and w to pictures, in one file that ONNX Runtime draws with.

    one step    picture = decode(x_hat(noise, T))                                                                  (1)
    n steps     z <- ddim_step(z, t, s)  over the times of `schedules.step_grid`, then picture = decode(z)         (2)

The loop of (2) is a Scan, so that n is an input and the network stands in the file once. All numbers are float32, and
pictures are those of diffusers' `output_type="pt"`: (B, 3, R, R) in [0, 1]. Every input but n has the batch first; the
name of that size is `batch`, by which a program may set it to 1 for good as it loads the file.
"""

import copy
from collections.abc import Callable
from typing import TypeVar

import onnx
import torch
from onnx import GraphProto, ModelProto, helper
from torch import Tensor, nn

from distill_lib.diffusion.pixels import from_patches
from distill_lib.diffusion.samplers import Denoise, ddim_step, sample
from distill_lib.diffusion.schedules import Schedule
from distill_lib.networks.adapter import Network, denoise_pair, denoise_student
from distill_lib.networks.graphs import OPSET, check_operators, export
from distill_lib.networks.pipeline import TextToImage, tokens_of

Module = TypeVar("Module", bound=nn.Module)
_GRID = """
grid (int64 steps) => (int64[n] t, int64[n] s)
<int64 T = {%d}, int64 down = {-1}, int64[1] first = {0}, int64[1] second = {1}, int64[1] last = {-1},
 int64[1] end = {9223372036854775807}>
{
    left = Range (steps, down, down)
    scaled = Mul (left, T)
    part = Cast <to = 11> (scaled)
    whole = Cast <to = 11> (steps)
    exact = Div (part, whole)
    even = Round (exact)
    times = Cast <to = 7> (even)
    t = Slice (times, first, last)
    s = Slice (times, second, end)
}
"""
"""Pairs of times (t, s) of an n-step sampler, as `schedules.step_grid` has them."""


def decoder_of(model: TextToImage, net: Network) -> tuple[nn.Module, float]:
    """The decoder of a network's latents into [-1, 1], its own tiny one or its teacher's; and the scale of those
    latents, by which they are divided first.
    """
    tiny, vae = getattr(net.decode, "tiny", None), model.pipe.vae
    if tiny is not None:
        return tiny.decoder, 1.0
    return nn.Sequential(vae.post_quant_conv, vae.decoder), vae.config.scaling_factor


def one_step_graph(model: TextToImage, net: Network, batch: int = 2) -> ModelProto:
    """Formula (1): ids int64 (B, L) and noise (B, C, H, W) -> picture (B, 3, R, R).

    Args:
        model: whose text encoder the student reads prompts by.
        net: the student.
        batch: 1 for a graph of that size alone, which exports in half the time; else any size will do.

    Raises:
        ValueError: the student takes w, or is conditioned on more than a prompt; or as `graphs.export`.
    """
    if net.takes_w:
        raise ValueError("this student takes w as an input, for which a graph of one step has no place: fold its steps")
    net, text, decoder, scale = _copied(net), _exact(model.pipe.text_encoder), *decoder_of(model, net)
    decoder = _exact(decoder)

    def draw(ids: Tensor, noise: Tensor) -> Tensor:
        label = text(ids)[0]
        return _seen(decoder(sample(lambda z_t, t: net(z_t, t, label), noise, 1, net.schedule) / scale))

    inputs = {"ids": _ids(model, net, batch), "noise": _zeros(net, batch)}
    return export(draw, (text, net.module, decoder), inputs, "picture")


def steps_graph(model: TextToImage, net: Network, batch: int = 2) -> ModelProto:
    """Formula (2): ids int64 (B, L), noise (B, C, H, W), w (B,) and steps int64 () -> picture (B, 3, R, R).

    A network that takes no w is evaluated as a guided pair, of batch 1 alone. Arguments and errors as in
    `one_step_graph`.
    """
    net, text, decoder, scale = _copied(net), _exact(model.pipe.text_encoder), *decoder_of(model, net)
    decoder, ids = _exact(decoder), _ids(model, net, batch)
    first = export(lambda ids: text(ids)[0], (text,), {"ids": ids}, "label")
    with torch.no_grad():
        label = text(ids)[0]
    last = export(lambda x: _seen(decoder(x / scale)), (decoder,), {"x": _zeros(net, batch)}, "picture")
    return _scan_graph(first, _step_graph(net, label), last, net.schedule.T)


def class_graph(net: Network, batch: int = 2) -> ModelProto:
    """Formula (2) in pixels: label int64 (B,), noise (B, 12, R/2, R/2), w (B,) and steps int64 () -> picture.

    Arguments and errors as in `steps_graph`.
    """
    net, label = _copied(net), torch.zeros(batch, dtype=torch.long, device=net.device)
    last = export(lambda x: _seen(from_patches(x)), (), {"x": _zeros(net, batch)}, "picture")
    return _scan_graph(None, _step_graph(net, label), last, net.schedule.T)


def decoder_graph(model: TextToImage, net: Network, batch: int = 2) -> ModelProto:
    """A network's decoder alone: latents (B, C, H, W), scaled as the U-Net knows them -> picture (B, 3, R, R).

    Arguments and errors as in `one_step_graph`.
    """
    decoder, scale = decoder_of(model, net)
    decoder = _exact(decoder)
    return export(lambda z: _seen(decoder(z / scale)), (decoder,), {"latents": _zeros(net, batch)}, "picture")


def _seen(image: Tensor) -> Tensor:
    """Pictures in [-1, 1] as they are shown, in [0, 1]."""
    return (image / 2 + 0.5).clamp(0, 1)


def _exact(net: Module) -> Module:
    """A copy in float32, with which an export may do as it likes."""
    return copy.deepcopy(net).float().eval()


def _copied(net: Network) -> Network:
    if len(net.modules) > 1 or net.module.config.in_channels != net.shape[0]:
        raise ValueError("only networks of a class or a prompt have a graph here: no ControlNet, no further channels")
    return net.like(_exact(net.module), bf16=False)


def _ids(model: TextToImage, net: Network, batch: int) -> Tensor:
    return tokens_of(model.pipe, [""] * batch).to(net.device)


def _zeros(net: Network, batch: int) -> Tensor:
    return torch.zeros(batch, *net.shape, device=net.device)


def _step_graph(net: Network, label: Tensor) -> ModelProto:
    """z_s = ddim_step(z, t, s) of a student or of a guided pair, for times of one number each."""
    if not net.takes_w and len(label) > 1:
        raise ValueError("the graph of a guided pair is of batch 1 alone, since both halves of the pair make one batch")
    bound: Callable = denoise_student if net.takes_w else denoise_pair
    step = step_of(lambda label, w: bound(net, label, w), net.schedule)
    return export_step(step, (net.module,), _zeros(net, len(label)), label, net.schedule.T)


def step_of(denoise: Callable[[Tensor, Tensor], Denoise], schedule: Schedule) -> Callable[..., Tensor]:
    """z_s = ddim_step(z, t, s) as a function of tensors (z, t, s, label, w), for times of one number each.

    Args:
        denoise: makes the denoiser of a condition (B,) or (B, L, D) and a strength (B,).
        schedule: the grid of its times.
    """

    def step(z: Tensor, t: Tensor, s: Tensor, label: Tensor, w: Tensor) -> Tensor:
        return ddim_step(denoise(label, w), z, t.expand(len(z)), s.expand(len(z)), schedule)

    return step


def export_step(
    step: Callable[..., Tensor], networks: tuple[nn.Module, ...], z: Tensor, label: Tensor, T: int
) -> ModelProto:
    """A step of `step_of` as a graph: z, t int64 (), s int64 (), label and w (B,) -> z_s.

    Args:
        step: the function; `networks` are those that it evaluates.
        z, label: examples, whose batch is as in `graphs.export`.
        T: number of times of the grid.

    Raises:
        ValueError: as `graphs.export`.
    """
    inputs = {"z": z, "t": torch.tensor(T), "s": torch.tensor(0), "label": label, "w": torch.ones(len(label))}
    return export(step, networks, {name: x.to(z.device) for name, x in inputs.items()}, "z_s")


def _scan_graph(first: ModelProto | None, step: ModelProto, last: ModelProto, T: int) -> ModelProto:
    """One graph of what makes the label from ids, of the steps, and of what makes pictures from data x."""
    before = [_prefixed(first.graph, "first/")] if first else []
    body, after = _prefixed(step.graph, "step/"), _prefixed(last.graph, "last/")
    grid = onnx.compose.add_prefix_graph(onnx.parser.parse_graph(_GRID % T), "grid/", rename_inputs=False)
    inputs = {value.name: value for graph in (body, *before) for value in graph.input}
    noise = copy.deepcopy(inputs["z"])
    noise.name = "noise"
    outer = [inputs["ids" if first else "label"], noise, inputs["w"], grid.input[0]]
    state = [inputs[name] for name in ("z", "t", "s")]  # label and w are read from the graph around
    del body.input[:]
    body.input.extend(state)
    scan = helper.make_node("Scan", ["noise", "grid/t", "grid/s"], ["x"], num_scan_inputs=2, body=body)
    nodes = [node for graph in (*before, grid) for node in graph.node] + [scan, *after.node]
    weights = [weight for graph in (*before, grid, after) for weight in graph.initializer]
    graph = helper.make_graph(nodes, "draw", outer, list(after.output), weights)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=step.ir_version)
    onnx.checker.check_model(model)
    return check_operators(model)


def _prefixed(graph: GraphProto, prefix: str) -> GraphProto:
    """The same graph, with a prefix before all names but those of inputs and outputs."""
    return onnx.compose.add_prefix_graph(graph, prefix, rename_inputs=False, rename_outputs=False)

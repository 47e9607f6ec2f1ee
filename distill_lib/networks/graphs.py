"""Functions of tensors as ONNX graphs: exported by PyTorch, held to operators that a browser has, put into 8 bits.

W ~ scale q,   scale = max |W| / 127 of each output channel,   q = round(W / scale)                            (1)
"""

import copy
import warnings
from collections.abc import Callable, Iterator

import numpy as np
import onnx
import torch
from onnx import AttributeProto, GraphProto, ModelProto, NodeProto, TensorProto, helper, numpy_helper
from torch import Tensor, nn

from distill_lib.engine.messages import line

OPSET = 18
"""Of the exporter's own operators, so that no graph is converted."""
OPERATORS = frozenset(
    """Add And Cast Clip Concat Conv ConvTranspose Cos DepthToSpace DequantizeLinear Div Equal Erf Exp Expand Gather
    GatherND Gemm Greater Identity InstanceNormalization IsNaN LayerNormalization Less LessOrEqual Log MatMul Max Min
    Mul Neg Not Pow Range ReduceMean ReduceSum Relu Reshape Resize Round Scan Shape Sigmoid Sin Slice Softmax Split
    Sqrt Squeeze Sub Tanh Tile Transpose Unsqueeze Where""".split()
)
"""What a graph may hold: operators of ONNX's own domain that ONNX Runtime has for a CPU, and so in onnxruntime-web."""
_LARGEST = 2**31 - 2**24  # bytes of weights in one file, of which ONNX allows 2 GiB
_SMALLEST = 1024  # numbers; a smaller tensor stays as it is
_CHANNEL = {"Conv": 0, "Gather": 0, "MatMul": 1, "Gemm": 1}
"""Axis of a weight along which each channel gets a scale of its own."""


class _Part(nn.Module):
    """A function of tensors, and the networks that it evaluates."""

    def __init__(self, function: Callable[..., Tensor], *networks: nn.Module) -> None:
        super().__init__()
        self.function, self.networks = function, nn.ModuleList(networks)

    def forward(self, *tensors: Tensor) -> Tensor:
        return self.function(*tensors)


def export(
    function: Callable[..., Tensor], networks: tuple[nn.Module, ...], inputs: dict[str, Tensor], output: str
) -> ModelProto:
    """A function of tensors as a graph.

    Args:
        function: of the inputs in their order.
        networks: that it evaluates.
        inputs: examples by name, all but single numbers with the batch first. A graph of examples of batch 1 takes no
            other; of a batch of 2 it takes any, and calls that size `batch`.
        output: name of what comes out.

    Raises:
        ValueError: the weights are too many for one file, PyTorch knows no graph of the function, or the graph needs
            operators that are not among `OPERATORS`.
    """
    weights = sum(4 * p.numel() for net in networks for p in net.parameters())
    if weights > _LARGEST:
        raise ValueError(f"an ONNX file holds 2 GB at most, and these weights take {weights / 1e9:.1f} GB as float32")
    part, examples = _Part(function, *networks).eval(), tuple(inputs.values())
    # diffusers takes another way from 64 samples on, which leads to the same graph
    any_size = {0: torch.export.Dim("batch", max=63)}
    sizes = tuple(any_size if x.ndim and len(x) > 1 else None for x in examples)
    try:
        with torch.no_grad(), warnings.catch_warnings(action="ignore"):
            # only the strict way follows len(x) where that is any number
            program = torch.export.export(part, examples, dynamic_shapes=(sizes,), strict=any(sizes))
            graph = torch.onnx.export(
                program,
                input_names=list(inputs),
                output_names=[output],
                opset_version=OPSET,
                external_data=False,
                verbose=False,
            ).model_proto
    except Exception as error:
        reason = line(error.__cause__ or error)
        raise ValueError(f"PyTorch cannot write this network as an ONNX graph: {reason}") from error
    return _bare(check_operators(graph))


def _graphs(graph: GraphProto) -> Iterator[GraphProto]:
    """A graph, and those inside its nodes."""
    yield graph
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.type == AttributeProto.GRAPH:
                yield from _graphs(attribute.g)


def operators(model: ModelProto) -> set[str]:
    """Names of all operators of a graph, those of another domain than ONNX's own with that before them."""
    nodes = [node for graph in _graphs(model.graph) for node in graph.node]
    return {f"{node.domain}::{node.op_type}".removeprefix("::") for node in nodes}


def check_operators(model: ModelProto) -> ModelProto:
    """The graph as it is.

    Raises:
        ValueError: it holds operators that are not among `OPERATORS`; names them.
    """
    if others := sorted(operators(model) - OPERATORS):
        raise ValueError(f"onnxruntime-web may lack what this network needs: the operators {', '.join(others)}")
    return model


def _bare(model: ModelProto) -> ModelProto:
    """The same graph without what only the exporter has to say, such as paths of source files; its one free size is
    called `batch`.
    """
    for graph in _graphs(model.graph):
        for value in (*graph.input, *graph.output):
            for size in value.type.tensor_type.shape.dim:
                if size.dim_param:
                    size.dim_param = "batch"
        for place in (graph, *graph.node, *graph.initializer, *graph.input, *graph.output):
            place.ClearField("metadata_props")
            place.ClearField("doc_string")
        graph.ClearField("value_info")
    model.ClearField("metadata_props")
    return model


def in_bytes(model: ModelProto) -> ModelProto:
    """The same graph with its large weights as the 8-bit integers q of (1), of which DequantizeLinear makes float32.

    Norms, biases and tensors of fewer than 1,024 numbers stay float32.
    """
    model = copy.deepcopy(model)
    for graph in _graphs(model.graph):
        uses = {name: node for node in graph.node for name in node.input}
        nodes: list[NodeProto] = []
        for weight in list(graph.initializer):
            axis = _channel_axis(uses.get(weight.name))
            large = weight.data_type == TensorProto.FLOAT and len(weight.dims) > 1 and np.prod(weight.dims) >= _SMALLEST
            if large and axis is not None:
                nodes.append(_dequantized(graph, weight, axis))
        rest = list(graph.node)
        del graph.node[:]
        graph.node.extend([*nodes, *rest])
    onnx.checker.check_model(model)
    return check_operators(model)


def _channel_axis(node: NodeProto | None) -> int | None:
    """Axis of the output channels of a weight, by the operator that reads it; none where it is no weight."""
    if node is None or node.op_type not in _CHANNEL:
        return None
    transposed = any(attribute.name == "transB" and attribute.i for attribute in node.attribute)
    return 0 if transposed else _CHANNEL[node.op_type]


def _dequantized(graph: GraphProto, weight: TensorProto, axis: int) -> NodeProto:
    """Put q and scale in the place of a weight; the node that makes it of them again."""
    values = numpy_helper.to_array(weight)
    others = tuple(d for d in range(values.ndim) if d != axis)
    scale = np.maximum(np.abs(values).max(axis=others, keepdims=True) / 127, np.finfo(np.float32).tiny)
    names = f"{weight.name}/q", f"{weight.name}/scale"
    node = helper.make_node("DequantizeLinear", names, [weight.name], axis=axis)
    graph.initializer.remove(weight)
    q = np.round(values / scale).astype(np.int8)
    graph.initializer.extend(map(numpy_helper.from_array, (q, scale.reshape(-1)), names))
    return node

"""Graphs hold what their functions compute, in operators that a browser has and in weights of 8 bits that are near."""

import numpy as np
import onnx
import pytest
import torch
from onnx import helper, numpy_helper
from torch import nn

from distill_lib.diffusion.schedules import step_grid
from distill_lib.networks import graphs, runtime
from distill_lib.networks.drawing_graphs import _GRID
from distill_lib.networks.graphs import OPERATORS, export, in_bytes, operators
from distill_lib.networks.runtime import GraphRun, runs_graph


class Small(nn.Module):
    """A convolution, and a layer behind it: pictures (B, 4, 4, 4) -> (B, 24)."""

    def __init__(self):
        super().__init__()
        self.conv, self.layer = nn.Conv2d(4, 32, 3), nn.Linear(128, 24)

    def forward(self, x):
        return self.layer(self.conv(x).flatten(1))


def small_graph(batch):
    net = Small()
    return net, export(net, (net,), {"x": torch.zeros(batch, 4, 4, 4)}, "y")


def test_a_graph_of_any_batch_computes_what_its_function_does():
    net, graph = small_graph(2)
    assert [d.dim_param or d.dim_value for d in graph.graph.input[0].type.tensor_type.shape.dim] == ["batch", 4, 4, 4]
    for batch in (1, 5):
        x = torch.randn(batch, 4, 4, 4)
        with torch.no_grad():
            assert torch.allclose(GraphRun(graph)(x=x), net(x), atol=1e-5)


def test_a_graph_names_no_file_of_the_machine_that_exported_it():
    _, graph = small_graph(1)
    assert b".py" not in graph.SerializeToString() and graph.graph.input[0].type.tensor_type.shape.dim[0].dim_value == 1


def test_weights_of_8_bits_are_nearest_multiples_of_a_scale_for_each_channel():
    net, graph = small_graph(1)
    result = in_bytes(graph)
    assert operators(result) == operators(graph) | {"DequantizeLinear"}
    known = {tensor.name: numpy_helper.to_array(tensor) for tensor in result.graph.initializer}
    dequantized = {node.output[0]: node for node in result.graph.node if node.op_type == "DequantizeLinear"}
    assert len(dequantized) == 2  # biases stay
    for name, weight in (("conv.weight", net.conv.weight), ("layer.weight", net.layer.weight)):
        (node,) = (node for output, node in dequantized.items() if output.endswith(name))
        q, scale = (known[name] for name in node.input)
        axis = next(attribute.i for attribute in node.attribute if attribute.name == "axis")
        wanted, q = np.moveaxis(weight.detach().numpy(), 0, axis), np.float32(q)
        wide = scale.reshape([-1 if d == axis else 1 for d in range(q.ndim)])
        assert len(scale) == len(weight)  # a channel of the output each
        assert (np.abs(q * wide - wanted) <= 0.5001 * wide).all()
        assert (np.abs(q).max(axis=tuple(d for d in range(q.ndim) if d != axis)) == 127).all()
    x = torch.randn(1, 4, 4, 4)
    assert 0 < (GraphRun(result)(x=x) - GraphRun(graph)(x=x)).abs().max() < 0.05


@pytest.mark.parametrize("T", [1000, 1024])
def test_times_inside_a_graph_are_those_of_the_sampler(T):
    grid = helper.make_model(
        onnx.parser.parse_graph(_GRID % T), opset_imports=[helper.make_opsetid("", graphs.OPSET)], ir_version=10
    )
    run = GraphRun(grid).session.run
    for n in (1, 2, 4, 8, 16, *((3, 7) if T == 1000 else ())):
        t, s = run(None, {"steps": np.array(n)})
        assert [*t, s[-1]] == step_grid(n, T) and list(s[:-1]) == list(t[1:])


def test_an_operator_that_a_browser_may_lack_is_named():
    with pytest.raises(ValueError, match=r"onnxruntime-web may lack what this network needs: the operators Det$"):
        export(torch.linalg.det, (), {"x": torch.eye(3)[None]}, "y")


def test_a_function_that_pytorch_knows_no_graph_of_ends_in_a_sentence():
    with pytest.raises(ValueError, match="PyTorch cannot write this network as an ONNX graph: ") as error:
        export(torch.linalg.svdvals, (), {"x": torch.eye(3)[None]}, "y")
    assert "\n" not in str(error.value)


def test_more_weights_than_a_file_holds_are_refused_before_anything_is_traced():
    with pytest.raises(ValueError, match=r"an ONNX file holds 2 GB at most, and these weights take 3\.6 GB"):
        export(None, (nn.Linear(30_000, 30_000, device="meta"),), {}, "y")


def test_onnx_runtime_has_all_allowed_operators_for_a_cpu():
    from onnxruntime.capi.onnxruntime_pybind11_state import get_all_opkernel_def

    kernels = {k.op_name for k in get_all_opkernel_def() if k.domain == "" and k.provider == "CPUExecutionProvider"}
    assert OPERATORS - kernels == set()


def test_a_graph_runs_on_as_many_threads_as_torch_has_at_the_call():
    _, graph = small_graph(2)
    run, threads, x = GraphRun(graph), torch.get_num_threads(), torch.randn(2, 4, 4, 4)
    answers = []
    try:
        for count in (1, 2):
            torch.set_num_threads(count)
            answers.append(run(x=x))
            assert run.session.get_session_options().intra_op_num_threads == count
    finally:
        torch.set_num_threads(threads)
    assert torch.allclose(*answers, rtol=0, atol=1e-6)


def test_what_one_message_of_protobuf_cannot_hold_is_no_graph(monkeypatch):
    monkeypatch.setattr(runtime, "runs_where_networks_live", lambda: True)
    with torch.device("meta"):
        half = nn.Linear(2**14, 2**14, bias=False)  # 2^30 bytes
    assert runs_graph(half) and not runs_graph(half, half)

"""ONNX Runtime as it is used here: a graph as a function of tensors, computed where networks live."""

import onnxruntime
import torch
from onnx import ModelProto
from torch import Tensor, nn

from distill_lib.engine.precision import default_device

_ON_GPU = "CUDAExecutionProvider"
_LARGEST = 2**31  # bytes of a graph, which is one message of protobuf


def runs_where_networks_live() -> bool:
    """Whether ONNX Runtime computes on the device of our networks: always on a CPU, with the right build on a GPU."""
    return default_device().type == "cpu" or _ON_GPU in onnxruntime.get_available_providers()


def runs_graph(*modules: nn.Module) -> bool:
    """Whether it computes there, and one file can hold a graph of such modules in float32."""
    size = 4 * sum(weight.numel() for module in modules for weight in module.parameters())
    return size < _LARGEST and runs_where_networks_live()


class GraphRun:
    """A graph with one output as a function of tensors by name, on as many threads as torch has at the call."""

    def __init__(self, graph: ModelProto) -> None:
        self._graph = graph.SerializeToString()
        self._open()

    def _open(self) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = self.threads = torch.get_num_threads()
        on_gpu = default_device().type == "cuda" and runs_where_networks_live()
        providers = [_ON_GPU] * on_gpu + ["CPUExecutionProvider"]
        self.session = onnxruntime.InferenceSession(self._graph, options, providers)

    def __call__(self, **inputs: Tensor) -> Tensor:
        if torch.get_num_threads() != self.threads:  # a notebook has more of them while it measures time
            self._open()
        (output,) = self.session.run(None, {name: x.cpu().numpy() for name, x in inputs.items()})
        return torch.from_numpy(output)

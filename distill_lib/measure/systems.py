"""Systems that draw, as functions of a prompt: what a picture costs them in seconds at batch 1, and how good it is.

Tables 1 and 3 and Fig. 1 of SDXS (Song et al. 2024, arXiv 2403.16627). Sums over modules, as the paper makes them, are
those of `costs`. diffusers evaluates the U-Net for both answers of a guided step in one call, which takes less than
twice as long where a batch of one does not fill the machine: a whole pipeline can be faster than its sum.

    speedup = seconds of a whole picture before / after, by the same way of running both
"""

import copy
import shutil
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cache, partial
from typing import Any

import torch
from diffusers import StableDiffusionPipeline
from torch import Tensor, nn

from distill_lib.diffusion.noise import normal
from distill_lib.diffusion.pixels import to_bytes
from distill_lib.diffusion.samplers import Denoise, Fresh, nfe
from distill_lib.diffusion.solvers import check_sampler, sample_by
from distill_lib.measure.costs import MODULES, fast_dtype, module_rows, operations, summed, time_interleaved
from distill_lib.measure.independent import Sampled
from distill_lib.measure.prompts import PromptBenchmark
from distill_lib.measure.rows import Row, tidy
from distill_lib.networks.adapter import Network, denoiser
from distill_lib.networks.drawing_graphs import decoder_of, one_step_graph, steps_graph
from distill_lib.networks.pipeline import TextToImage
from distill_lib.networks.runtime import GraphRun, runs_graph

_COMPILER = {"freezing": True, "cpp_wrapper": True}


@dataclass(frozen=True)
class System:
    """A teacher or a student as it draws.

    Args:
        model: the teacher, whose text encoder and tokenizer all share.
        net: U-Net and decoder behind the adapter.
        n_steps, w: of the sampler; a network that takes no w is a guided pair unless w = 0.
        sampler: one of `solvers.SAMPLERS`; what a row calls the system is no business of its own.

    Raises:
        ValueError: there is no such sampler.
    """

    model: TextToImage
    net: Network
    n_steps: int
    w: float
    sampler: str = "ddim"

    def __post_init__(self) -> None:
        check_sampler(self.sampler)

    @property
    def sampled(self) -> Sampled:
        """How its independent pictures are drawn."""
        return Sampled(self.net, self.n_steps, self.w, self.sampler)

    @property
    def evaluations(self) -> dict[str, int]:
        """How often each module is evaluated for a picture, as the paper counts."""
        guided = self.w != 0 and not self.net.takes_w
        return dict(zip(MODULES, (1 + guided, nfe(self.n_steps, self.w, not self.net.takes_w), 1), strict=True))

    def modules(self, prompt: str) -> dict[str, tuple[nn.Module, tuple[Tensor, ...]]]:
        """Each module, and what it is given at batch 1: ids (1, L); z_T (1, C, H, W), time, states; latents."""
        device = self.net.device
        ids, z = self.ids(prompt), torch.zeros(1, *self.net.shape, device=device)
        time_T = torch.full((1,), self.net.schedule.T - 1, device=device)
        given = (ids,), (z, time_T, self.model.states([prompt]).to(device)), (z,)
        networks = self.model.pipe.text_encoder, self.net.module, self.decoder
        return dict(zip(MODULES, zip(networks, given, strict=True), strict=True))

    @property
    def decoder(self) -> nn.Module:
        """Scaled latents to pictures: a tiny decoder where the network has one of its own, or the teacher's."""
        return decoder_of(self.model, self.net)[0]

    @property
    def scale(self) -> float:
        """By which the decoder's latents differ from the U-Net's."""
        return decoder_of(self.model, self.net)[1]

    def ids(self, prompt: str) -> Tensor:
        """Tokens of a prompt, (1, L)."""
        words, length = self.model.pipe.tokenizer, self.model.pipe.tokenizer.model_max_length
        tokens = words([prompt], padding="max_length", max_length=length, truncation=True, return_tensors="pt")
        return tokens.input_ids.to(self.net.device)

    def draw(self, denoise: Denoise, z_T: Tensor, fresh: Fresh) -> Tensor:
        """Latents (B, C, H, W) from noise by the sampler; fresh(i) is the noise of its i-th draw on the way."""
        return sample_by(self.sampler, denoise, z_T, self.n_steps, fresh, self.net.schedule)


class _Run(nn.Module):
    """A copy of a network that runs in a precision, and takes and gives float32."""

    def __init__(self, net: nn.Module, dtype: torch.dtype, compiled: bool) -> None:
        super().__init__()
        self.net, self.dtype = copy.deepcopy(net).to(dtype).eval().requires_grad_(False), dtype
        self.config = getattr(net, "config", None)
        self.call = torch.compile(self.net, dynamic=False, options=_COMPILER) if compiled else self.net

    def forward(self, *given: Any, **named: Any) -> tuple[Tensor]:
        out = self.call(*map(self._cast, given), **{name: self._cast(value) for name, value in named.items()})
        return ((out if isinstance(out, Tensor) else out[0]).float(),)

    def _cast(self, value: Any) -> Any:
        return value.to(self.dtype) if isinstance(value, Tensor) and value.is_floating_point() else value


class SystemFunction:
    """A system as one function of prompt and noise, with nothing but the sampler's loop around its three networks.

    The states of the empty prompt are kept, so that guidance evaluates the text encoder once.

    Args:
        system: what draws.
        dtype: of its networks; what lies between them is float32.
        compiled: torch.compile each of the three, which takes a minute or two a U-Net.
    """

    def __init__(self, system: System, dtype: torch.dtype = torch.float32, compiled: bool = False) -> None:
        self.system = system
        run = partial(_Run, dtype=dtype, compiled=compiled)
        self.text, self.decoder = run(system.model.pipe.text_encoder), run(system.decoder)
        self.net = system.net.like(run(system.net.module), bf16=False)

    @torch.no_grad()
    def __call__(self, prompt: str, z_T: Tensor, n_steps: int | None = None) -> Tensor:
        """A picture uint8 (1, 3, R, R) of a prompt from noise (1, C, H, W); n_steps in place of the system's."""
        system = replace(self.system, n_steps=n_steps or self.system.n_steps)
        label = self.text(system.ids(prompt))[0]
        first = torch.zeros(1, dtype=torch.long, device=z_T.device)
        fresh = lambda i: normal(0, "fresh", i, first, z_T.shape[1:])  # noqa: E731
        z = system.draw(denoiser(self.net, label, system.w), z_T, fresh)
        return to_bytes(self.decoder(z / system.scale)[0])


class SystemGraph:
    """A system as one ONNX graph from tokens to pixels (`drawing_graphs`), in float32, by ONNX Runtime.

    Args:
        system: with the sampler "ddim"; one that is neither guided nor takes w draws in one step alone.

    Raises:
        ValueError: it draws in another way, or as `drawing_graphs.steps_graph`.
    """

    def __init__(self, system: System) -> None:
        self.system, self.takes_steps = system, system.net.takes_w or system.w != 0
        if system.sampler != "ddim" or not (self.takes_steps or system.n_steps == 1):
            kind = "guided" if self.takes_steps else "unguided"
            raise ValueError(
                f"no graph draws {kind} by {system.sampler} in {system.n_steps} steps: take the sampler ddim, and one "
                "step where there is no w"
            )
        graph = steps_graph if self.takes_steps else one_step_graph
        self.run = GraphRun(graph(system.model, system.net, batch=1))

    def __call__(self, prompt: str, z_T: Tensor, n_steps: int | None = None) -> Tensor:
        """As `SystemFunction`."""
        steps, w = torch.tensor(n_steps or self.system.n_steps), torch.tensor([float(self.system.w)])
        more = {"w": w, "steps": steps} if self.takes_steps else {}
        image = self.run(ids=self.system.ids(prompt), noise=z_T, **more)
        return (255 * image).round().to(z_T.device, torch.uint8)


def has_graph(system: System) -> bool:
    """Whether a system is drawn as one graph here, as `runtime.runs_graph` says."""
    return runs_graph(system.model.pipe.text_encoder, *system.net.modules, system.decoder)


@cache  # an export takes some ten seconds
def graph_of(system: System) -> SystemGraph:
    """The graph of a system, exported once in a process; raises as `SystemGraph`."""
    return SystemGraph(system)


def compiles() -> bool:
    """Whether torch.compile finds a C++ compiler here, without which it cannot be asked for."""
    return any(map(shutil.which, ("g++", "c++", "clang++")))


def first_noise(system: System, seed: int) -> Tensor:
    """z_T of the first picture of a seed, (1, C, H, W)."""
    index = torch.zeros(1, dtype=torch.long, device=system.net.device)
    return normal(seed, "z_T", 0, index, system.net.shape)


def _drawing_functions(
    system: System, pipe: StableDiffusionPipeline, prompt: str, z_T: Tensor, compiled: bool
) -> dict[str, Callable[[int], object]]:
    """How a picture is drawn in n steps, by name: by diffusers, by one function of ours, eager and compiled, and as one
    graph by ONNX Runtime where it computes on the same device.
    """
    options = {"guidance_scale": 1 + system.w, "latents": z_T, "output_type": "pt"}
    functions: dict[str, Callable[[int], object]] = {
        "pipeline": lambda n: pipe(prompt, num_inference_steps=n, **options)
    }
    fast = fast_dtype()
    for name, by_compiler in (("function", False), ("compiled", True))[: 1 + compiled]:
        function = SystemFunction(system, fast, by_compiler)
        functions[name] = lambda n, function=function: function(prompt, z_T, n)
    if has_graph(system):
        functions["onnx runtime"] = partial(graph_of(system), prompt, z_T)
    return functions


def _timed(works: dict[Any, Callable[[], object]], rounds: int) -> dict[Any, float]:
    seconds = time_interleaved(works, rounds)
    torch.compiler.reset()  # what was compiled for one network counts against the number that the next ones may have
    return seconds


def cost_rows(
    systems: dict[str, System],
    pipes: dict[str, StableDiffusionPipeline],
    prompt: str,
    rounds: int,
    seed: int,
    fewer: Iterable[int] = (),
    compiled: bool = False,
) -> list[Row]:
    """All rows of Table 1: modules in float32, their sums, and whole pipelines, in one run.

    Args:
        systems: the one before and the one after, by method.
        pipes: the same as plain pipelines of diffusers.
        rounds: of `time_interleaved`.
        fewer: other step counts of the first system's whole pipeline.
        compiled: compile both systems too.
    """
    before, after = systems
    works: dict[tuple[str, str, int], Callable[[], object]] = {}
    parts = {method: system.modules(prompt) for method, system in systems.items()}
    for method, system in systems.items():
        for kind, (module, given) in parts[method].items():
            works[method, kind, system.n_steps] = partial(module, *given)
        counts = sorted({system.n_steps, *(fewer if method == before else ())})
        for kind, draw in _drawing_functions(
            system, pipes[method], prompt, first_noise(system, seed), compiled
        ).items():
            works |= {(method, kind, n): partial(draw, n) for n in counts}
    seconds = _timed(works, rounds)
    rows: list[Row] = []
    for method, system in systems.items():
        for kind, (module, given) in parts[method].items():
            counted = sum(p.numel() for p in module.parameters()), operations(module, *given)
            total = seconds[method, kind, system.n_steps]
            rows += module_rows(method, kind, *counted, total, system.evaluations[kind], seed)
    rows += summed(rows, before, after)
    whole = {key: value for key, value in seconds.items() if key[1] not in MODULES}
    best = min(value for (method, *_), value in whole.items() if method == after)
    for (method, kind, n), value in whole.items():
        system, columns = systems[method], {"kind": kind, "steps": n, "seed": seed}
        count = nfe(n, system.w, not system.net.takes_w)
        rows += tidy({"seconds": value, "images_per_second": 1 / value}, method=method, nfe=count, **columns)
        if method == before:
            ratios = {"speedup": value / whole[after, kind, systems[after].n_steps]}
            ratios |= {"speedup_best": value / best} if kind == "pipeline" else {}
            rows += tidy(ratios, method=after, **columns)
    return rows


def pictures(benchmark: PromptBenchmark, system: System) -> Tensor:
    """Pictures uint8 (n, 3, R, R) of all prompts by a system, from the noise that everybody starts from."""
    return benchmark.pictures(system.net, system.n_steps, system.w, system.sampler)


def quality_rows(benchmark: PromptBenchmark, method: str, system: System) -> list[Row]:
    """What judges and metrics say of a system's pictures; compared with the teacher at its own strength."""
    values = benchmark.compared(pictures(benchmark, system), benchmark.truth())
    values |= {"params": sum(p.numel() for p in system.net.module.parameters())}
    columns = {"steps": system.n_steps, "w": system.w, "nfe": system.evaluations["U-Net"]}
    return tidy(values, method=method, **columns, seed=benchmark.seed, n=benchmark.n)


def seconds_rows(
    rivals: Sequence[tuple[str, System]], prompt: str, rounds: int, seed: int, compiled: bool = False
) -> list[Row]:
    """Seconds of a picture by our function of each rival, all timed in turn, and pictures a second.

    Their networks run in `costs.fast_dtype`; rounds and compiled are those of `cost_rows`.
    """
    run = partial(SystemFunction, dtype=fast_dtype(), compiled=compiled)
    works = {k: partial(run(rival), prompt, first_noise(rival, seed)) for k, (_, rival) in enumerate(rivals)}
    rows = []
    for k, seconds in _timed(works, rounds).items():
        method, system = rivals[k]
        columns = {"steps": system.n_steps, "w": system.w, "nfe": system.evaluations["U-Net"], "seed": seed}
        rows += tidy({"seconds": seconds, "images_per_second": 1 / seconds}, method=method, **columns)
    return rows

"""The students of `00_start_here` for the page of live models: points in the plane, trained in seconds.

Stage one on the exact guided pair of a mixture of five Gaussians, then five halvings: `guided.stage_one` and
`guided.halving`, as the notebook calls them. Each student is a graph of one step of its sampler, `step_of`.
"""

import torch
from onnx import ModelProto
from torch import Tensor

from distill_lib.diffusion.guidance import combine
from distill_lib.diffusion.mixture import Mixture, MixtureData, ToyNetwork, ring
from distill_lib.diffusion.samplers import Denoise
from distill_lib.diffusion.schedules import step_counts
from distill_lib.engine.loop import TrainSettings, finish
from distill_lib.engine.store import Run
from distill_lib.guided.halving import Halving, halve_steps
from distill_lib.guided.stage_one import distill_guidance
from distill_lib.networks.adapter import denoise_student
from distill_lib.networks.drawing_graphs import export_step, step_of

TEACHER = Mixture(ring(5), std=0.15)
"""The data of the notebook, and the exact teacher of it."""
FIRST_STEPS = 32
"""Of the sampler that the first halving starts from."""


def students(settings: TrainSettings) -> dict[int, ToyNetwork]:
    """The students of 16, 8, 4, 2 and 1 steps, by their steps; loaded where the notebook or the page has made them."""
    data = MixtureData(TEACHER.centres, TEACHER.std)
    config = {"settings": settings, "centres": TEACHER.centres.tolist(), "std": TEACHER.std, "count": len(data)}
    torch.manual_seed(settings.seed)
    last, chain = ToyNetwork(5), {}
    run = Run("toy-stage-one", config, distill_guidance, ToyNetwork)
    finish(last, distill_guidance(last, TEACHER, data, settings, run), run, "points: stage one")
    for n in step_counts(FIRST_STEPS):
        student, config = ToyNetwork(5), config | {"parent": run.key}
        student.module.load_state_dict(last.module.state_dict())
        run = Run(f"toy-{n}", config, halve_steps, ToyNetwork)
        finish(student, halve_steps(student, last, data, Halving(n, settings), run), run, f"points: {n} steps")
        chain[n] = last = student
    return chain


def exact_pair(label: Tensor, w: Tensor) -> Denoise:
    """The guided pair of the exact teacher as two calls: a graph of any batch cannot join them to one."""
    null = torch.full_like(label, TEACHER.null)
    return lambda z_t, t: combine(TEACHER(z_t, t, label), TEACHER(z_t, t, null), w)


def student_graph(student: ToyNetwork) -> ModelProto:
    """One step of a student: z (B, 2), t, s, label (B,), w (B,) -> z_s."""
    step = step_of(lambda label, w: denoise_student(student, label, w), student.schedule)
    return export_step(step, (student.module,), *_EXAMPLE, student.schedule.T)


def teacher_graph() -> ModelProto:
    """One step of the guided pair of the exact teacher, as `student_graph`."""
    return export_step(step_of(exact_pair, TEACHER.schedule), (), *_EXAMPLE, TEACHER.schedule.T)


_EXAMPLE = torch.zeros(2, 2), torch.zeros(2, dtype=torch.long)  # two samples: a graph of any batch

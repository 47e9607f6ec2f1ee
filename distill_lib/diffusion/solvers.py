"""All samplers by name: those of `samplers`, and faster solvers of other people, as diffusers has them.

    ddim, stochastic, ancestral, consistency               `samplers`
    dpm      DPM-Solver, order 2       Lu et al. 2022 (arXiv 2206.00927)
    dpm++    DPM-Solver++ (2M)         Lu et al. 2022 (arXiv 2211.01095)
    unipc    UniPC, order 2            Zhao et al. 2023 (arXiv 2302.04867)

Each evaluates the network once a step on the same evenly spaced times. Whoever draws or times by name comes here; the
label of a row ("ours-S", "turbo") is no name of a sampler.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from diffusers import DPMSolverMultistepScheduler, UniPCMultistepScheduler
from torch import Tensor

from distill_lib.diffusion.samplers import (
    Denoise,
    Fresh,
    sample,
    sample_ancestral,
    sample_consistency,
    sample_stochastic,
)
from distill_lib.diffusion.schedules import OURS, Schedule

# without any signal at T log SNR is -inf there, of which these schedulers make NaN unless they are told
_ZERO_SNR = {"rescale_betas_zero_snr": True}
SOLVERS: dict[str, tuple[type, dict[str, Any]]] = {
    "dpm": (DPMSolverMultistepScheduler, {"algorithm_type": "dpmsolver", "final_sigmas_type": "sigma_min"}),
    "dpm++": (DPMSolverMultistepScheduler, {"algorithm_type": "dpmsolver++"}),
    "unipc": (UniPCMultistepScheduler, {}),
}
"""Scheduler of diffusers and what sets it apart, by the name of the solver."""


def solver(name: str, schedule: Schedule = OURS) -> DPMSolverMultistepScheduler | UniPCMultistepScheduler:
    """A solver of `SOLVERS` as diffusers' scheduler, on a grid of ours and for networks that answer with v.

    Raises:
        ValueError: there is no such solver.
    """
    if name not in SOLVERS:
        raise ValueError(f"solver={name!r} is unknown; choose one of {', '.join(SOLVERS)}")
    kind, own = SOLVERS[name]
    zero = _ZERO_SNR if schedule.alpha[-1] == 0 else {}
    return kind.from_config(schedule.to_scheduler().config, **own, **zero)


@torch.no_grad()
def _sample_solved(
    name: str, denoise: Denoise, z_T: Tensor, n_steps: int, fresh: Fresh, schedule: Schedule = OURS
) -> Tensor:
    scheduler, z = solver(name, schedule), z_T
    scheduler.set_timesteps(n_steps)
    for k in scheduler.timesteps:
        t = torch.full((len(z),), int(k) + 1, device=z.device)
        z = scheduler.step(denoise(z, t), k, z).prev_sample
    return z


def _sample_ddim(denoise: Denoise, z_T: Tensor, n_steps: int, fresh: Fresh, schedule: Schedule = OURS) -> Tensor:
    return sample(denoise, z_T, n_steps, schedule)


Sampler = Callable[[Denoise, Tensor, int, Fresh, Schedule], Tensor]
"""(denoise, z_T (B, *D), n_steps, fresh, schedule) -> data x (B, *D)."""
SAMPLERS: dict[str, Sampler] = {
    "ddim": _sample_ddim,
    "stochastic": sample_stochastic,
    "ancestral": sample_ancestral,
    "consistency": sample_consistency,
} | {name: partial(_sample_solved, name) for name in SOLVERS}
"""The one table of samplers. "ddim" and the solvers are deterministic and never ask for fresh noise."""


def check_sampler(sampler: str) -> None:
    """Refuse a sampler that there is not.

    Raises:
        ValueError: names it and those that there are.
    """
    if sampler not in SAMPLERS:
        raise ValueError(f"sampler={sampler!r} is unknown; choose one of {', '.join(SAMPLERS)}")


def sample_by(
    sampler: str, denoise: Denoise, z_T: Tensor, n_steps: int, fresh: Fresh, schedule: Schedule = OURS
) -> Tensor:
    """Data x (B, *D) from pure noise z_T by n_steps of a sampler of `SAMPLERS`; raises as `check_sampler`.

    Args:
        sampler: its name.
        denoise, z_T, n_steps: as in `samplers.sample`.
        fresh: fresh(i) -> unit noise (B, *D) of the i-th draw; asked by those alone that draw on the way.
        schedule: of the times.
    """
    check_sampler(sampler)
    return SAMPLERS[sampler](denoise, z_T, n_steps, fresh, schedule)

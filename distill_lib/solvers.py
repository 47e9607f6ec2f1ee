"""Faster solvers of other people, as diffusers has them, for any denoiser of this library.

    dpm      DPM-Solver, order 2       Lu et al. 2022 (arXiv 2206.00927)
    dpm++    DPM-Solver++ (2M)         Lu et al. 2022 (arXiv 2211.01095)
    unipc    UniPC, order 2            Zhao et al. 2023 (arXiv 2302.04867)

Each asks the network once a step, as DDIM does, on the same evenly spaced times.
"""

from typing import Any

import torch
from diffusers import DPMSolverMultistepScheduler, UniPCMultistepScheduler
from torch import Tensor

from distill_lib.samplers import Denoise
from distill_lib.schedules import OURS, Schedule

__all__ = ["SOLVERS", "sample_by", "solver"]

# without any signal at T log SNR is -inf there, of which these schedulers make NaN unless they are told
_ZERO_SNR = {"rescale_betas_zero_snr": True}
SOLVERS: dict[str, tuple[type, dict[str, Any]]] = {
    "dpm": (DPMSolverMultistepScheduler, {"algorithm_type": "dpmsolver", "final_sigmas_type": "sigma_min"}),
    "dpm++": (DPMSolverMultistepScheduler, {"algorithm_type": "dpmsolver++"}),
    "unipc": (UniPCMultistepScheduler, {}),
}
"""Scheduler of diffusers and what sets it apart, by the name of the method."""


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
def sample_by(name: str, denoise: Denoise, z_T: Tensor, n_steps: int, schedule: Schedule = OURS) -> Tensor:
    """Data x (B, *D) from pure noise z_T by n_steps of a solver; raises as `solver`."""
    scheduler, z = solver(name, schedule), z_T
    scheduler.set_timesteps(n_steps)
    for k in scheduler.timesteps:
        t = torch.full((len(z),), int(k) + 1, device=z.device)
        z = scheduler.step(denoise(z, t), k, z).prev_sample
    return z

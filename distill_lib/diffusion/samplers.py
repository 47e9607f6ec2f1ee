"""Samplers: a step from one grid index to another, one fold of steps over the grid, and the same walk upward.

A step evaluates the network once: z_s = step(denoise, z_t, t, s, schedule). `denoise(z_t, t)` returns v_hat, with the
condition and the guidance strength already bound, so a guided pair and a distilled student look the same from here.
An n-step sampler makes n calls; its `nfe` is n for one network and 2 n for a guided pair with w > 0.

Upward, from a picture to the noise that it would be sampled from, a step is

    z_s = alpha_s x_hat(z_t) + sigma_s eps_hat(z_t),     s > t                                                  (1)

It is `samplers.ddim_step` with s > t (Song et al. 2021, arXiv 2010.02502, section 4.3; Meng et al. 2023, arXiv
2210.03142, on style transfer). It starts at t = 0, which no network knows: there the network is evaluated at t = 1,
where the noise is 0.0015 of a unit.
"""

from collections.abc import Callable, Iterable
from itertools import pairwise

import torch
from torch import Tensor

from distill_lib.diffusion.schedules import OURS, Schedule, add_noise, eps_from_v, step_grid, x_from_v

Denoise = Callable[[Tensor, Tensor], Tensor]
"""denoise(z_t (B, *D), t (B,)) -> v_hat (B, *D)."""
Fresh = Callable[[int], Tensor]
"""fresh(i) -> unit noise (B, *D) for the i-th draw of a stochastic sampler."""


def ddim_step(denoise: Denoise, z_t: Tensor, t: Tensor, s: Tensor, schedule: Schedule = OURS) -> Tensor:
    """One deterministic step  z_s = alpha_s x_hat + sigma_s eps_hat,  with eps_hat = (z_t - alpha_t x_hat) / sigma_t.

    Song et al. 2021 (arXiv 2010.02502), eq. 12 with eta = 0; Meng et al. 2023, eq. for the deterministic sampler.
    Written through v, which is finite where sigma_t or alpha_t is 0. Costs one call of `denoise`.

    Args:
        denoise: network with condition and w bound, returns v_hat.
        z_t: noisy data, (B, *D).
        t, s: present and next grid index, (B,); s < t denoises, s > t encodes.

    Returns:
        z_s, (B, *D).
    """
    v_hat = denoise(z_t, t)
    alpha_s, sigma_s = schedule(s, z_t)
    return alpha_s * x_from_v(z_t, v_hat, t, schedule) + sigma_s * eps_from_v(z_t, v_hat, t, schedule)


def _noise_between(s: Tensor, t: Tensor, schedule: Schedule, like: Tensor) -> Tensor:
    """sigma_{t|s} of the diffusion from s up to t: sigma_{t|s}^2 = sigma_t^2 - (alpha_t/alpha_s)^2 sigma_s^2."""
    (alpha_s, sigma_s), (alpha_t, sigma_t) = schedule(s, like), schedule(t, like)
    return (sigma_t**2 - (alpha_t / alpha_s * sigma_s) ** 2).clamp(min=0).sqrt()


def noise_again(z_s: Tensor, eps: Tensor, s: Tensor, t: Tensor, schedule: Schedule = OURS) -> Tensor:
    """One step of the diffusion from s up to t,  z_t = (alpha_t/alpha_s) z_s + sigma_{t|s} eps.

    sigma_{t|s}^2 as in `_noise_between` is (1 - SNR_t/SNR_s) sigma_t^2; Meng et al. 2023, section 3.3. No network is
    asked.

    Args:
        z_s: noisy data, (B, *D).
        eps: unit noise, (B, *D).
        s, t: present and next grid index, (B,), s < t.
    """
    ratio = schedule(t, z_s)[0] / schedule(s, z_s)[0]
    return ratio * z_s + _noise_between(s, t, schedule, z_s) * eps


def ancestral_step(
    denoise: Denoise, z_t: Tensor, eps: Tensor, t: Tensor, s: Tensor, schedule: Schedule = OURS
) -> Tensor:
    """One draw from q(z_s | z_t, x_hat): DDPM's ancestral sampler, which is DDIM with eta = 1.

    z_s = alpha_s x_hat + sqrt(sigma_s^2 - c^2) eps_hat + c eps,    c = (sigma_s/sigma_t) sigma_{t|s}

    Ho et al. 2020 (arXiv 2006.11239), eq. 7 with the smaller variance; Song et al. 2021, eq. 16. Arguments as in
    `ddim_step`, with unit noise eps (B, *D).
    """
    v_hat = denoise(z_t, t)
    _, sigma_t = schedule(t, z_t)
    alpha_s, sigma_s = schedule(s, z_t)
    added = _noise_between(s, t, schedule, z_t) * sigma_s / sigma_t
    kept = (sigma_s**2 - added**2).clamp(min=0).sqrt()
    return alpha_s * x_from_v(z_t, v_hat, t, schedule) + kept * eps_from_v(z_t, v_hat, t, schedule) + added * eps


def trajectory(denoise: Denoise, z_t: Tensor, grid: Iterable[int], schedule: Schedule = OURS) -> list[Tensor]:
    """All states of the deterministic sampler over the grid indices t_0 > t_1 > ...; the first is z_t itself."""
    states = [z_t]
    for t, s in pairwise(grid):
        t_batch = torch.full((len(z_t),), t, device=z_t.device)
        states.append(ddim_step(denoise, states[-1], t_batch, torch.full_like(t_batch, s), schedule))
    return states


@torch.no_grad()
def sample(denoise: Denoise, z_T: Tensor, n_steps: int, schedule: Schedule = OURS) -> Tensor:
    """The deterministic n-step sampler D: fold `ddim_step` from pure noise z_T (B, *D) to x.

    Raises:
        ValueError: n_steps does not divide the grid.
    """
    return trajectory(denoise, z_T, step_grid(n_steps, schedule.T), schedule)[-1]


def stochastic_path(n_steps: int, T: int = 1024) -> list[int]:
    """Grid indices that the stochastic sampler S visits: two steps down, one step of noise up, the last one plain.

    Meng et al. 2023, section 3.3 and Fig. 5: from t the sampler denoises to t - 2/N, then re-noises to t - 1/N, until
    t = 1/N, from which it denoises to 0. It makes N denoising moves, as the deterministic one.
    """
    grid = step_grid(n_steps, T)[::-1]
    path = [grid[-1]]
    for i in range(n_steps, 1, -1):
        path += [grid[i - 2], grid[i - 1]]
    return [*path, 0]


@torch.no_grad()
def sample_stochastic(denoise: Denoise, z_T: Tensor, n_steps: int, fresh: Fresh, schedule: Schedule = OURS) -> Tensor:
    """The stochastic n-step sampler S: walks `stochastic_path`, by `ddim_step` down and by `noise_again` up.

    Made for a student whose step is 2/N long (`guided.halving.halve_stochastic`). n calls of `denoise`.

    Args:
        denoise: network with condition and w bound, returns v_hat.
        z_T: pure noise, (B, *D).
        n_steps: N, a divisor of the grid.
        fresh: noise of the i-th step up, i = 0 .. N - 2.
    """
    z, ups = z_T, 0
    for t, s in pairwise(stochastic_path(n_steps, schedule.T)):
        t_batch, s_batch = (torch.full((len(z),), k, device=z.device) for k in (t, s))
        if s < t:
            z = ddim_step(denoise, z, t_batch, s_batch, schedule)
        else:
            z, ups = noise_again(z, fresh(ups), t_batch, s_batch, schedule), ups + 1
    return z


@torch.no_grad()
def sample_ancestral(denoise: Denoise, z_T: Tensor, n_steps: int, fresh: Fresh, schedule: Schedule = OURS) -> Tensor:
    """The ancestral n-step sampler: fold `ancestral_step`; fresh(i) is the noise of step i = 0 .. N - 1."""
    z = z_T
    for i, (t, s) in enumerate(pairwise(step_grid(n_steps, schedule.T))):
        t_batch, s_batch = (torch.full((len(z),), k, device=z.device) for k in (t, s))
        z = ancestral_step(denoise, z, fresh(i), t_batch, s_batch, schedule)
    return z


@torch.no_grad()
def sample_consistency(denoise: Denoise, z_T: Tensor, n_steps: int, fresh: Fresh, schedule: Schedule = OURS) -> Tensor:
    """The sampler of consistency models: all the way to x, and back to the next time with resampled noise.

    z_s = alpha_s x_hat(z_t) + sigma_s eps_i; Song et al. 2023 (arXiv 2303.01469), Algorithm 1. fresh(i) is the noise
    of the i-th way back, i = 0 .. N - 2. n calls of `denoise`; with one step it is `sample`.
    """
    z = z_T
    for i, (t, s) in enumerate(pairwise(step_grid(n_steps, schedule.T))):
        t_batch, s_batch = (torch.full((len(z),), k, device=z.device) for k in (t, s))
        x_hat = x_from_v(z, denoise(z, t_batch), t_batch, schedule)
        z = add_noise(x_hat, fresh(i), s_batch, schedule) if s else x_hat
    return z


def nfe(n_steps: int, w: float, guided_pair: bool) -> int:
    """Network evaluations a sample: a guided pair costs two a step, except at w = 0, where it needs only one net."""
    return n_steps * (2 if guided_pair and w != 0 else 1)


def above_zero(denoise: Denoise) -> Denoise:
    """The same denoiser, evaluated at t = 1 where t is 0."""
    return lambda z_t, t: denoise(z_t, t.clamp(min=1))


@torch.no_grad()
def encode(denoise: Denoise, x: Tensor, n_steps: int, schedule: Schedule = OURS) -> Tensor:
    """Fold (1) from a picture x (B, *D) to z_T in n equal steps; n calls of `denoise`.

    Raises:
        ValueError: n_steps does not divide the grid.
    """
    return trajectory(above_zero(denoise), x, step_grid(n_steps, schedule.T)[::-1], schedule)[-1]

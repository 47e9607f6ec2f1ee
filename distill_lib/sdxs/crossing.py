"""Why regression to one step blurs: couples of noise and data in the plane, and whether their lines cross.

Between the noise z and the data x of a couple runs a line, and over all couples a flow:

    x_s = (1 - s) z + s x                                                                                       (1)
    u(x_s, s) = E[x - z | x_s],    fitted by  |u_hat(x_s, s) - (x - z)|^2                                        (2)
    x_best(z) = E[x | z]           what mean squares ask of one step: eq. 9, whose weights are p(x | z)          (3)

(1) and (2): Liu et al. 2022, "Flow Straight and Fast" (arXiv 2209.03003); (3): Song et al. 2024 (arXiv 2403.16627).
Where z and x are drawn independently, (3) is the mean of all data, and one Euler step of (2) from noise is (3). Where x
is the end T(z) of a path that starts in z, (3) is T(z) itself. Reflow is (2) fitted anew, to the ends of a flow's own
paths.

The teacher walks on the same paths at another scale. With s_t = alpha_t / (alpha_t + sigma_t),

    z_t / (alpha_t + sigma_t) = x_s at s = s_t,    u(x_s, s) = x_hat - eps_hat                                   (4)

and a step of the deterministic sampler is Euler's step of (2). So the exact flow of couples drawn independently leads
each noise where the teacher leads it: the teacher's own couples are already those of one reflow.

Two lines meet where (1 - s) dz + s dx = 0, which two points of the plane almost never reach exactly: `crossing_share`
counts those that come near. For a map T there is an exact word: near z, lines meet if and only if the Jacobian of T has
a negative eigenvalue there, (1 - s) + s lambda = 0. Where it has none at any z, no two lines meet, near or far (by
Hadamard's theorem), and (1) can be traced back from every point.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

from distill_lib.diffusion.errors import Predict, mean_square
from distill_lib.diffusion.mixture import Mixture, MixtureData, ToyNetwork, ring
from distill_lib.diffusion.noise import Draws, normal
from distill_lib.diffusion.samplers import trajectory
from distill_lib.diffusion.schedules import OURS, step_grid
from distill_lib.engine.loop import Loop, Progress, TrainSettings, finish
from distill_lib.engine.store import Run
from distill_lib.sdxs.one_step import one_step, train_on_pairs

DATA = Mixture(ring(7)[:5], std=0.1)
"""Five of seven places on a circle: the mean of all data is no point of symmetry, and no data lie there."""
NEAR = 0.1
"""Lines cross that come this much nearer to each other than at either end."""
_COUNT, _TEST, _LINES, _STEPS = 8192, 2048, 256, 64
Row = dict[str, Any]


@dataclass(frozen=True)
class Couples:
    """Noise z and data x (N, 2), with the interface of `teachers.latents.Pairs`."""

    z: Tensor
    x: Tensor

    def __len__(self) -> int:
        return len(self.z)

    def batch(self, index: Tensor, device: torch.device | str = "cpu") -> tuple[Tensor, Tensor, Tensor]:
        """z, x (B, 2) and labels (B,), all of them null: no network is conditioned on a class."""
        return self.z[index].to(device), self.x[index].to(device), torch.zeros(len(index), dtype=torch.long).to(device)

    def fresh(self, draws: Draws, device: torch.device | str = "cpu") -> tuple[Tensor, Tensor]:
        """Noise (B, 2) of no couple, and the null label."""
        z = draws.normal("z_T", self.z.shape[1:]).to(device)
        return z, torch.zeros(len(z), dtype=torch.long, device=device)

    def lines(self) -> Tensor:
        """(1) at its ends, (2, N, 2)."""
        return torch.stack([self.z, self.x])


@torch.no_grad()
def teacher_paths(z: Tensor, mixture: Mixture = DATA, n_steps: int = _STEPS) -> Tensor:
    """States (n_steps + 1, N, 2) of the exact teacher, without a class, from noise z (N, 2) to data."""
    label = torch.full((len(z),), mixture.null, device=z.device)
    return torch.stack(trajectory(lambda z_t, t: mixture(z_t, t, label), z, step_grid(n_steps)))


def straight_lines(paths: Tensor) -> Tensor:
    """(4): states z_t (S, N, 2) at the grid of S - 1 steps, at the scale of lines, x_s (S, N, 2)."""
    alpha_t, sigma_t = OURS(torch.tensor(step_grid(len(paths) - 1), device=paths.device), paths)
    return paths / (alpha_t + sigma_t)


@torch.no_grad()
def flow_paths(net: Predict, z: Tensor, n_steps: int = _STEPS) -> Tensor:
    """States (n_steps + 1, N, 2) of a flow by Euler's steps, x_{s + 1/n} = x_s + u(x_s, s) / n, from noise z (N, 2).

    The network is evaluated for s at the grid index t = (1 - s) T, as everywhere the noisier the higher.
    """
    label, states = torch.zeros(len(z), dtype=torch.long, device=z.device), [z]
    for t in step_grid(n_steps)[:-1]:
        states.append(states[-1] + net(states[-1], torch.full_like(label, t), label) / n_steps)
    return torch.stack(states)


def crossings(paths: Tensor, near: float = NEAR) -> tuple[Tensor, Tensor]:
    """Which pairs of paths cross at the same time,  min_s |d_s| < near min(|d_0|, |d_1|),  and where.

    d_s is the difference of two paths, straight between the given states.

    Args:
        paths: states at the same times, (S, N, 2); two suffice for lines.
        near: how near counts as crossing.

    Returns:
        Bool (N (N - 1) / 2,), and the places half-way between both paths where they are nearest, (N (N - 1) / 2, 2).
    """
    i, j = torch.triu_indices(paths.shape[1], paths.shape[1], 1, device=paths.device)
    ends = torch.minimum(*((state[i] - state[j]).norm(dim=1) for state in (paths[0], paths[-1])))
    least, place = torch.full_like(ends, torch.inf), torch.zeros_like(paths[0, i])
    for start, end in pairwise(paths):
        d, move = start[i] - start[j], (end - start)[i] - (end - start)[j]
        part = (-(d * move).sum(1) / move.square().sum(1).clamp(min=1e-30)).clamp(0, 1)[:, None]
        now = (d + part * move).norm(dim=1)
        half = (start[i] + start[j] + part * ((end - start)[i] + (end - start)[j])) / 2
        place = torch.where((now < least)[:, None], half, place)
        least = least.minimum(now)
    return least < near * ends, place


def crossing_share(paths: Tensor, near: float = NEAR) -> float:
    """Share of all pairs of paths (S, N, 2) that `crossings` finds.

    Of lines drawn independently, where all directions of dz and dx are equally likely and rho is the shorter of their
    lengths
    by the longer, it is  arccos(sqrt((1 - near^2) (1 - near^2 rho^2)) - near^2 rho) / pi.
    """
    return crossings(paths, near)[0].double().mean().item()


def jacobian(ends: Callable[[Tensor], Tensor], z: Tensor, h: float = 1e-6) -> Tensor:
    """dT_i / dz_j of a map T = ends by central differences in float64, (N, 2, 2), at z (N, 2)."""
    z = z.double()
    unit = torch.eye(2, dtype=z.dtype, device=z.device)
    return torch.stack([(ends(z + h * e) - ends(z - h * e)) / (2 * h) for e in unit], 2)


def lines_cross_nearby(jacobian: Tensor) -> Tensor:
    """Whether lines meet their neighbours: a negative eigenvalue, bool (N,) of Jacobians (N, 2, 2)."""
    values = torch.linalg.eigvals(jacobian)
    return ((values.imag == 0) & (values.real < 0)).any(1)


def off_modes(x: Tensor, mixture: Mixture = DATA, far: float = 3.0) -> Tensor:
    """Whether x (N, 2) lies farther than `far` standard deviations from every centre; exp(-far^2 / 2) of a Gaussian."""
    return torch.cdist(x, mixture.centres.to(x)).min(1).values > far * mixture.std


def flow_loss(net: Predict, z: Tensor, x: Tensor, t: Tensor, label: Tensor) -> Tensor:
    """(2), one value per sample (B,), for noise z and data x (B, 2) at s = 1 - t/T, grid indices t (B,)."""
    s = (1 - t / OURS.T)[:, None].to(x)
    return mean_square(net((1 - s) * z + s * x, t, label) - (x - z))


def train_flow(net: ToyNetwork, couples: Couples, settings: TrainSettings, run: Run) -> Iterator[Progress]:
    """Train net.module as the flow of couples, Liu et al. 2022, Algorithm 1; on a flow's own couples it is reflow."""
    loop = Loop(net, settings, run)
    for _, draws in loop:
        z, x, label = couples.batch(draws.integer("pair", len(couples)).cpu(), loop.device)
        t = 1 + draws.integer("t", OURS.T)
        yield loop.update(flow_loss(net, z, x, t, label))


class Crossing:
    """Three kinds of couples of `DATA`, and what regression and a flow make of each.

    "independent": noise and data drawn independently. "own": noise and the end of the exact teacher's path from it.
    "reflow": noise and the end of the path of a flow that was fitted to the independent ones.

    Args:
        settings: of each of the five trainings.
        seed: of noise, data and trainings.
    """

    def __init__(self, settings: TrainSettings, seed: int) -> None:
        self.settings, self.seed = settings.with_seed(seed), seed
        self.z = normal(seed, "crossing test", 0, torch.arange(_TEST), (2,))
        z = normal(seed, "crossing", 0, torch.arange(_COUNT), (2,))
        self.couples = {"independent": Couples(z, MixtureData(DATA.centres, DATA.std, _COUNT, seed).x)}
        self.couples["own"] = Couples(z, teacher_paths(z)[-1])
        flow = self._trained("flow", "independent")
        self.couples["reflow"] = Couples(z, flow_paths(flow, z)[-1])
        self.flows = {"independent": flow, "reflow": self._trained("flow", "reflow")}
        self.students = {kind: self._trained("one-step", kind) for kind in self.couples}

    def _trained(self, task: str, kind: str) -> ToyNetwork:
        torch.manual_seed(self.seed)
        net, train = ToyNetwork(0), train_flow if task == "flow" else train_on_pairs
        run = Run(f"toy-{task}", {"settings": self.settings, "couples": self.couples[kind]}, train)
        finish(net, train(net, self.couples[kind], self.settings, run), run, f"{task}, {kind}")
        return net

    @cached_property
    def best(self) -> dict[str, Tensor]:
        """(3) at the test noise, (N, 2), for each kind: the mean of all data, or the end of the path."""
        mean = DATA.centres.mean(0).expand_as(self.z)
        own, flow = teacher_paths(self.z)[-1], flow_paths(self.flows["independent"], self.z)[-1]
        return {"independent": mean, "own": own, "reflow": flow}

    @cached_property
    @torch.no_grad()
    def answers(self) -> dict[str, Tensor]:
        """What the student of each kind makes of the test noise in one step, (N, 2)."""
        label = torch.zeros(len(self.z), dtype=torch.long)
        return {kind: one_step(net, self.z, label) for kind, net in self.students.items()}

    @cached_property
    def steepness(self) -> Tensor:
        """Frobenius norm of the Jacobian of the exact teacher's map at the test noise, (N,)."""
        return jacobian(lambda z: teacher_paths(z)[-1], self.z).flatten(1).norm(dim=1)

    @property
    def steep(self) -> Tensor:
        """The steepest quarter of the test noise, bool (N,)."""
        return self.steepness >= self.steepness.quantile(0.75)

    def rows(self) -> list[Row]:
        """All that is measured, as tidy rows; "teacher" is the exact one, "flow" the first flow, both with many steps.

        crossing_share: of lines; of "teacher", of its own paths at the scale of lines (4).
        off_modes, off_modes_steep: of the answers to the test noise, and to the steepest quarter of it.
        off_modes_decile, steepness: in each tenth of the test noise, from flat to steep.
        to_best: root of the mean square distance of the answers to (3).
        straightness: the same of one Euler step of a flow to the end of its own path; of "teacher", of the exact flow.
        """
        rows: list[Row] = []

        def add(kind: str, metric: str, value: float, n: int, **more: Any) -> None:
            rows.append({"method": kind, **more, "seed": self.seed, "metric": metric, "value": value, "n": n})

        tenths, steep, best = self.steepness.argsort().tensor_split(10), self.steep, self.best
        paths = {kind: couples.lines()[:, :_LINES] for kind, couples in self.couples.items()}
        paths["teacher"] = straight_lines(teacher_paths(self.couples["own"].z[:_LINES]))
        for kind, states in paths.items():
            add(kind, "crossing_share", crossing_share(states), _LINES * (_LINES - 1) // 2)
        for kind, x in (self.answers | {"flow": best["reflow"], "teacher": best["own"]}).items():
            off, nfe = off_modes(x).double(), 1 if kind in self.students else _STEPS
            add(kind, "off_modes", off.mean().item(), len(x), nfe=nfe)
            add(kind, "off_modes_steep", off[steep].mean().item(), int(steep.sum()), nfe=nfe)
            for i, members in enumerate(tenths, 1):
                add(kind, "off_modes_decile", off[members].mean().item(), len(members), nfe=nfe, decile=i)
        for i, members in enumerate(tenths, 1):
            add("teacher", "steepness", self.steepness[members].median().item(), len(members), decile=i)
        for kind, x in self.answers.items():
            add(kind, "to_best", _apart(x, best[kind]), len(x), nfe=1)
        for kind, net in self.flows.items():
            add(kind, "straightness", _apart(*(flow_paths(net, self.z, n)[-1] for n in (1, _STEPS))), len(self.z))
        add("teacher", "straightness", _apart(best["independent"], best["own"]), len(self.z))
        return rows


def _apart(x: Tensor, y: Tensor) -> float:
    return (x - y).square().sum(1).mean().sqrt().item()

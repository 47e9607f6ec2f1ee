"""Measuring networks of classes: the rows that come out of their pictures.

Everybody starts from the same noise and the same classes, so that methods are compared picture by picture. Pictures
are kept in `runs/cache` by the weights they came from: no notebook samples twice what another has sampled.
"""

import copy
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from distill_lib.diffusion import noise
from distill_lib.diffusion.guidance import combine, guided_pair
from distill_lib.diffusion.samplers import nfe
from distill_lib.diffusion.schedules import OURS, add_noise, v_from
from distill_lib.guided.stage_one import relative_error
from distill_lib.measure.draw import BATCH, classes, held_out, sample_pictures, samples_of
from distill_lib.measure.metrics import Reader, fid, laplacian_variance, margins, median_seconds, paired, quality
from distill_lib.measure.rows import Row, tidy
from distill_lib.networks.adapter import Network
from distill_lib.networks.resting import at_hand
from distill_lib.worlds.pictures import WORLDS, Pictures
from distill_lib.worlds.scenes import TEXTURES


@dataclass(eq=False)
class Measured:
    """What samples are compared with at one size: real pictures, their floor, and the many-step teacher.

    Args:
        reader: the extractor.
        teacher: the guided pair.
        world: a name of WORLDS or of REAL.
        n: pictures behind each metric.
        teacher_steps: steps of the teacher that stands for the truth.
        seed: of the noise of all samples.
    """

    reader: Reader
    teacher: Network
    world: str
    n: int
    teacher_steps: int
    seed: int = 0

    def __post_init__(self) -> None:
        self.real, other = held_out(self.world, self.n), held_out(self.world, self.n, part=1)
        self.floor = fid(self.reader, other, self.real)
        self.real_sharpness = laplacian_variance(self.real)
        self.joint = classes(self.n, self.teacher.null)
        if self.world in WORLDS and not WORLDS[self.world].texture:
            self.joint = self.joint * len(TEXTURES)  # it has one class where the extractor knows three

    def with_noise(self, seed: int) -> "Measured":
        """The same real pictures and floor, for samples from the noise of another seed."""
        again = copy.copy(self)
        again.seed = seed
        return again

    def truth(self, w: float, n: int | None = None) -> Tensor:
        """The teacher's own pictures at w, the first n of them."""
        return samples_of(self.teacher, self.teacher_steps, w, self.n, self.seed)[:n]

    def judged(self, image: Tensor, truth: Tensor) -> dict[str, float]:
        """All metrics of pictures uint8 (n, 3, R, R), beside the teacher's own."""
        margin = margins(self.reader.read(image)["logits"], self.joint)
        return quality(self.reader, image, self.real) | {
            "fid_teacher": fid(self.reader, image, truth),
            "paired": paired(image, truth).mean().item(),
            "accuracy": (margin > 0).float().mean().item(),
            "margin": margin.mean().item(),
            "sharpness": laplacian_variance(image),
        }

    def rows(self, method: str, net: Network, n_steps: int, w: float, sampler: str = "ddim") -> list[Row]:
        """All metrics of a network's pictures, one row each; `method` is their label."""
        values = self.judged(samples_of(net, n_steps, w, self.n, self.seed, sampler), self.truth(w))
        count = nfe(n_steps, w, not net.takes_w)
        return tidy(values, method=method, steps=n_steps, w=w, nfe=count, seed=self.seed, n=self.n)

    def floor_rows(self) -> list[Row]:
        """Real against other real pictures at the same n, and the sharpness of real ones."""
        values = {"floor_fid": self.floor, "sharpness": self.real_sharpness}
        return tidy(values, method="real", seed=self.seed, n=self.n)


def distance_rows(
    measured: Measured, net: Network, snapshots: dict[int, dict[str, Tensor]], n_steps: int, w: float, n: int
) -> list[Row]:
    """Distance to the teacher during a training, from the same noise: one row for each snapshot of its weights.

    Args:
        measured: what is compared with.
        net: the finished student; its own weights are not touched.
        snapshots: weights by the number of updates that made them.
        n_steps, w: how it is sampled, by the deterministic sampler.
        n: pictures behind a distance, at most those of `measured`. Few will do: the noise is shared.
    """
    truth, then = measured.truth(w, n), Network(copy.deepcopy(net.module), bf16=net.bf16_option)
    rows = []
    for update, weights in snapshots.items():
        then.module.load_state_dict(weights)
        value = fid(measured.reader, samples_of(then, n_steps, w, len(truth), measured.seed), truth)
        columns = {"steps": n_steps, "w": w, "n": len(truth), "update": update, "seed": measured.seed}
        rows += tidy({"fid_teacher": value}, method="ours-D", **columns)
    return rows


def _noised(
    teacher: Network, pictures: Pictures, stream: str, ts: Iterable[int], n: int
) -> Iterator[tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]]:
    """(t, z_t, label, v, v_cond, v_uncond) of n pictures at each time, with the same noise, so that times compare."""
    index = torch.arange(n, device=teacher.device)
    x, label = pictures.batch(index.cpu(), teacher.device)
    eps = noise.normal(0, stream, 0, index, x.shape[1:])
    for grid_t in ts:
        t = torch.full_like(label, grid_t)
        z_t = add_noise(x, eps, t)
        yield t, z_t, label, v_from(x, eps, t), *guided_pair(teacher, z_t, t, label, teacher.null)


@torch.no_grad()
def stage_one_errors(
    student: Network, teacher: Network, pictures: Pictures, ts: Iterable[int], ws: Iterable[float], n: int = 64
) -> list[Row]:
    """Relative error of stage one on a grid of t and w > 0, `guided.stage_one.relative_error`, one row a point.

    The same n pictures and noises serve every point, so that neighbouring points can be compared. Take networks in
    float32: at w = 0.5 and t = 1/16 the rounding of bfloat16 in the teacher's pair alone is a fifth of what w adds.
    """
    rows = []
    for t, z_t, label, _, v_cond, v_uncond in _noised(teacher, pictures, "stage-one-error", ts, n):
        for w in ws:
            strength = torch.full((n,), w, device=teacher.device)
            v_w = combine(v_cond, v_uncond, strength)
            error = relative_error(student(z_t, t, label, strength), v_cond, v_w).item()
            rows += tidy({"relative_error": error}, method="ours-D", t=t[0].item() / OURS.T, w=w, n=n)
    return rows


@torch.no_grad()
def energy_rows(
    student: Network, teacher: Network, pictures: Pictures, ts: Iterable[int], ws: Iterable[float], n: int = 256
) -> list[Row]:
    """What stage one misses of all that guidance adds, over all of ts together, one row a w > 0:

        E(w) = sum_t |v_student - v_w|^2 / sum_t |v_w - v_cond|^2

    0 for the pair itself and 1 for its conditional half. Times at which guidance adds little weigh little, where each
    cell of `stage_one_errors` is relative to its own. The pictures and noises are those of `guidance_rows`.
    """
    n, ws = min(n, len(pictures)), list(ws)
    missed, added = dict.fromkeys(ws, 0.0), dict.fromkeys(ws, 0.0)
    for t, z_t, label, _, v_cond, v_uncond in _noised(teacher, pictures, "guidance", ts, n):
        for w in ws:
            strength = torch.full((n,), w, device=teacher.device)
            v_w = combine(v_cond, v_uncond, strength)
            missed[w] += (student(z_t, t, label, strength) - v_w).square().sum().item()
            added[w] += (v_w - v_cond).square().sum().item()
    return [row for w in ws for row in tidy({"energy_error": missed[w] / added[w]}, method="ours-D", w=w, n=n)]


@torch.no_grad()
def guidance_rows(teacher: Network, pictures: Pictures, ts: Iterable[int], n: int = 256) -> list[Row]:
    """What guidance is made of, at each t: the loss in v with and without the class, and |v_cond - v_uncond|^2.

    If v_cond is right along the difference, the loss without the class exceeds that with it by the mean square of the
    difference, whether that comes from the class or from errors of v_uncond.
    """
    n = min(n, len(pictures))
    rows = []
    for t, _, _, v, v_cond, v_uncond in _noised(teacher, pictures, "guidance", ts, n):
        pairs = {"loss_cond": (v_cond, v), "loss_uncond": (v_uncond, v), "guidance_size": (v_cond, v_uncond)}
        values = {metric: (a - b).square().mean().item() for metric, (a, b) in pairs.items()}
        rows += tidy(values, method="teacher", t=t[0].item() / OURS.T, n=n)
    return rows


def timed_rows(
    method: str,
    net: Network,
    n_steps: int,
    w: float,
    repeats: int,
    columns: Row,
    label: Tensor | None = None,
    *,
    sampler: str = "ddim",
) -> list[Row]:
    """Measured seconds for one batch of pictures, and pictures a second; `method` is the label of the rows.

    The batch asks for `label`, or for BATCH classes.
    """
    label = classes(BATCH, net.null) if label is None else label
    with at_hand(net):
        seconds = median_seconds(lambda: sample_pictures(net, n_steps, w, label, 0, sampler), repeats)
    values = {"seconds": seconds, "images_per_second": len(label) / seconds}
    count = nfe(n_steps, w, not net.takes_w)
    return tidy(values, **columns, method=method, steps=n_steps, w=w, nfe=count, n=len(label))


def measure(
    measured: Measured, method: str, nets: dict[int, Network], ws: Iterable[float], sampler: str = "ddim"
) -> list[Row]:
    """Rows labelled `method` for the network of each step count, at each strength."""
    return [row for w in ws for n, net in nets.items() for row in measured.rows(method, net, n, w, sampler)]

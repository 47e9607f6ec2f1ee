"""Measuring networks of classes: the rows that come out of their pictures.

Everybody starts from the same noise and the same classes, so that methods are compared picture by picture. Pictures
are kept in `runs/cache` by the weights they came from: no notebook samples twice what another has sampled.
"""

import copy
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor

from distill_lib.diffusion import noise
from distill_lib.diffusion.guidance import combine, guided_pair
from distill_lib.diffusion.samplers import nfe
from distill_lib.diffusion.schedules import OURS, add_noise, v_from
from distill_lib.guided.stage_one import relative_error
from distill_lib.measure.draw import BATCH, classes, held_out, sample_pictures, samples_of
from distill_lib.measure.metrics import Reader, fid, laplacian_variance, median_seconds, paired, quality
from distill_lib.networks.adapter import Network
from distill_lib.worlds.pictures import WORLDS, Pictures
from distill_lib.worlds.scenes import TEXTURES

Row = dict[str, Any]


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

    def __init__(self, reader: Reader, teacher: Network, world: str, n: int, teacher_steps: int, seed: int = 0) -> None:
        self.reader, self.teacher, self.world = reader, teacher, world
        self.n, self.teacher_steps, self.seed = n, teacher_steps, seed
        self.real, other = held_out(world, n), held_out(world, n, part=1)
        self.floor = fid(reader, other, self.real)
        self.real_sharpness = laplacian_variance(self.real)
        label = classes(n, teacher.null)
        # a world without textures has one class where the extractor knows three
        self.joint = label * len(TEXTURES) if world in WORLDS and not WORLDS[world].texture else label
        self._truth: dict[tuple[float, int], Tensor] = {}

    def with_noise(self, seed: int) -> "Measured":
        """The same real pictures and floor, for samples from the noise of another seed."""
        again = copy.copy(self)
        again.seed, again._truth = seed, {}
        return again

    def truth(self, w: float, n: int | None = None) -> Tensor:
        """The teacher's own pictures at w, the first n of them; always the same tensor, so that it is read once."""
        if (w, self.n) not in self._truth:
            self._truth[w, self.n] = samples_of(self.teacher, self.teacher_steps, w, self.n, self.seed)
        n = self.n if n is None else min(n, self.n)
        return self._truth.setdefault((w, n), self._truth[w, self.n][:n])

    def rows(self, method: str, net: Network, n_steps: int, w: float, sampler: str = "ddim") -> list[Row]:
        """All metrics of a network's pictures, one row each; `method` is their label."""
        image = samples_of(net, n_steps, w, self.n, self.seed, sampler)
        truth = self.truth(w)
        log_p = self.reader.read(image)["logits"].log_softmax(1)
        named = log_p.gather(1, self.joint[:, None])[:, 0]
        others = log_p.scatter(1, self.joint[:, None], -torch.inf).amax(1)
        values = quality(self.reader, image, self.real) | {
            "fid_teacher": fid(self.reader, image, truth),
            "paired": paired(image, truth).mean().item(),
            "accuracy": (named > others).float().mean().item(),
            "margin": (named - others).mean().item(),
            "sharpness": laplacian_variance(image),
        }
        about = {"method": method, "steps": n_steps, "w": w, "nfe": nfe(n_steps, w, not net.takes_w), "seed": self.seed}
        return [about | {"metric": metric, "value": value, "n": self.n} for metric, value in values.items()]

    def floor_rows(self) -> list[Row]:
        """Real against other real pictures at the same n, and the sharpness of real ones."""
        about = {"method": "real", "seed": self.seed, "n": self.n}
        pairs = {"floor_fid": self.floor, "sharpness": self.real_sharpness}
        return [about | {"metric": metric, "value": value} for metric, value in pairs.items()]


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
    truth, then = measured.truth(w, n), Network(copy.deepcopy(net.module), bf16=net.told_bf16)
    about = {"method": "ours-D", "metric": "fid_teacher", "steps": n_steps, "w": w, "n": len(truth)}
    rows = []
    for update, weights in snapshots.items():
        then.module.load_state_dict(weights)
        image = samples_of(then, n_steps, w, len(truth), measured.seed)
        value = fid(measured.reader, image, truth)
        rows.append(about | {"update": update, "seed": measured.seed, "value": value})
    return rows


def _to_noise(pictures: Pictures, stream: str, n: int, device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
    """The first n pictures x, their classes and one noise each: the same at every time, so that times compare."""
    index = torch.arange(n, device=device)
    x, label = pictures.batch(index.cpu(), device)
    return x, label, noise.normal(0, stream, 0, index, x.shape[1:])


@torch.no_grad()
def stage_one_errors(
    student: Network, teacher: Network, pictures: Pictures, ts: Iterable[int], ws: Iterable[float], n: int = 64
) -> list[Row]:
    """Relative error of stage one on a grid of t and w > 0, `guided.stage_one.relative_error`, one row a point.

    The same n pictures and noises serve every point, so that neighbouring points can be compared. Take networks in
    float32: at w = 0.5 and t = 1/16 the rounding of bfloat16 in the teacher's pair alone is a fifth of what w adds.
    """
    x, label, eps = _to_noise(pictures, "stage-one-error", n, teacher.device)
    rows = []
    for grid_t in ts:
        t = torch.full_like(label, grid_t)
        z_t = add_noise(x, eps, t)
        v_cond, v_uncond = guided_pair(teacher, z_t, t, label, teacher.null)
        for w in ws:
            strength = torch.full((n,), w, device=teacher.device)
            v_w = combine(v_cond, v_uncond, strength)
            error = relative_error(student(z_t, t, label, strength), v_cond, v_w).item()
            rows.append(
                {"method": "ours-D", "metric": "relative_error", "t": grid_t / OURS.T, "w": w, "value": error, "n": n}
            )
    return rows


@torch.no_grad()
def guidance_rows(teacher: Network, pictures: Pictures, ts: Iterable[int], n: int = 256) -> list[Row]:
    """What guidance is made of, at each t: the loss in v with and without the class, and |v_cond - v_uncond|^2.

    If v_cond is right along the difference, the loss without the class exceeds that with it by the mean square of the
    difference, whether that comes from the class or from errors of v_uncond.
    """
    n = min(n, len(pictures))
    x, label, eps = _to_noise(pictures, "guidance", n, teacher.device)
    rows = []
    for grid_t in ts:
        t = torch.full_like(label, grid_t)
        z_t, v = add_noise(x, eps, t), v_from(x, eps, t)
        v_cond, v_uncond = guided_pair(teacher, z_t, t, label, teacher.null)
        pairs = {"loss_cond": (v_cond, v), "loss_uncond": (v_uncond, v), "guidance_size": (v_cond, v_uncond)}
        values = {metric: (a - b).square().mean().item() for metric, (a, b) in pairs.items()}
        about = {"method": "teacher", "t": grid_t / OURS.T, "n": n}
        rows += [about | {"metric": metric, "value": value} for metric, value in values.items()]
    return rows


def timed_rows(
    method: str,
    net: Network,
    n_steps: int,
    w: float,
    repeats: int,
    about: Row,
    label: Tensor | None = None,
    *,
    sampler: str = "ddim",
) -> list[Row]:
    """Measured seconds for one batch of pictures, and pictures a second; `method` is the label of the rows.

    The batch asks for `label`, or for BATCH classes.
    """
    label = classes(BATCH, net.null) if label is None else label
    seconds = median_seconds(lambda: sample_pictures(net, n_steps, w, label, 0, sampler), repeats)
    about = about | {
        "method": method,
        "steps": n_steps,
        "w": w,
        "nfe": nfe(n_steps, w, not net.takes_w),
        "n": len(label),
    }
    return [
        about | {"metric": "seconds", "value": seconds},
        about | {"metric": "images_per_second", "value": len(label) / seconds},
    ]


def measure(
    measured: Measured, method: str, nets: dict[int, Network], ws: Iterable[float], sampler: str = "ddim"
) -> list[Row]:
    """Rows labelled `method` for the network of each step count, at each strength."""
    return [row for w in ws for n, net in nets.items() for row in measured.rows(method, net, n, w, sampler)]

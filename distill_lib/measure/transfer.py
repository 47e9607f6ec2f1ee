"""Style transfer: encode a picture with the network of one look, decode the noise with that of another, and measure.

Meng et al. 2023 (arXiv 2210.03142), section on style transfer, after dual diffusion implicit bridges (Su et al. 2023,
arXiv 2203.08382). Both looks are drawn from the same scenes, so that the true answer exists and is compared with:

    iou             where the solid is, read off the result, against the scene's own mask
    depth_error     how far away it is, likewise, in scene units
    style           share of the results that a linear probe calls pictures of the wanted look
    fid_target      Frechet distance to the true pictures of the same scenes in the wanted look
    paired_target   mean square difference to them
    accuracy        share named as the class that was asked for
    margin          by how much its log probability exceeds that of any other class
    sharpness       variance of the Laplacian
"""

import copy
from dataclasses import replace

import torch
from torch import Tensor

from distill_lib.diffusion.noise import normal
from distill_lib.diffusion.pixels import to_patches, to_unit
from distill_lib.diffusion.samplers import encode, nfe, sample
from distill_lib.engine.precision import current
from distill_lib.engine.store import cached
from distill_lib.measure.draw import in_batches
from distill_lib.measure.metrics import Reader, fid, laplacian_variance, margins, paired
from distill_lib.measure.readers.geometry import Geometry, depth_error, mask_iou
from distill_lib.measure.rows import Row, tidy
from distill_lib.networks.adapter import Network, denoiser
from distill_lib.worlds.pictures import WORLDS
from distill_lib.worlds.scenes import SHAPES, draw_scenes, rendered
from distill_lib.worlds.seeds import held_out_seed

Leg = tuple[Network, int]
"""One way of a transfer: a network (a student, or a guided pair) and its number of steps."""


def transfer(up: Leg, down: Leg, image: Tensor, label: Tensor, w: float = 0.0, target: Tensor | None = None) -> Tensor:
    """Pictures uint8 (N, 3, R, R) encoded by `up` without guidance, decoded by `down` with strength w; kept in a cache.

    Args:
        up, down: network and steps of the encoder and of the decoder.
        label: class that the encoder is conditioned on, (N,).
        target: class that the decoder is conditioned on, (N,); the same unless given.
    """
    target = label if target is None else target
    spec = {"up": up, "down": down, "w": w, "bf16": [net.bf16 for net, _ in (up, down)]}
    spec |= {"image": image, "label": label, "target": target, "precision": current()}

    def draw(index: Tensor) -> Tensor:
        cpu_index = index.cpu()
        x = to_patches(to_unit(image[cpu_index].to(index.device)))
        source, wanted = label[cpu_index].to(x.device), target[cpu_index].to(x.device)
        z_T = encode(denoiser(up[0], source, 0.0), x, up[1])
        return sample(denoiser(down[0], wanted, w), z_T, down[1])

    return cached("transfer", spec, lambda: {"image": in_batches(down[0], len(image), draw)}, transfer)["image"]


def unrelated(down: Leg, label: Tensor, w: float, seed: int = 0) -> Tensor:
    """Pictures of the same classes from fresh noise: what a transfer that keeps nothing would give."""
    net, steps = down

    def draw(index: Tensor) -> Tensor:
        z_T = normal(seed, "unrelated", 0, index, net.shape)
        return sample(denoiser(net, label.to(index.device)[index], w), z_T, steps)

    return in_batches(net, len(label), draw)


def evaluations(up: Leg, down: Leg, w: float) -> int:
    """Network evaluations of one transferred picture."""
    return nfe(up[1], 0.0, not up[0].takes_w) + nfe(down[1], w, not down[0].takes_w)


def probe(reader: Reader, source: Tensor, target: Tensor) -> tuple[Tensor, float]:
    """Fisher's linear discriminant between the features of two sets of pictures: direction (64,) and threshold."""
    a, b = (reader.read(image)["64"] for image in (source, target))
    spread = a.T.cov() + b.T.cov()
    direction = torch.linalg.solve(spread + 1e-6 * spread.trace() * torch.eye(len(spread)), b.mean(0) - a.mean(0))
    return direction, ((a.mean(0) + b.mean(0)) / 2 @ direction).item()


class PairedScenes:
    """Held-out scenes drawn in two looks, and what a transfer from the one to the other is compared with.

    Args:
        source, target: names of WORLDS that differ in nothing but the look.
        n, seed: of the scenes.
        reader: metrics that know both looks.
        geometry: reads masks and depth off pictures of both.

    Raises:
        ValueError: the two worlds differ in more than their look.
    """

    def __init__(self, source: str, target: str, n: int, reader: Reader, geometry: Geometry, seed: int = 0) -> None:
        if replace(WORLDS[source], look="") != replace(WORLDS[target], look=""):
            raise ValueError(f"{source} and {target} differ in more than their look; take two looks of one world")
        self._source, index = WORLDS[source], torch.arange(n)
        self._scenes = draw_scenes(self._source, held_out_seed("twins", seed), index)
        self.image, self.depth, self.mask = rendered(self._source, self._scenes)
        self.truth = rendered(WORLDS[target], self._scenes)[0]
        self.label = self._scenes.labels(self._source)
        self.reader, self.geometry, self.seed = reader, geometry, seed
        known = draw_scenes(self._source, held_out_seed("probe", seed), index)
        self._probe = probe(reader, *(rendered(WORLDS[world], known)[0] for world in (source, target)))

    def as_next_shape(self) -> "PairedScenes":
        """The same pictures, wanted in their own look with the main solid as the next shape: sphere to cube, .., cone
        to sphere. Truth, mask, depth and class are those of the scene with the other solid in the same place."""
        shape = self._scenes.shape.clone()
        shape[:, 0] = (shape[:, 0] + 1) % len(SHAPES)
        again, scenes = copy.copy(self), replace(self._scenes, shape=shape)
        again.truth, again.depth, again.mask = rendered(self._source, scenes)
        again.label = scenes.labels(self._source)
        return again

    def judged(self, image: Tensor) -> dict[str, float]:
        """The metrics of this module for transferred pictures uint8 (N, 3, R, R)."""
        read = self.reader.read(image)
        direction, threshold = self._probe
        margin = margins(read["logits"], self.label)
        return {
            "iou": mask_iou(self.geometry, image, self.mask).mean().item(),
            "depth_error": depth_error(self.geometry, image, self.mask, self.depth).mean().item(),
            "style": (read["64"] @ direction > threshold).double().mean().item(),
            "fid_target": fid(self.reader, image, self.truth),
            "paired_target": paired(image, self.truth).mean().item(),
            "accuracy": (margin > 0).double().mean().item(),
            "margin": margin.mean().item(),
            "sharpness": laplacian_variance(image),
        }

    def rows(self, image: Tensor, columns: Row) -> list[Row]:
        """What `judged` finds, a row a metric; `columns` holds the columns that they share."""
        return tidy(self.judged(image), **columns, n=len(image), seed=self.seed)

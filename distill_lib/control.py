"""ControlNets of SDXS on a pipeline of the shape of Stable Diffusion: what they are trained on, and how.

    teacher     a ControlNet for the large U-Net, on pictures of the world and their exact maps    methods.teacher
    shrunk      one for the small U-Net, through features of its up stages       Fig. 2c           .control_distillation
    one step    for the student of one step: feature matching, then segmented
                score distillation with the teacher's ControlNet on both the
                online and the offline model                                     Fig. 5, Alg. 1    .score_distillation

Song et al. 2024 (arXiv 2403.16627). From the second on it is data-free: a control map is taken from the teacher's own
picture, so that noise, target and control are a triplet.
"""

import copy
import hashlib
from dataclasses import dataclass, replace
from typing import Any

import torch
from diffusers import ControlNetModel
from torch import Tensor

from distill_lib import sdxs
from distill_lib.controlnet import Controlled, cut_control
from distill_lib.geometry import Geometry, read_depth, rendered
from distill_lib.inpainting import Masked
from distill_lib.methods.control_distillation import distill_control
from distill_lib.methods.pair_regression import Pairs
from distill_lib.methods.score_distillation import Segment
from distill_lib.methods.step_halving import Halved
from distill_lib.methods.teacher import train_teacher
from distill_lib.models import Network, showing
from distill_lib.noise import normal, uniform
from distill_lib.pipelines import TextToImage
from distill_lib.sdxs import Matching, decoded
from distill_lib.small_diffusion import encoded, phrased
from distill_lib.store import Run, cached, content_key
from distill_lib.training import TrainSettings, finish
from distill_lib.worlds.captions import attributes, names_held_out
from distill_lib.worlds.controls import control_map
from distill_lib.worlds.datasets import WORLDS
from distill_lib.worlds.scenes import draw_scenes

__all__ = [
    "WAYS",
    "Triplets",
    "mapped_pictures",
    "maps_of",
    "one_step_control",
    "renewed",
    "shrunk",
    "taught",
]

WAYS = ("decoder", "residuals", "denoising")
"""What a ControlNet for the small U-Net is held to: the teacher's features and output behind it (eqs. 7 and 8), what
the teacher's ControlNet itself puts out, or the pictures alone."""


def renewed(z_T: Tensor, fresh: Tensor, u: Tensor, share: float) -> Tensor:
    """Noise z_T (B, C, H, W) with that of `fresh` at a share of its places, those where u (B, H W) < share.

    Still white noise. SDXS, section 3.3, initialises part of the noise again, so that it tells less of the layout and
    the control has to tell more. It does not say which part, nor how often: here it is places, once for each triplet.

    Raises:
        ValueError: share lies outside [0, 1].
    """
    if not 0 <= share <= 1:
        raise ValueError(f"share={share} of the noise should lie in [0, 1]")
    anew = (u < share).unflatten(1, z_T.shape[-2:])[:, None]
    return torch.where(anew, fresh, z_T)


@dataclass(frozen=True)
class Triplets:
    """Noise, the teacher's picture from it, and a control map taken from that picture.

    Args:
        pairs: noise and picture; `told.network` is the controlled teacher, whose U-Net is what learns of its copies.
        seen: the maps, (N, C, R, R) in [0, 1].
        share: of the noise that is drawn anew, once a triplet.
    """

    pairs: Pairs
    seen: Tensor
    share: float = 0.0

    @property
    def told(self) -> TextToImage:
        """The controlled teacher."""
        return self.pairs.told

    def __len__(self) -> int:
        return len(self.pairs)

    def batch(self, index: Tensor, device: torch.device | str = "cpu") -> tuple[Tensor, Tensor, Tensor]:
        """z_T, x, and text states with the map behind them (B, L + K, D) of the triplets `index` (B,)."""
        z_T, x, states = self.pairs.batch(index, device)
        number = self.pairs.first + index.to(device)
        fresh = normal(self.pairs.seed, "anew", 0, number, z_T.shape[1:])
        u = uniform(self.pairs.seed, "places", 0, number, z_T[0, 0].numel())
        return renewed(z_T, fresh, u, self.share), x, showing(states, self.seen[index].float().to(device))

    def as_data(self) -> Masked:
        """The same pictures and maps without their noise, for trainings at every noise level."""
        return Masked(self.pairs.x, self.seen, self.pairs.prompts, self.told.states)

    @classmethod
    def of(cls, pairs: Pairs, kind: str, reader: Geometry, control: ControlNetModel, share: float = 0.0) -> "Triplets":
        """Triplets of a kind of map from a teacher's pairs.

        Args:
            pairs: of the teacher without control, as they are for the student of one step.
            kind: of `worlds.controls.KINDS`.
            reader: reads distances off pictures, for "depth".
            control: the teacher's ControlNet.
            share: of the noise that is drawn anew.
        """
        teacher = Controlled(pairs.told.network, control, "unet")
        return cls(replace(pairs, told=replace(pairs.told, network=teacher)), maps_of(pairs, kind, reader), share)


def maps_of(pairs: Pairs, kind: str, reader: Geometry) -> Tensor:
    """Control maps (N, C, R, R), in half precision, of a teacher's own pictures; kept in a cache."""
    image = decoded(pairs)
    read = [p.detach().flatten() for p in reader.parameters()]
    spec = {"image": hashlib.sha256(image.numpy().tobytes()).hexdigest(), "kind": kind}
    spec |= {"reader": hashlib.sha256(torch.cat(read).cpu().numpy().tobytes()).hexdigest()}

    def make() -> dict[str, Tensor]:
        depth = read_depth(reader, image) if kind == "depth" else image[:, 0]
        return {"seen": control_map(kind, image, depth).half()}

    return cached("maps", spec, make, control_map)["seen"]


def mapped_pictures(told: TextToImage, name: str, kind: str, world: str, count: int, seed: int) -> Masked:
    """Captioned pictures of a world in the latents of a pipeline, each with its exact map; kept in a cache.

    Args:
        told: the pipeline.
        name: which one it is, for the cache.
        kind: of map, of `worlds.controls.KINDS`.
        world, count, seed: the pictures; those of the pairs held out are left out.
    """
    spec = WORLDS[world]
    scenes = draw_scenes(spec, seed, torch.arange(count))
    asked = attributes(scenes, spec)
    known = ~names_held_out(asked)

    def make() -> dict[str, Tensor]:
        image, depth, _ = rendered(spec, scenes)
        return {"image": image[known], "depth": depth[known]}

    drawn = {"world": spec, "count": count, "seed": seed}
    found = cached("mapped", drawn, make, rendered)
    make_z = lambda: {"z": encoded(told, found["image"])}  # noqa: E731
    z = cached("mapped-latents", drawn | {"pipeline": name}, make_z, encoded)["z"]
    seen = control_map(kind, found["image"], found["depth"]).half()
    return Masked(z, seen, phrased(asked[known], seed), told.states)


def _code() -> dict[str, str]:
    """What tells apart trainings by functions of other modules that see controls through this one."""
    return {"control": content_key({}, Controlled, control_map)}


def taught(
    net: Controlled, data: Masked, settings: TrainSettings, about: dict[str, Any], drop: float
) -> tuple[list[tuple[float, float]], Run]:
    """A ControlNet by the denoising loss on data with maps, its U-Net frozen; the curve and the run.

    Args:
        net: the same object is trained.
        data, settings: of the training.
        about: what tells it from others.
        drop: share of samples whose prompt is left out, so that the map has to be read.
    """
    run = Run("controlnet", {"settings": settings, "data": data, "net": net, "drop": drop} | about | _code(), taught)
    return finish(net, train_teacher(net, data, settings, run, drop), run, "ControlNet"), run


def shrunk(
    small: Network,
    triplets: Triplets,
    control: ControlNetModel,
    about: dict[str, Any],
    settings: TrainSettings,
    way: str = "decoder",
    inherit: bool = True,
) -> Halved:
    """A ControlNet for the small U-Net, trained in one of `WAYS`.

    Args:
        small: the small U-Net behind its adapter, frozen.
        triplets: whose pictures and maps it is trained on.
        control: the teacher's ControlNet.
        about, settings: what tells the training from others, and its settings.
        way: of WAYS.
        inherit: start from `control`, cut; else as a new ControlNet.

    Raises:
        ValueError: the way is unknown.
    """
    if way not in WAYS:
        raise ValueError(f"way={way!r} is unknown; choose one of {', '.join(WAYS)}")
    torch.manual_seed(settings.seed)
    student = Controlled(small, cut_control(control, small.module, inherit).requires_grad_(True))
    config = {"settings": settings, "pairs": triplets, "student": student, "way": way} | about | _code()
    data = triplets.as_data()
    run = Run("small-control", config, distill_control, train_teacher)
    if way == "denoising":
        training = train_teacher(student, data, settings, run, 0.2)
    else:
        training = distill_control(student, triplets.told.network, data, settings, run, way)
    return Halved(student, finish(student, training, run, f"small ControlNet, {way}"), run)


def one_step_control(
    student: Controlled,
    triplets: Triplets,
    cost: Matching,
    about: dict[str, Any],
    matching: TrainSettings,
    scores: TrainSettings | None,
    *,
    segment: Segment,
    w: float,
    **how: Any,
) -> list[Halved]:
    """A ControlNet for the student of one step, whose U-Net is frozen: after feature matching, and after Algorithm 1.

    Both are the very functions that trained the U-Net, `sdxs.regressed` and `sdxs.scored`.

    Args:
        student: the same object is trained.
        triplets: noise, target, control; `told` is the controlled teacher, of which the online model is a copy.
        cost: feature matching.
        about: what tells it from others.
        matching, scores: settings of both trainings; None leaves the second out.
        segment, w, how: as in `methods.score_distillation.distill_scores`.
    """
    about = about | {"share": triplets.share} | _code()
    done = [sdxs.regressed(student, triplets, cost, about, matching)]
    if scores is not None:
        again = student.like(copy.deepcopy(student.control))
        about = about | {"warm": done[0].run.key}
        done.append(sdxs.scored(again, triplets, cost, about, scores, segment=segment, w=w, **how))
    return done

"""A ControlNet for edges that somebody brings with a teacher: cut for the small U-Net, then taught to one step.

As notebook 13 says. Maps are the edges of the teacher's own pictures (`maps.canny`), on which everything is trained.
Measured is on edges of pictures from noise that nothing was trained on, and the student starts from other noise still.
"""

import hashlib
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path

import torch
from diffusers import ControlNetModel
from torch import Tensor

from distill_lib.engine import store
from distill_lib.engine.precision import default_device
from distill_lib.experiments.finished import finished
from distill_lib.experiments.foreign import open_foreign, sizes_of
from distill_lib.experiments.own_part import OwnPart
from distill_lib.experiments.sdxs_task import task_of
from distill_lib.measure.draw import pictures_of
from distill_lib.measure.metrics import laplacian_variance
from distill_lib.measure.prompts import Judges
from distill_lib.measure.rows import Row, tidy
from distill_lib.networks.adapter import Network, append_extra
from distill_lib.networks.controlnet import Controlled
from distill_lib.networks.doors import load_part, one_line
from distill_lib.networks.sdxl import XLNetwork
from distill_lib.profiles import Control, Profile
from distill_lib.sdxs.controlnet import distill_controlnet, one_step_control
from distill_lib.sdxs.triplets import Triplets, maps_of
from distill_lib.shipped.export import replaced
from distill_lib.teachers.latents import decoded
from distill_lib.worlds.maps import canny, edge_f1

_ALIKE = ("block_out_channels", "cross_attention_dim", "layers_per_block", "in_channels", "down_block_types")


def _no_depth(image: Tensor) -> Tensor:
    raise ValueError("depth needs a reader of our world; of another teacher maps are edges")


def check_control(network: Network, control: ControlNetModel) -> None:
    """Refuse a ControlNet that belongs to another U-Net than a network's.

    Raises:
        ValueError: names the first setting that differs, or what a first pass says; or it is of Stable Diffusion XL.
    """
    if isinstance(network, XLNetwork):
        raise ValueError("of Stable Diffusion XL no ControlNet is taught here; name one of Stable Diffusion 1 or 2")
    unet = network.module.config
    for name in _ALIKE:
        due, other = (list(v) if isinstance(v, list | tuple) else v for v in (unet[name], control.config[name]))
        if due != other:
            raise ValueError(f"it was made for a U-Net with {name}={other}, where the teacher's has {due}")
    if control.config.conditioning_channels != 3:
        raise ValueError(f"it reads {control.config.conditioning_channels} channels; pictures have 3")
    side = network.shape[1] << (len(control.config.conditioning_embedding_out_channels) - 1)
    label = append_extra(network.null[None], torch.zeros(1, 1, side, side, device=network.null.device))
    t = torch.tensor([network.schedule.T], device=network.device)
    with torch.no_grad():
        answer = Controlled(network, control, "unet")(torch.zeros(1, *network.shape, device=network.device), t, label)
    if not answer.isfinite().all():
        raise ValueError("its first answer is not finite; its weights are of no use")


@dataclass(frozen=True)
class OwnControl(OwnPart):
    """A teacher's student of one step and a ControlNet of the teacher, under one profile and seed."""

    kind = "control"
    control: ControlNetModel
    sizes: Control

    @cached_property
    def digest(self) -> str:
        """Of the weights; as `OwnPart.digest`."""
        return hashlib.sha256(store.weights_hash(self.control, "control").encode()).hexdigest()[:12]

    def triplets(self, share: float) -> Triplets:
        """Noise, target and edges of the teacher's answers, with a share of the noise resampled."""
        pairs = self.job.pairs.part(0, self.sizes.pairs)
        return Triplets.of(pairs, "edges", _no_depth, self.control, share)

    def trained(self) -> Controlled:
        """The ControlNet of the student: through features of the small U-Net, then by triplets and Algorithm 1."""
        seed, sizes = self.job.seed, self.sizes
        small = self.trials.first
        shrinking = sizes.shrinking.with_seed(seed)
        small_control = finished(distill_controlnet(small, self.triplets(0.0), self.control, shrinking)).net.control
        student = Controlled(self.student, small_control.requires_grad_(True))
        scoring = sizes.scores.of_run(seed, self.job.text.w)
        cost, matching = self.trials.cost("matching"), sizes.matching.with_seed(seed)
        return finished(one_step_control(student, self.triplets(sizes.share), cost, matching, scoring)[-1]).net

    @cached_property
    def maps(self) -> Tensor:
        """Edges of the held-back pictures of the benchmark's prompts, (n, 1, R, R) in [0, 1]."""
        return maps_of(self.job.held, "edges", _no_depth).float()

    def pictures(self, trained: Controlled) -> dict[str, Tensor]:
        """Pictures uint8 (n, 3, R, R) of the same prompts and noise: whose edges are asked for, and without and with
        them in one step; and the teacher's with its own ControlNet."""
        bench, w = self.job.benchmark, self.job.benchmark.w
        teacher = Controlled(self.job.model.network, self.control)
        label = append_extra(bench.states.cpu(), self.maps)
        draw = partial(pictures_of, label=label, seed=bench.seed)
        return {
            "wanted": decoded(self.job.held),
            "no control": bench.pictures(self.student, 1, 0.0),
            "one step": draw(trained, 1, 0.0),
            "teacher": draw(teacher, bench.teacher_steps, w),
        }

    def rows(self, pictures: dict[str, Tensor]) -> list[Row]:
        """Edge F1, sharpness and the agreement with the prompt of all of them but the wanted ones."""
        rows, wanted = [], canny(pictures["wanted"])
        for name, image in pictures.items():
            if name != "wanted":
                values = {
                    "edge_f1": edge_f1(canny(image), wanted).double().mean().item(),
                    "sharpness": laplacian_variance(image),
                    "clip": self.job.benchmark.judges.clip(image, self.job.benchmark.prompts).mean().item(),
                }
                rows += tidy(values, method=name, seed=self.job.seed, n=len(image))
        return rows

    def export(self, trained: Controlled) -> tuple[Path, Path]:
        """The student's folder for diffusers, and that of its ControlNet; both places are printed."""
        whole = self.job.export(self.student, "onestep", 1)
        folder = store.RUNS / "students" / f"control{self.suffix}"
        with replaced(folder) as part:
            trained.control.save_pretrained(part, safe_serialization=True)
        print(f"its ControlNet, for StableDiffusionControlNetPipeline: {folder}")
        return whole, folder


def own_control(
    settings: Profile, seed: int, teacher: str, prompts: str, control: str, judges: Judges | str = ""
) -> OwnControl:
    """A teacher of one's own, its prompts, and a ControlNet of it that reads edges.

    Args:
        settings, seed, teacher, prompts: as in `sdxs_task.sdxs_task`.
        control: a folder of diffusers' ControlNetModel.
        judges: what measures, or the folder of the foreign judges.

    Raises:
        ValueError: as `foreign.open_foreign`, `sdxs_task.task_of` and `check_control`, before anything is drawn.
    """
    if not control:
        raise ValueError("a teacher of your own needs control=, the folder of a ControlNet for edges; '' is no folder")
    sizes = sizes_of(settings, teacher, prompts)
    if sizes is None:
        raise ValueError(f"control={control!r} needs teacher=, the folder or hub id of the model that it was made for")
    foreign, own = open_foreign(sizes, seed, prompts, judges), settings.other or settings
    try:
        read = load_part(ControlNetModel, Path(control).expanduser()).to(default_device()).requires_grad_(False)
        check_control(foreign.model.network, read)
    except Exception as error:
        raise ValueError(f"control={control!r} is of no use to {sizes.pipeline!r}: {one_line(error)}") from error
    return OwnControl(task_of(foreign, own.small), read, own.control)

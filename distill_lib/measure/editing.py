"""Editing one solid of a scene by words, and what can be measured since the scene is known.

    redraw          noise the picture to a time between, and denoise it under another prompt        (1)
    edit_success    share of results that show every attribute that was asked for
    outside         mean square change of the picture outside the region of the edit
    seam            jump across the edge of a mask over that across the same edge in the true picture
    feature_target  mean square distance of standardised features to the true picture, inside the region alone:

                        | z(m x + (1 - m) y) - z(y) |^2 / F     x the result, y the true picture, m the region    (2)

(1) is SDEdit (Meng et al. 2022, arXiv 2108.01073), which Meng et al. 2023 (arXiv 2210.03142) do with a distilled model
in three steps. The true picture is the same scene with one solid in another colour or shape. Squares of pixels reward
the blurrier of two pictures; the features of (2) see blur.
"""

from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.nn import Module
from torch.nn.functional import max_pool2d

from distill_lib.diffusion.noise import normal, uniform
from distill_lib.diffusion.pixels import to_bytes
from distill_lib.diffusion.samplers import Denoise, sample, trajectory
from distill_lib.diffusion.schedules import OURS, Schedule, add_noise, step_grid
from distill_lib.measure.draw import in_batches
from distill_lib.measure.features import Features
from distill_lib.measure.metrics import paired
from distill_lib.measure.readers.attributes import prompt_accuracy, read_attributes
from distill_lib.measure.rows import Row, tidy
from distill_lib.networks.adapter import Network, append_extra, denoiser
from distill_lib.networks.pipeline import TextToImage
from distill_lib.teachers.inpainting import visible_latents
from distill_lib.worlds.captions import attributes, names_held_out, say
from distill_lib.worlds.pictures import WORLDS
from distill_lib.worlds.scenes import COLORS, SHAPES, Rendered, Scenes, SceneSpec, draw_scenes, render
from distill_lib.worlds.seeds import held_out_seed

_CHUNK = 32
_MARGIN = 2  # pixels around a solid that belong to the region of its edit


@torch.no_grad()
def redraw(denoise: Denoise, x: Tensor, eps: Tensor, n_steps: int, first: int, schedule: Schedule = OURS) -> Tensor:
    """(1): the last n_steps - first steps of the deterministic sampler, from data x (B, *D) noised by eps.

    Raises:
        ValueError: first lies outside 0 .. n_steps - 1, or n_steps does not fit the grid.
    """
    if not 0 <= first < n_steps:
        raise ValueError(f"first={first}: of {n_steps} steps, 0 to {n_steps - 1} can be left out")
    grid = step_grid(n_steps, schedule.T)[first:]
    t = torch.full((len(x),), grid[0], device=x.device)
    return trajectory(denoise, add_noise(x, eps, t, schedule), grid, schedule)[-1]


def seam(image: Tensor, truth: Tensor, mask: Tensor) -> float:
    """Mean jump across the edges of masks (N, 1, R, R) in pictures uint8 (N, 3, R, R), over that in the true ones.

    1 is a seam that cannot be seen; more is an edge that the mask has left.
    """
    jumps = []
    for picture in (image, truth):
        x = picture.float()
        total, count = 0.0, 0.0
        for dim in (2, 3):
            edge = mask.diff(dim=dim).abs()
            total += (x.diff(dim=dim).abs().mean(1, keepdim=True) * edge).sum().item()
            count += edge.sum().item()
        jumps.append(total / max(count, 1.0))
    return jumps[0] / max(jumps[1], 1e-6)


@dataclass(frozen=True)
class Edits:
    """Scenes before and after one solid is recoloured or reshaped.

    before, after: pictures uint8 (N, 3, R, R); was, asked: their attributes (N, 2, 4); region: where they may differ
    for the solid's sake, float (N, 1, R, R): the box around it in both, a margin wider.
    """

    before: Tensor
    after: Tensor
    was: Tensor
    wanted_attributes: Tensor
    region: Tensor

    @property
    def prompts(self) -> list[str]:
        """What is asked for, in words."""
        return say(self.wanted_attributes)

    @classmethod
    def drawn(cls, world: str, kind: str, n: int, seed: int) -> "Edits":
        """n held-out scenes of a world of two objects, with the colour or the shape of one of them changed.

        No pair of `worlds.captions.HELD_OUT` is asked for.

        Raises:
            ValueError: another kind of edit is named, or too few scenes are left.
        """
        if kind not in ("colour", "shape"):
            raise ValueError(f"kind={kind!r}: colour and shape can be edited")
        spec, index = WORLDS[world], torch.arange(4 * n)  # of which some hold such a pair, before or after
        seed = held_out_seed("edits", seed)
        scenes, u = draw_scenes(spec, seed, index), uniform(seed, "edit", 0, index, 2)
        which = (u[:, 0] < 0.5).long()
        changed = _changed(scenes, which, kind, u[:, 1])
        was, wanted_attributes = attributes(scenes, spec), attributes(changed, spec)
        kept = (~names_held_out(was) & ~names_held_out(wanted_attributes)).nonzero()[:n, 0]
        if len(kept) < n:
            raise ValueError(f"only {len(kept)} of {len(index)} scenes can be edited; ask for fewer than {n}")
        scenes, changed, which = _picked(scenes, kept), _picked(changed, kept), which[kept]
        a, b = _rendered(scenes, spec), _rendered(changed, spec)
        solid = torch.stack([part.masks[torch.arange(n), which] for part in (a, b)]).amax(0)[:, None]
        return cls(
            before=to_bytes(a.image),
            after=to_bytes(b.image),
            was=was[kept],
            wanted_attributes=wanted_attributes[kept],
            region=_boxes(max_pool2d((solid > 0).float(), 2 * _MARGIN + 1, 1, _MARGIN)),
        )

    def judged(self, image: Tensor, reader: Module, features: Features | None = None) -> dict[str, float]:
        """The metrics of this module for edited pictures uint8 (N, 3, R, R); (2) with features, if they are given."""
        away = 1 - self.region
        change = ((image.float() - self.before.float()) / 127.5).square().mean(1, keepdim=True)
        values = {
            "edit_success": prompt_accuracy(read_attributes(reader, image), self.wanted_attributes).mean().item(),
            "outside": ((change * away).sum() / away.sum()).item(),
            "seam": seam(image, self.after, self.region),
            "paired_target": paired(image, self.after).mean().item(),
        }
        if features is not None:
            inside = torch.where(self.region > 0, image, self.after)
            values["feature_target"] = (features(inside) - features(self.after)).square().mean().item()
        return values

    def rows(self, image: Tensor, reader: Module, columns: Row, features: Features | None = None) -> list[Row]:
        """What `judged` finds, a row a metric; `columns` holds the columns that they share."""
        return tidy(self.judged(image, reader, features), **columns, n=len(image))


def _changed(scenes: Scenes, which: Tensor, kind: str, u: Tensor) -> Scenes:
    """Scenes whose solid `which` (B,) has another colour or shape; u (B,) in [0, 1) chooses among the others."""
    rows = torch.arange(len(which))
    column = (scenes.color if kind == "colour" else scenes.shape).clone()
    count, old = len(COLORS if kind == "colour" else SHAPES), column[rows, which]
    new = (old + 1 + (u * (count - 1)).long()) % count
    column[rows, which] = new
    if kind == "shape":
        return replace(scenes, shape=column)
    palette, albedo = torch.tensor(list(COLORS.values())), scenes.albedo.clone()
    albedo[rows, which] = (albedo[rows, which] + palette[new] - palette[old]).clamp(0, 1)
    return replace(scenes, color=column, albedo=albedo)


def _picked(scenes: Scenes, index: Tensor) -> Scenes:
    return Scenes(**{name: column[index] for name, column in vars(scenes).items()})


def _rendered(scenes: Scenes, spec: SceneSpec) -> Rendered:
    parts = [render(_picked(scenes, part), spec) for part in torch.arange(len(scenes)).split(_CHUNK)]
    return Rendered(*(torch.cat([getattr(part, name) for part in parts]) for name in ("image", "depth", "masks")))


def _boxes(mask: Tensor) -> Tensor:
    """The bounding boxes of masks (N, 1, R, R)."""
    spans = []
    for dim in (3, 2):
        line = mask.amax(dim)
        spans.append(line.cummax(2).values * line.flip(2).cummax(2).values.flip(2))
    return spans[0][..., :, None] * spans[1][..., None, :]


def edited(model: TextToImage, net: Network, edits: Edits, n_steps: int, first: int, w: float, seed: int = 0) -> Tensor:
    """Pictures uint8 (N, 3, R, R) by `redraw` in the latents of a pipeline, under the prompts of the edits."""
    states = model.states(edits.prompts)

    def draw(index: Tensor) -> Tensor:
        x = model.latents(edits.before[index.cpu()]).to(index.device)
        denoise = denoiser(net, states[index.to(states.device)].to(index.device), w)
        return redraw(denoise, x, normal(seed, "redraw", 0, index, net.shape), n_steps, first, net.schedule)

    return in_batches(net, len(edits.before), draw)


def painted(model: TextToImage, net: Network, edits: Edits, n_steps: int, w: float, seed: int = 0) -> Tensor:
    """Pictures uint8 (N, 3, R, R) whose regions are painted anew by a network for inpainting."""
    states = model.states(edits.prompts)

    def draw(index: Tensor) -> Tensor:
        cpu_index = index.cpu()
        seen = visible_latents(model, edits.before[cpu_index], edits.region[cpu_index]).to(index.device)
        label = append_extra(states[index.to(states.device)].to(index.device), seen)
        z_T = normal(seed, "paint", 0, index, net.shape)
        return sample(denoiser(net, label, w), z_T, n_steps, net.schedule)

    return in_batches(net, len(edits.before), draw)

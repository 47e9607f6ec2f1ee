"""Measuring control: scenes whose maps are known, and what pictures make of them.

    edge_f1            edges of the picture against those of the scene, a pixel off at most     (`maps.edge_f1`)
    depth_error, iou   distances and outlines of the named solids, read off the picture         (`geometry`)
    prompt_accuracy    what is drawn there against what was asked                               (`attributes`)
    psnr               against the true picture, 10 log10(4 / mean square difference in [-1, 1])
    diversity          mean square difference of pictures of one prompt and map, other noise    (1)
    diversity_prompt   the same of one map and noise, other prompts: colours and patterns       (2)

The reader of distances is another than the one that took maps off the teacher's pictures. What it finds in true
pictures bounds what it can find in any.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import combinations

import torch
from torch import Tensor
from torch.nn import Module

from distill_lib.engine.store import cached
from distill_lib.measure.draw import pictures_of, sample_pictures
from distill_lib.measure.metrics import laplacian_variance, median_seconds, paired
from distill_lib.measure.prompts import states_of, through
from distill_lib.measure.readers.attributes import attribute_accuracy, prompt_accuracy, read_attributes
from distill_lib.measure.readers.geometry import Geometry, depth_error, mask_iou
from distill_lib.measure.rows import Row, tidy
from distill_lib.measure.systems import System
from distill_lib.networks.adapter import append_extra
from distill_lib.networks.pipeline import TextToImage
from distill_lib.worlds.captions import attributes, names_held_out, say
from distill_lib.worlds.maps import control_map, edge_f1, edge_map
from distill_lib.worlds.pictures import WORLDS
from distill_lib.worlds.scenes import COLORS, TEXTURES, Scenes, draw_scenes, rendered
from distill_lib.worlds.seeds import held_out_seed

Decode = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Readers:
    """What measures: attributes of two solids, and their outlines and distances."""

    attributes: Module
    geometry: Geometry


def recoloured(wanted_attributes: Tensor, count: int) -> Tensor:
    """`count` other prompts for each of attributes (N, 2, 4), (count, N, 2, 4): colours and patterns move on.

    Shapes and sizes stay, since a map shows them. No pair of `worlds.captions.HELD_OUT` is asked for.
    """
    shifts = torch.arange(1, len(COLORS) * len(TEXTURES))
    moved = wanted_attributes.repeat(len(shifts), 1, 1, 1)
    moved[..., 1] = (wanted_attributes[..., 1] + shifts[:, None, None]) % len(COLORS)
    moved[..., 2] = (wanted_attributes[..., 2] + shifts[:, None, None]) % len(TEXTURES)
    allowed = torch.stack([~names_held_out(candidate) for candidate in moved])
    first = allowed.long().sort(dim=0, descending=True, stable=True).indices[:count]
    return moved[first, torch.arange(len(wanted_attributes))]


def diversity(image: Sequence[Tensor]) -> float:
    """(1) or (2): mean square difference over all pairs of sets uint8 (N, 3, R, R), picture by picture."""
    return torch.stack([paired(a, b).mean() for a, b in combinations(image, 2)]).mean().item()


def _condition(system: System, prompts: list[str], seen: Tensor | None) -> Tensor:
    """The networks' condition, (N, L + K, D): the states of prompts, and maps behind them if any."""
    label = states_of(system.model, prompts)
    return label if seen is None else append_extra(label, seen.float().to(label.device))


def drawn(system: System, prompts: list[str], seen: Tensor | None = None, seed: int = 0) -> Tensor:
    """Pictures uint8 (N, 3, R, R) of N prompts by `draw.pictures_of`, under maps (N, C, R, R) in [0, 1] if any.

    A system that is shown maps has a `controlnet.Controlled` for its network.
    """
    return pictures_of(system.net, system.n_steps, system.w, _condition(system, prompts, seen), seed, system.sampler)


@dataclass(frozen=True)
class ControlBenchmark:
    """Held-out scenes: true pictures uint8 (N, 3, R, R), distances and coverage of the named solids (N, R, R), and
    attributes (N, 2, 4)."""

    model: TextToImage
    image: Tensor
    depth: Tensor
    mask: Tensor
    wanted_attributes: Tensor
    readers: Readers

    def __len__(self) -> int:
        return len(self.image)

    @classmethod
    def of(cls, model: TextToImage, world: str, n: int, seed: int, readers: Readers) -> "ControlBenchmark":
        """n scenes that no training has seen, none with a pair of `worlds.captions.HELD_OUT`."""
        spec, seed = WORLDS[world], held_out_seed("steered", seed)
        scenes = draw_scenes(spec, seed, torch.arange(2 * n + 32))
        wanted_attributes = attributes(scenes, spec)
        index = (~names_held_out(wanted_attributes)).nonzero()[:n, 0]
        kept = Scenes(**{name: column[index] for name, column in vars(scenes).items()})

        def make() -> dict[str, Tensor]:
            return dict(zip(("image", "depth", "mask"), rendered(spec, kept), strict=True))

        tensors = cached("scenes-steered", {"world": spec, "n": n, "seed": seed}, make, rendered)
        return cls(model, **tensors, wanted_attributes=wanted_attributes[index], readers=readers)

    @property
    def prompts(self) -> list[str]:
        """What is asked for, in words."""
        return say(self.wanted_attributes)

    def maps(self, kind: str) -> Tensor:
        """The exact maps of a kind, (N, C, R, R)."""
        return control_map(kind, self.image, self.depth)

    def judged(self, image: Tensor) -> dict[str, float]:
        """The metrics of this module but for diversity, of pictures uint8 (N, 3, R, R)."""
        predicted = read_attributes(self.readers.attributes, image)
        reader, error = self.readers.geometry, paired(image, self.image).double()
        values = {
            "edge_f1": edge_f1(edge_map(image)[:, 0] > 0, edge_map(self.image)[:, 0] > 0),
            "depth_error": depth_error(reader, image, self.mask, self.depth),
            "iou": mask_iou(reader, image, self.mask),
            "prompt_accuracy": prompt_accuracy(predicted, self.wanted_attributes),
            "attribute_accuracy": attribute_accuracy(predicted, self.wanted_attributes),
        }
        means = {metric: value.double().mean().item() for metric, value in values.items()}
        if error.any():  # a picture has no finite ratio to itself
            means["psnr"] = (10 * (4 / error.clamp(min=1e-6)).log10()).mean().item()
        return means | {"sharpness": laplacian_variance(image)}

    def rows(self, image: Tensor, columns: Row) -> list[Row]:
        """What `judged` finds, a row a metric; `columns` holds the columns that they share."""
        return tidy(self.judged(image), **columns, n=len(image))

    def bounds(self, decoders: dict[str, Decode], columns: Row) -> list[Row]:
        """What is found in true pictures ("real"), and in their latents through decoders, by name."""
        rows = self.rows(self.image, columns | {"method": "real"})
        for name, decode in decoders.items():
            rows += self.rows(through(self.model, self.image, decode), columns | {"method": name})
        return rows

    def rows_of(self, system: System, kind: str, columns: Row) -> list[Row]:
        """Rows of one picture a scene by a system, under its map of a kind; `kind` is empty without one."""
        image = drawn(system, self.prompts, self.maps(kind) if kind else None)
        return self.rows(image, columns | {"steps": system.n_steps, "w": system.w, "nfe": system.evaluations["U-Net"]})

    def spread(self, system: System, kind: str, n: int, noises: int, columns: Row, seed: int = 0) -> list[Row]:
        """Rows of (1) and (2) for the first n scenes, `noises` pictures each; and whether other prompts are followed.

        `kind` of map is empty without one.
        """
        seen = self.maps(kind)[:n] if kind else None
        numbers = [1000 * (seed + 1) + k for k in range(noises)]
        by_noise = [drawn(system, self.prompts[:n], seen, number) for number in numbers]
        others = recoloured(self.wanted_attributes[:n], noises)
        by_prompt = [drawn(system, say(wanted_attributes), seen, numbers[0]) for wanted_attributes in others]
        right = [
            prompt_accuracy(read_attributes(self.readers.attributes, image), wanted_attributes).mean()
            for image, wanted_attributes in zip(by_prompt, others, strict=True)
        ]
        values = {"diversity": diversity(by_noise), "diversity_prompt": diversity(by_prompt)}
        values["prompt_accuracy_changed"] = torch.stack(right).mean().item()
        return tidy(values, **columns, n=n * noises)

    def seconds(self, system: System, kind: str, repeats: int, columns: Row) -> list[Row]:
        """A row: seconds for one picture, from reading the prompt to decoding."""
        seen = self.maps(kind)[:1] if kind else None
        net, n_steps, w, by = system.net, system.n_steps, system.w, system.sampler
        work = lambda: sample_pictures(net, n_steps, w, _condition(system, self.prompts[:1], seen), 0, by)  # noqa: E731
        return tidy({"seconds": median_seconds(work, repeats)}, **columns, n=1)

"""Measuring the gates of the world `studio` on its shipped parts, each as soon as it is made (`measure.gates`).

    autoencoder    after attributes-studio and autoencoder-NAME
    prompts        after extractor-studio, clip-studio, pipeline-NAME and early-NAME; so the three that follow
    one step       a student starts as the teacher and learns `PAIRS` of its answers by squares, at w = 2
    cut            the paper's, with the teacher's weights and no training
    DDIM           four steps

Rows of all five, or of those that were measured, go to `gates.gate_rows`.
"""

import copy
from dataclasses import dataclass
from functools import cached_property, partial

import torch
from torch import Tensor

from distill_lib.diffusion.pixels import to_bytes, to_unit
from distill_lib.engine.loop import TrainSettings
from distill_lib.measure.compression import Probe
from distill_lib.measure.features import Features, reference
from distill_lib.measure.gates import autoencoder_rows, cut_rows, floor_rows, one_step_rows, prompt_rows
from distill_lib.measure.independent import Sampled
from distill_lib.measure.metrics import Reader
from distill_lib.measure.prompts import Judges, PromptBenchmark, alignment
from distill_lib.measure.rows import Row
from distill_lib.networks.pipeline import TextToImage
from distill_lib.networks.pruning import SDXS_512, prune
from distill_lib.sdxs.one_step import fit_on_pairs, square_loss
from distill_lib.shipped import pretrained
from distill_lib.teachers.latents import Pairs, phrased, teacher_pairs
from distill_lib.worlds.captions import drawn_attributes
from distill_lib.worlds.pictures import WORLDS, rendered_once
from distill_lib.worlds.seeds import held_out_seed, training_seed
from distill_lib.worlds.studio import StudioScenes
from distill_lib.worlds.vocabulary import STUDIO

PAIRS = 4096
"""Answers of the teacher, in eight steps of UniPC, that the student of one step learns from."""
SQUARES = TrainSettings(steps=1000, batch_size=32, lr=5e-4, warmup=20, ema=0.99, seed=230)
"""Settings of that training."""
_WORLD, _W, _SOLVER, _SOLVER_STEPS = "studio", 2.0, "unipc", 8
_HELD, _LEVELS = 64, (128, 384, 640, 896, 1024)  # latents and noise levels of the cut's error
_REFERENCE = 16_384  # real pictures that standardise features


@torch.no_grad()
def reconstructed(name: str, image: Tensor) -> Tensor:
    """Pictures uint8 (N, 3, R, R) after a shipped autoencoder; raises as `pretrained.autoencoder`."""
    vae = pretrained.autoencoder(name)
    parts = [vae.decode(vae.encode(to_unit(part.to(vae.device))).latent_dist.mean).sample for part in image.split(64)]
    return torch.cat([to_bytes(part).cpu() for part in parts])


@dataclass(frozen=True)
class StudioGates:
    """Rows of the gates of a pipeline of the studio, by its name in the recipes.

    Args:
        name: as "studio8".
        n: pictures behind each number.
        n_steps: of the early teacher, and of the teacher that stands for the truth.
        seed: of prompts and noise.
    """

    name: str
    n: int = 512
    n_steps: int = 32
    seed: int = 0

    def autoencoder(self) -> list[Row]:
        """Glyphs, noise and sharpness of real pictures behind the autoencoder."""
        image, scenes = rendered_once(WORLDS[_WORLD], held_out_seed("measured", self.seed), self.n)
        assert isinstance(scenes, StudioScenes)
        back = reconstructed(self.name, image)
        return autoencoder_rows(pretrained.attribute_reader(_WORLD), image, back, scenes.glyph[:, 0], self.seed)

    @cached_property
    def model(self) -> TextToImage:
        """The teacher."""
        return pretrained.pipeline(self.name)

    @cached_property
    def benchmark(self) -> PromptBenchmark:
        """Prompts of the studio and their judges."""
        clip = partial(alignment, pretrained.clip(_WORLD), words=STUDIO)
        judges = Judges(Reader(pretrained.extractor(_WORLD)), clip, pretrained.attribute_reader(_WORLD))
        return PromptBenchmark(self.model, judges, _WORLD, self.n, self.n_steps, _W, self.seed)

    @cached_property
    def pairs(self) -> Pairs:
        """The teacher's answers to prompts and noise that nothing here is measured with."""
        seed = training_seed(self.seed)
        prompts = phrased(drawn_attributes(PAIRS, seed, vocabulary=STUDIO), seed, STUDIO)
        source = pretrained.key(f"pipeline-{self.name}")
        return teacher_pairs(self.model, prompts, _SOLVER_STEPS, _W, seed, source, _SOLVER)

    def prompts(self) -> list[Row]:
        """Prompts right without and with guidance, of the average after a fifth of the updates."""
        return prompt_rows(self.benchmark, pretrained.early_teacher(self.name, self.model), self.n_steps)

    def one_step(self) -> list[Row]:
        """Sharpness and legibility of one step by squares beside the teacher's answers from the same noise."""
        teacher, benchmark = self.model.network, self.benchmark
        student = teacher.like(copy.deepcopy(teacher.module).requires_grad_(True))
        student = fit_on_pairs(student, self.pairs, square_loss, SQUARES).net
        image, truth = benchmark.pictures(student, 1, 0.0), benchmark.pictures(teacher, _SOLVER_STEPS, _W, _SOLVER)
        return one_step_rows(pretrained.attribute_reader(_WORLD), image, truth, self.seed)

    def cut(self) -> list[Row]:
        """Error of the untrained cut."""
        teacher = self.model.network
        return cut_rows(
            Probe(self.pairs.part(0, _HELD), _LEVELS, self.seed), teacher.like(prune(teacher.module, SDXS_512))
        )

    def ddim(self) -> list[Row]:
        """How many of its standard errors the distance of DDIM with four steps to the teacher is."""
        reader = self.benchmark.judges.reader
        rulers = self.benchmark.rulers(Features(reader, reference(reader, _WORLD, _REFERENCE)))
        return floor_rows(rulers.rows("ddim", Sampled(self.model.network, 4, _W), ("mmd_teacher",)))

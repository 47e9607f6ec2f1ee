"""What notebooks 09 to 11 make smaller: the shipped small Stable Diffusion, or a teacher that somebody brings.

The shipped one comes with a world, which knows what every prompt should show, and with finished parts. Another teacher
comes with prompts alone, so its parts are those that are trained here, and its students are measured by the judges'
features, by distances to the teacher's own pictures, and by sharpness.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from diffusers import AutoencoderTiny

from distill_lib.engine import store
from distill_lib.engine.precision import default_device
from distill_lib.experiments.compression import held_out_pairs
from distill_lib.experiments.fitting import fitting, moments_sentence
from distill_lib.experiments.foreign import Foreign, open_foreign, sizes_of
from distill_lib.experiments.text_to_image import shipped_judges
from distill_lib.measure.compression import DECODERS, UNETS
from distill_lib.measure.prompts import Judges, PromptBenchmark
from distill_lib.networks.adapter import Network, Trained
from distill_lib.networks.paper_cut import paper_cut
from distill_lib.networks.pipeline import TextToImage
from distill_lib.networks.pruning import Cut
from distill_lib.networks.sdxl import TextToImageXL
from distill_lib.profiles import Profile, Small, Text
from distill_lib.sdxs.tiny_decoder import tiny_decoder
from distill_lib.sdxs.tiny_unet import CUT, cut_network, small_unet
from distill_lib.shipped import pretrained
from distill_lib.shipped.export import export_decoder, export_plain
from distill_lib.teachers.latents import Pairs
from distill_lib.worlds.seeds import training_seed

_PAPER_DECODER = "eq. 5"
_AS_THE_PAPER = {"width": 64, "blocks": 3}  # of the decoder for Stable Diffusion, 1,222,531 weights


@dataclass(frozen=True, kw_only=True)
class SdxsTask:
    """A teacher whose parts are made smaller, under one profile and seed.

    Args:
        text: how the teacher is asked: steps and strength.
        sizes: of the trainings.
        seed: of prompts, noise and training.
        source: what results call their data: the world, or the teacher.
        parents: keys of all that the results rest on besides weights that are read.
        suffix: what the names of the results end in; empty for the shipped teacher.
        benchmark: prompts and judges; its `model` is the teacher.
        pairs: the teacher's answers that are trained on.
        cut: what is removed of the U-Net.
        held_by: makes latents of prompts that are measured, from noise that no training sees.
    """

    text: Text
    sizes: Small
    seed: int
    source: str
    parents: list[str]
    suffix: str
    benchmark: PromptBenchmark
    pairs: Pairs
    cut: Cut
    held_by: Callable[[list[str]], Pairs]

    @property
    def model(self) -> TextToImage:
        """The teacher."""
        return self.benchmark.model

    @property
    def shipped(self) -> bool:
        """Whether the teacher is the shipped one."""
        return not self.suffix

    @cached_property
    def held(self) -> Pairs:
        """Latents of the benchmark's prompts from noise that no training sees."""
        return self.held_by(self.benchmark.prompts)

    def cut_network(self, inherit: bool = True, seed: int = 0) -> Network:
        """The U-Net after the cut, ready to be trained, with the teacher's weights or with random ones."""
        return cut_network(self.model.network, self.cut, inherit, seed)

    @property
    def unets(self) -> dict[str, dict[str, Any]]:
        """What `small_unet` is called with, by the name of the row: of another teacher the paper's own loss alone."""
        return UNETS if self.shipped else {self.unet_name: UNETS[self.unet_name]}

    def small_unet(self, *, inherit: bool = True, lambda_f: float = 1.0, denoising: float = 0.0) -> Trained:
        """The cut U-Net after its training on the first pairs; arguments as in `cut_network` and
        `tiny_unet.small_unet`."""
        settings, pairs = self.sizes.unet.with_seed(self.seed), self.pairs.part(0, self.sizes.pairs)
        return small_unet(self.cut_network(inherit, settings.seed), pairs, settings, lambda_f, denoising)

    @property
    def unet_name(self) -> str:
        """What 10 calls the small U-Net that 11 goes on from."""
        return "shipped" if self.shipped else "OKD + FKD"

    def finished_unet(self) -> Network:
        """The small U-Net that 11 goes on from: the shipped one, or the one that 10 trains of another teacher."""
        if self.shipped:
            return pretrained.tiny_unet(self.text.pipeline, self.model)
        return self.small_unet().net

    @property
    def factor(self) -> int:
        """Pixels that a latent covers, along a side."""
        return 2 ** (len(self.model.pipe.vae.config.block_out_channels) - 1)

    @property
    def decoders(self) -> dict[str, dict[str, Any]]:
        """What `tiny_decoder` is called with, by the name of the row: of another teacher what needs no shipped network
        of features, the paper's loss beside squares of every pixel."""
        return DECODERS if self.shipped else {name: DECODERS[name] for name in (_PAPER_DECODER, "squares")}

    def tiny_decoder(self, **choice: Any) -> AutoencoderTiny:
        """A tiny decoder trained on the first pairs; `choice` are arguments of `tiny_decoder.tiny_decoder`."""
        pairs, settings = self.pairs.part(0, self.sizes.pairs), self.sizes.decoder.with_seed(self.seed)
        choice = {"critic": self.sizes.critic} | choice
        if self.shipped:
            parents = {name: pretrained.made(name)["weights"] for name in ("pairs-scenes", "matcher-cnn")}
            return tiny_decoder(pairs, parents, settings, matcher=pretrained.matcher("cnn"), **choice)[0]
        choice |= {"factor": self.factor} | _AS_THE_PAPER
        return tiny_decoder(pairs, {}, settings, **choice)[0].to(default_device())

    @property
    def decoder_name(self) -> str:
        """What 09 calls the tiny decoder that 11 draws through."""
        return "shipped" if self.shipped else _PAPER_DECODER

    def finished_decoder(self) -> AutoencoderTiny:
        """The tiny decoder that 11 draws through: the shipped one, or the one that 09 trains of another teacher."""
        if self.shipped:
            return pretrained.tiny_decoder(self.text.pipeline)
        return self.tiny_decoder(**DECODERS[_PAPER_DECODER])

    def one_step(self, trained: Trained | None) -> tuple[Network, Path]:
        """The student of one step, and its folder for diffusers: the shipped one, or the one trained here."""
        if self.shipped:
            name = self.text.pipeline
            return pretrained.one_step(name, self.model), pretrained.shipped_folder(f"onestep-{name}")
        return trained.net, self.export(trained.net, "onestep", 1)

    def export_decoder(self, tiny: AutoencoderTiny) -> Path:
        """Write a tiny decoder as diffusers' AutoencoderTiny below `runs/students`; its place is printed."""
        folder = store.RUNS / "students" / f"decoder{self.suffix}"
        export_decoder(folder, tiny, f"Distilled from the decoder of {self.source} by notebook 09.")
        print(f"a folder for diffusers: {folder}")
        return folder

    def export(self, net: Network, kind: str, n_steps: int) -> Path:
        """Write a student of another teacher as a folder of diffusers below `runs/students`; its place is printed."""
        folder = store.RUNS / "students" / f"{kind}{self.suffix}"
        made = f"Distilled from {self.source} by notebook {'10' if kind == 'small' else '11'}."
        described = made + moments_sentence(self.sizes)
        options = {"description": described, "n_steps": n_steps, "prompt": self.benchmark.prompts[0]}
        export_plain(folder, self.model.pipe, net, **options)
        print(f"a folder for diffusers: {folder}")
        return folder


def sdxs_task(
    settings: Profile, seed: int, teacher: str = "", prompts: str = "", judges: Judges | str = ""
) -> SdxsTask:
    """What a profile makes smaller: the shipped teacher, or with `teacher` or `prompts` another one.

    Args:
        settings: the profile.
        seed: of prompts, noise and training.
        teacher: a folder or hub id; if it is empty and there are prompts, that of the profile's `other`.
        prompts: the text file of a teacher that is not shipped.
        judges: what measures it, or the folder of the foreign judges, as in `judges.foreign_judges`.

    Raises:
        ValueError: as `foreign.sizes_of`, `foreign.open_foreign` and `task_of`, before anything is drawn.
    """
    text = sizes_of(settings, teacher, prompts)
    if text is None:
        return _shipped(settings, seed)
    return task_of(open_foreign(text, seed, prompts, judges), (settings.other or settings).small)


def timed_task(
    settings: Profile, seed: int, teacher: str = "", prompts: str = "", judges: Judges | str = ""
) -> SdxsTask:
    """`sdxs_task` of a teacher with one text encoder: what 14 times has three modules.

    Raises:
        ValueError: as `sdxs_task`, or it is a Stable Diffusion XL, before anything is drawn.
    """
    text = sizes_of(settings, teacher, prompts)
    if text is None:
        return _shipped(settings, seed)
    foreign = open_foreign(text, seed, prompts, judges)
    if isinstance(foreign.model, TextToImageXL):
        raise ValueError(
            f"teacher={text.pipeline!r} is a Stable Diffusion XL, and 14 times text encoder, U-Net and decoder, one of "
            "each; `make true-scale` has SDXL's modules, and 11 its student"
        )
    return task_of(foreign, (settings.other or settings).small)


def task_of(foreign: Foreign, sizes: Small) -> SdxsTask:
    """What is made smaller of a teacher that is open: it draws what its parts are trained on.

    Raises:
        ValueError: as `paper_cut.paper_cut`, before anything is drawn.
    """
    cut, drawn = paper_cut(foreign.model.network.module), foreign.drawn(sizes.pairs)
    return SdxsTask(
        text=foreign.sizes,
        sizes=fitting(sizes, foreign.model),
        seed=foreign.seed,
        source=foreign.sizes.pipeline,
        parents=drawn.parents,
        suffix=drawn.suffix,
        benchmark=foreign.benchmark(sizes.prompts),
        pairs=drawn.pairs,
        cut=cut,
        held_by=foreign.held,
    )


def _shipped(settings: Profile, seed: int) -> SdxsTask:
    latent, sizes = settings.latent, settings.small
    model = pretrained.pipeline(latent.pipeline)
    more = pretrained.pair_prompts({"count": sizes.more_prompts, "seed": training_seed(seed)}, model)
    pairs = replace(pretrained.pairs(latent.pipeline, model), more=more)
    arguments = latent.world, sizes.prompts, latent.teacher_steps, latent.w, seed
    benchmark = PromptBenchmark(model, shipped_judges(), *arguments)
    return SdxsTask(
        text=latent,
        sizes=sizes,
        seed=seed,
        source=latent.world,
        parents=[],
        suffix="",
        benchmark=benchmark,
        pairs=pairs,
        cut=CUT,
        held_by=lambda prompts: held_out_pairs(latent.pipeline, model, prompts, seed),
    )

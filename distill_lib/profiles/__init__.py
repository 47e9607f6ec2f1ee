"""Profiles: every size of every run in one validated model, one YAML file a profile. No code branches on a name.

`load("quick")` reads `quick.yaml`; the environment variable DISTILL_PROFILE overrides the name (nbval cannot pass
parameters to a notebook), DISTILL_FIGURES the folder that artefacts are written to.
"""

import os
from pathlib import Path
from typing import Literal

from pydantic import Field, ValidationError, model_validator

from distill_lib.diffusion.schedules import OURS
from distill_lib.engine.bounds import Count, Number, Positive
from distill_lib.engine.loop import TrainSettings
from distill_lib.engine.messages import short
from distill_lib.paths import suffix_of
from distill_lib.profiles.fields import Counts, Strengths, Strict, Training, World, Worlds
from distill_lib.profiles.reading import read_yaml, sentence
from distill_lib.profiles.sdxs import Control, Lora, Small
from distill_lib.worlds.pictures import REAL, DatasetSpec, data_name
from distill_lib.worlds.pictures import load as load_pictures

_FOLDER = Path(__file__).parent


def _powers(least: int, below: int) -> set[int]:
    """The powers of two from `least` on, below `below`."""
    return {1 << i for i in range(below.bit_length()) if least <= 1 << i < below}


class Sizes(Strict):
    """How much is measured."""

    pictures: Count = Field(description="training pictures rendered for live training")
    samples: Count = Field(description="pictures behind each metric; the paper takes 50,000, as far as we recall")
    teacher_steps: Count = Field(description="of the many-step teacher; the paper takes 1,024, as far as we recall")
    repeats: Count = Field(description="timed repeats of a sampler, of which the median is kept")
    timed: Count = Field(description="pictures of a timed batch")
    stride: Count = Field(le=8, description="of the map of stage one's error: 1 takes all 16 times and 8 strengths")


class Hardness(Strict):
    """The worlds compared in g-hardness, and the short halving whose advantage is measured on each."""

    worlds: Worlds
    samples: Count = Field(description="pictures behind each metric")
    steps: Counts
    start: Count = Field(description="steps of the teacher that is halved first")
    training: TrainSettings


class Transfer(Strict):
    """Style transfer: what is encoded and decoded, and how its networks are halved."""

    worlds: tuple[World, World] = Field(description="two looks of one world: from the first to the second")
    samples: Count = Field(description="pictures behind each metric")
    steps: Counts = Field(description="of the encoder and of the decoder, powers of two")
    start: Count = Field(description="steps up of the teacher that the first encoder learns from")
    ws: Strengths = Field(description="guidance strengths of the decoder; 1 is the one of the figures")
    halving: TrainSettings = Field(description="of the encoders; decoders are halved as everywhere")


class Text(Strict):
    """A text-to-image teacher, what is asked of it, and how it is distilled."""

    pipeline: str = Field(description="a shipped small Stable Diffusion; of another teacher its folder or hub id")
    prompts: Count = Field(description="prompts, and pictures behind each metric")
    teacher_steps: Count
    w: Number = Field(description="strength of the teacher that stands for the truth")
    ws: Strengths
    pairs: Count = Field(description="of noise and teacher's picture: for regression, or where no pictures come")
    stage_one: Training = Field(description="live stage one: the first steps, from the teacher; else all of it")
    start: Count = Field(description="steps of stage one's student, halved first")
    students: Counts = Field(description="steps of the students that are measured")
    halving: Training


class Latent(Text):
    """The shipped one, whose world is known: how hard it is, and how its pictures are edited."""

    world: World
    pictures: Count = Field(description="captioned pictures that text-to-image and inpainting are halved on")
    steps: Counts = Field(description="of the plain samplers; g-hardness-latent is read at 4")
    regression: TrainSettings = Field(description="of the one-step student, on pairs")
    edits: Count = Field(description="scenes that are edited, for each kind of edit")
    inpainting: TrainSettings = Field(description="of each halving of the inpainting network")


class Other(Text):
    """Another teacher, with its own sizes of SDXS: its networks are larger than the shipped ones."""

    small: Small
    lora: Lora
    control: Control


class Ablations(Strict):
    """The choices of the method, each varied alone."""

    world: World = Field(description="of all of them; an easy one lets many networks be trained to the end")
    samples: Count = Field(description="pictures behind each metric")
    ranges: list[Positive] = Field(description="ends of the range of w; the paper tries several, see the notebook")
    start: Count = Field(description="steps of the network that is halved first")
    until: Count = Field(description="steps of the student that is measured")
    stage_one: TrainSettings
    halving: TrainSettings
    heads_channels: tuple[Count, ...] = Field(description="channels of the networks of g-abl-weighting")
    heads: TrainSettings


class Rulers(Strict):
    """Metrics without a floor, and how they are tried on known damage."""

    reference: Count = Field(ge=2, description="real pictures behind the moments that FID and z-scores are taken to")
    samples: Count = Field(ge=32, description="pictures of a set")
    independent: Count = Field(ge=32, description="samples of a network behind fid_inf and mmd_teacher")
    systems: Count = Field(ge=32, description="pictures of a system of Table 3 behind fid_inf and recall, in 14")
    sets: Count = Field(ge=4, description="untouched sets, which say how far a value moves by chance")
    strengths: Count = Field(le=4, description="of each kind of damage, from the strongest down")


class Successors(Strict):
    """What came after guided distillation, beside it at equal cost: one network for all steps, and adapters."""

    samples: Count = Field(description="pictures behind each metric")
    ws: Strengths
    mixtures: list[Literal["shortcut", "shortcut-own"]] = Field(min_length=1, description="of the two targets")
    rank: Count = Field(description="of the adapters, which are trained as long as live stage one")
    adapter_lr: Positive


class Profile(Strict):
    """All settings of the guided-distillation notebooks."""

    name: str
    about: str
    world: World
    ws: Strengths
    steps: Counts
    baseline_steps: list[Count] = Field(description="steps of the plain samplers, beyond those of the students")
    ancestral: Counts = Field(description="steps of the ancestral sampler, of which no claim says anything")
    sizes: Sizes
    toy: TrainSettings
    stage_one: TrainSettings = Field(description="live stage one: the first steps, from the teacher")
    halving_start: Count = Field(description="steps of stage one's student, halved first; the paper's 1,024, we recall")
    halving: TrainSettings
    halving_last: TrainSettings = Field(description="the halvings to 2 and to 1 step, which take twice as long")
    reuse: Count = Field(ge=1, description="updates that a batch of a halving and its target serve")
    hardness: Hardness
    single_w: list[Number] = Field(description="strengths that get a chain of students of their own")
    sensitivity: TrainSettings = Field(description="one halving, repeated with one setting changed at a time")
    ablations: Ablations
    transfer: Transfer
    latent: Latent = Field(description="the shipped text-to-image teacher")
    small: Small
    lora: Lora
    control: Control
    rulers: Rulers
    successors: Successors
    other: Other | None = Field(default=None, description="another teacher, which comes with a file of prompts")

    def halving_settings(self, n_steps: int, seed: int) -> TrainSettings:
        """Settings of the halving to n_steps, with a seed of its own."""
        return (self.halving if n_steps > 2 else self.halving_last).with_seed(1000 * seed + n_steps)

    @property
    def extractor(self) -> str:
        """The shipped network behind the metrics."""
        return self.world if self.world in REAL else "scenes"

    @property
    def data(self) -> str:
        """What results call their data: the world; of real data also the hash of its pictures."""
        return data_name(self.world)

    @property
    def suffix(self) -> str:
        """What the names of artefacts of real data end in."""
        return suffix_of(self.world if self.world in REAL else "")

    @model_validator(mode="after")
    def _steps_halve(self) -> "Profile":
        """Halving reaches one step only from a power of two, and only students that it passes can be measured."""
        for field, start in (("halving_start", self.halving_start), ("hardness.start", self.hardness.start)):
            if start not in _powers(8, OURS.T):  # the student of 4 steps is shown everywhere
                raise ValueError(f"{field}={start} should be a power of two from 8 to {OURS.T // 2}")
        if 8 not in self.hardness.steps:
            raise ValueError(f"hardness.steps={self.hardness.steps} should hold 8, by which the worlds are compared")
        if not _powers(1, self.halving_start).issuperset(self.steps):
            raise ValueError(f"steps={self.steps}: students have powers of two below {self.halving_start}")
        way, plan = self.transfer, self.ablations
        if not _powers(2, self.halving_start).issuperset(way.steps):
            raise ValueError(f"transfer.steps={way.steps}: powers of two from 2, below {self.halving_start}")
        if way.start not in _powers(2 * max(way.steps), OURS.T + 1):
            raise ValueError(f"transfer.start={way.start} should be a power of two, at least twice {max(way.steps)}")
        if plan.start not in _powers(4, 2 * OURS.T) or plan.until not in _powers(1, plan.start // 2):
            raise ValueError(f"ablations: from start={plan.start} to until={plan.until} takes two halvings or more")
        for text in (self.latent, *([self.other] if self.other else [])):
            n = text.start
            if n not in _powers(8, n + 1) or not _powers(1, n).issuperset(text.students):
                raise ValueError(f"{text.pipeline}: start={n} and students={text.students} should be powers of two")
            if 4 not in text.students or text.w not in text.ws or text.prompts < 14:
                raise ValueError(f"{text.pipeline}: students need 4, ws={text.ws} need w={text.w}, prompts at least 14")
        if not {0.0, self.control.share} <= set(self.control.shares) or self.control.noises < 2:
            raise ValueError(
                f"control: shares={self.control.shares} need 0 and {self.control.share}; noises at least 2"
            )
        if not plan.ranges or min(plan.ranges) > 4:
            raise ValueError(f"ablations.ranges={plan.ranges} should hold one of at most 4")
        return self


def names() -> list[str]:
    """The profiles that exist."""
    return sorted(p.stem for p in _FOLDER.glob("*.yaml"))


def load(name: str, dataset: str = "") -> Profile:
    """A profile by name, DISTILL_PROFILE overrides it; for real data (a name of REAL) instead of its world, if named.

    Real data is measured on no more than half of its test pictures, since it is compared with the other half.

    Raises:
        ValueError: there is no such profile or dataset, or the profile's file is not valid; or the files of real data
            that DISTILL_FOLDER holds are not.
    """
    if dataset and dataset not in REAL:
        raise ValueError(f"dataset={short(dataset)} is unknown; choose one of {', '.join(REAL)}, or leave it empty")
    name = os.environ.get("DISTILL_PROFILE") or name
    if name not in names():
        raise ValueError(f"profile={short(name)} is unknown; choose one of {', '.join(names())}")
    settings = read_yaml(_FOLDER / f"{name}.yaml")
    if "name" in settings:
        raise ValueError(f"{name}.yaml: name is that of the file; remove it")
    try:
        profile = Profile.model_validate(settings | {"name": name})
    except ValidationError as error:
        raise ValueError(sentence(error, f"{name}.yaml")) from error
    return _of_real_data(profile, dataset) if dataset else profile


def _of_real_data(profile: Profile, dataset: str) -> Profile:
    half = 5000  # of the test pictures of Fashion-MNIST and of CIFAR-10
    if os.environ.get("DISTILL_FOLDER"):
        half = max(1, len(load_pictures(DatasetSpec(name=dataset, split="test"))) // 2)
    of = lambda part: {"samples": min(part.samples, half)}  # noqa: E731
    sizes = profile.sizes.model_copy(update=of(profile.sizes))
    hardness = profile.hardness.model_copy(update=of(profile.hardness) | {"worlds": [dataset]})
    return profile.model_copy(update={"world": dataset, "sizes": sizes, "hardness": hardness})

"""Text-to-image as the notebooks set it up: teacher, judges, prompts, training data, and where distillation starts.

The shipped small Stable Diffusion comes with pictures, attributes and a finished stage one. Any other folder or hub id
comes with prompts in a text file and with nothing else (`foreign`): it is distilled on its own samples.

Differs from the paper: Stable Diffusion is distilled there on the pictures that it was trained on.
"""

from dataclasses import dataclass
from functools import partial

from distill_lib.experiments.fitting import fitting, moments_sentence
from distill_lib.experiments.foreign import open_foreign, sizes_of
from distill_lib.measure.metrics import Reader
from distill_lib.measure.prompts import Judges, PromptBenchmark, alignment
from distill_lib.networks.adapter import Network
from distill_lib.networks.pipeline import Latents, TextToImage
from distill_lib.profiles import Latent, Profile, Text
from distill_lib.shipped import pretrained
from distill_lib.teachers.latents import latent_pictures


@dataclass(frozen=True, kw_only=True)
class Task:
    """What is distilled, and from where.

    Args:
        sizes: sizes and settings.
        source: name of the teacher.
        parents: keys of all that the results rest on, the teacher's first.
        suffix: what the names of the results end in: teacher and prompts; empty for a shipped teacher.
        model: the teacher.
        benchmark: prompts, and what their pictures are compared with.
        pictures: training data.
        w_max: end of the range of strengths.
        first: a finished student of stage one and its key, where there is one.
        curve: how its loss fell, (step, loss).
    """

    sizes: Text
    source: str
    parents: list[str]
    suffix: str
    model: TextToImage
    benchmark: PromptBenchmark
    pictures: Latents
    w_max: float
    first: tuple[Network, str] | None = None
    curve: tuple[tuple[float, float], ...] = ()

    def described(self, profile: str) -> str:
        """What the card of a student says of how it was made."""
        return f"Distilled from {self.source}, profile {profile}.{moments_sentence(self.sizes)}"


def shipped_judges() -> Judges:
    """What measures pictures of our world of two objects; raises as `pretrained.extractor`."""
    clip = partial(alignment, pretrained.clip())
    return Judges(Reader(pretrained.extractor("captioned")), clip, pretrained.attribute_reader())


def task(
    settings: Profile,
    seed: int,
    teacher: str = "",
    prompts: str = "",
    judges: Judges | str = "",
) -> Task:
    """What a profile distils: the shipped teacher, or with `teacher` or `prompts` another one.

    Args:
        settings: the profile.
        seed: of prompts and noise.
        teacher: a folder or hub id; if it is empty and there are prompts, that of the profile's `other`.
        prompts: the text file of a teacher that is not shipped.
        judges: what measures, instead of the shipped or the foreign ones; or the folder of the foreign ones, as in
            `judges.foreign_judges`.

    Raises:
        ValueError: as `foreign.sizes_of` and `foreign.open_foreign`.
    """
    sizes = sizes_of(settings, teacher, prompts)
    if sizes is None:
        return _shipped(settings.latent, seed, judges)
    return _foreign(sizes, seed, prompts, judges)


def _shipped(sizes: Latent, seed: int, judges: Judges | str) -> Task:
    names = [f"{kind}-{sizes.pipeline}" for kind in ("pipeline", "textstudent")]
    model, made = pretrained.pipeline(sizes.pipeline), pretrained.made(names[1])
    keys = [pretrained.key(name) for name in (*names, "attributes-scenes", "clip-judge", "extractor-captioned")]
    arguments = sizes.world, sizes.prompts, sizes.teacher_steps, sizes.w, seed
    return Task(
        sizes=sizes,
        source=names[0],
        parents=keys,
        suffix="",
        model=model,
        benchmark=PromptBenchmark(model, shipped_judges() if isinstance(judges, str) else judges, *arguments),
        pictures=latent_pictures(model, keys[0], sizes.world, sizes.pictures, 1),
        w_max=made["config"]["w_max"],
        first=(pretrained.text_student(sizes.pipeline, model), made["weights"]),
        curve=tuple((step, loss) for step, loss, _ in made["curve"]),
    )


def _foreign(sizes: Text, seed: int, prompts: str, judges: Judges | str) -> Task:
    foreign = open_foreign(sizes, seed, prompts, judges)
    sizes, drawn = fitting(sizes, foreign.model), foreign.drawn(sizes.pairs)
    return Task(
        sizes=sizes,
        source=sizes.pipeline,
        parents=drawn.parents,
        suffix=drawn.suffix,
        model=foreign.model,
        benchmark=foreign.benchmark(sizes.prompts),
        pictures=Latents(drawn.pairs.x, drawn.pairs.prompts, foreign.model),
        w_max=max(sizes.ws),
    )

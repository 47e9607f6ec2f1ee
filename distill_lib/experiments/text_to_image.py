"""Text-to-image as the notebooks set it up: teacher, judges, prompts, training data, and where distillation starts.

The shipped small Stable Diffusion comes with pictures, attributes and a finished stage one. Any other folder or hub id
of the shape of Stable Diffusion comes with prompts in a text file, a line each, and with nothing else: the first of
them are measured, and the others are distilled on, by the teacher's own samples.

Differs from the paper: Stable Diffusion is distilled there on the pictures that it was trained on.
"""

import codecs
import hashlib
import re
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch

from distill_lib.measure.judges import foreign_judges
from distill_lib.measure.metrics import Reader
from distill_lib.measure.prompts import Judges, PromptBenchmark, alignment
from distill_lib.networks.adapter import Network
from distill_lib.networks.pipeline import Latents, TextToImage, open_pipeline
from distill_lib.profiles import Latent, Profile, Text
from distill_lib.shipped import pretrained
from distill_lib.teachers.latents import latent_pictures, teacher_pairs
from distill_lib.worlds.seeds import training_seed


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


def shipped_judges() -> Judges:
    """What measures pictures of our world of two objects; raises as `pretrained.extractor`."""
    clip = partial(alignment, pretrained.clip())
    return Judges(Reader(pretrained.extractor("captioned")), clip, pretrained.attribute_reader())


def prompts_of(path: str, measured: int) -> tuple[list[str], list[str]]:
    """Prompts of a text file, a line each: the first `measured` ones, and the others.

    Raises:
        ValueError: there is no such file, it is no text, or it holds too few different prompts.
    """
    if not path:
        raise ValueError("a teacher of your own needs prompts=, a text file, a prompt a line; '' is not a file")
    try:
        data = Path(path).expanduser().read_bytes()
    except OSError as error:
        raise ValueError(
            f"prompts={path!r} cannot be read ({error.strerror}); name a text file, a prompt a line"
        ) from error
    if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)) or b"\0" in data:
        raise ValueError(f"{path} is no text file in UTF-8 but in UTF-16, or no text at all; save it as UTF-8")
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is no text file in UTF-8: {error}; save it as UTF-8") from error
    # str.splitlines would cut at U+0085 and U+2028 as well, inside a prompt
    lines = list(dict.fromkeys(line.strip() for line in re.split(r"\r\n|\r|\n", text) if line.strip()))
    if len(lines) <= measured:
        raise ValueError(f"{path} holds {len(lines)} prompts; {measured} are measured, and at least one more is needed")
    return lines[:measured], lines[measured:]


def task(
    settings: Profile,
    seed: int,
    teacher: str = "",
    prompts: str = "",
    judges: Judges | None = None,
    judges_from: str = "",
) -> Task:
    """What a profile distils: the shipped teacher, or with `teacher` or `prompts` another one.

    Args:
        settings: the profile.
        seed: of prompts and noise.
        teacher: a folder or hub id; if it is empty and there are prompts, that of the profile's `other`.
        prompts: the text file of a teacher that is not shipped.
        judges: what measures, instead of the shipped or the foreign ones.
        judges_from: the folder of the foreign ones, as in `judges.foreign_judges`.

    Raises:
        ValueError: as `prompts_of`, `judges.foreign_judges`, `pipeline.open_pipeline` and `TextToImage.check`;
            prompts without a teacher.
    """
    if not teacher and not prompts:
        return _shipped(settings.latent, seed, judges)
    if not teacher and settings.other is None:
        raise ValueError(f"prompts={prompts!r} needs teacher=, a folder or hub id: {settings.name} names no other one")
    sizes = settings.other or settings.latent
    return _foreign(
        sizes.model_copy(update={"pipeline": teacher or sizes.pipeline}), seed, prompts, judges, judges_from
    )


def _shipped(sizes: Latent, seed: int, judges: Judges | None) -> Task:
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
        benchmark=PromptBenchmark(model, judges or shipped_judges(), *arguments),
        pictures=latent_pictures(model, keys[0], sizes.world, sizes.pictures, 1),
        w_max=made["config"]["w_max"],
        first=(pretrained.text_student(sizes.pipeline, model), made["weights"]),
        curve=tuple((step, loss) for step, loss, _ in made["curve"]),
    )


def _foreign(sizes: Text, seed: int, prompts: str, judges: Judges | None, judges_from: str) -> Task:
    measured, others = prompts_of(prompts, sizes.prompts)
    judges = judges or foreign_judges(judges_from)
    model = open_pipeline(sizes.pipeline)
    model.check([*measured, *others])
    black = torch.zeros(1, 3, 64, 64, dtype=torch.uint8)
    judges.clip(black, [max(measured, key=len)])  # what fails, fails before hours of drawing
    name = f"{sizes.pipeline}-{model.fingerprint}"
    arguments = "", sizes.prompts, sizes.teacher_steps, sizes.w, seed
    training_prompts = [others[i % len(others)] for i in range(sizes.pairs)]
    words = hashlib.sha256("\n".join([*measured, "", *training_prompts]).encode()).hexdigest()
    own = teacher_pairs(model, training_prompts, sizes.teacher_steps, sizes.w, training_seed(seed), name)
    data = hashlib.sha256(own.x.numpy().tobytes() + "\n".join(training_prompts).encode()).hexdigest()[:12]
    stem = Path(sizes.pipeline).expanduser()
    stem = stem.resolve() if stem.is_dir() else stem  # "." has no name
    slug = re.sub(r"[^a-z0-9]+", "-", stem.name.lower()).strip("-")[:40] or "teacher"
    return Task(
        sizes=sizes,
        source=sizes.pipeline,
        parents=[f"{name}-on-{data}", f"prompts-{words}"],
        suffix=f"-{slug}-{model.fingerprint[:6]}-{words[:6]}",
        model=model,
        benchmark=PromptBenchmark(model, judges, *arguments, prompts=measured),
        pictures=Latents(own.x, training_prompts, model),
        w_max=max(sizes.ws),
    )

"""A teacher that somebody brings: a folder or hub id of the shape of Stable Diffusion, and prompts in a text file.

It comes with nothing else: the first prompts are measured, and students are distilled on what the teacher itself draws
for the others.
"""

import codecs
import hashlib
import re
from dataclasses import dataclass
from pathlib import Path

import torch

from distill_lib.measure.judges import foreign_judges
from distill_lib.measure.prompts import Judges, PromptBenchmark
from distill_lib.networks.pipeline import TextToImage
from distill_lib.networks.sdxl import open_teacher
from distill_lib.profiles import Profile, Text
from distill_lib.teachers.latents import Pairs, teacher_pairs
from distill_lib.worlds.seeds import held_out_seed, training_seed


def sizes_of(settings: Profile, teacher: str, prompts: str) -> Text | None:
    """The sizes of another teacher, which they name; None where neither a teacher nor prompts are given.

    Raises:
        ValueError: prompts without a teacher, at a profile that names none.
    """
    if not teacher and not prompts:
        return None
    if not teacher and settings.other is None:
        raise ValueError(f"prompts={prompts!r} needs teacher=, a folder or hub id: {settings.name} names no other one")
    sizes = settings.other or settings.latent
    return sizes.model_copy(update={"pipeline": teacher or sizes.pipeline})


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


@dataclass(frozen=True)
class Drawn:
    """What a teacher has drawn for training, the keys of what that rests on, and what the names of results end in."""

    pairs: Pairs
    parents: list[str]
    suffix: str


@dataclass(frozen=True)
class Foreign:
    """Somebody's teacher, opened and checked, with the prompts that are measured and the others."""

    sizes: Text
    seed: int
    model: TextToImage
    judges: Judges
    measured: list[str]
    others: list[str]

    @property
    def name(self) -> str:
        """Where the teacher came from, and its fingerprint."""
        return f"{self.sizes.pipeline}-{self.model.fingerprint}"

    def benchmark(self, count: int) -> PromptBenchmark:
        """The first `count` of the measured prompts, or all where they are fewer, with the judges."""
        prompts = self.measured[:count]
        arguments = "", len(prompts), self.sizes.teacher_steps, self.sizes.w, self.seed
        return PromptBenchmark(self.model, self.judges, *arguments, prompts=prompts)

    def drawn(self, count: int) -> Drawn:
        """The teacher's answers to `count` of the other prompts, which are asked again from the start where they are
        fewer."""
        prompts = [self.others[i % len(self.others)] for i in range(count)]
        words = hashlib.sha256("\n".join([*self.measured, "", *prompts]).encode()).hexdigest()
        pairs = self._answers(prompts, training_seed(self.seed))
        data = hashlib.sha256(pairs.x.numpy().tobytes() + "\n".join(prompts).encode()).hexdigest()[:12]
        stem = Path(self.sizes.pipeline).expanduser()
        stem = stem.resolve() if stem.is_dir() else stem  # "." has no name
        slug = re.sub(r"[^a-z0-9]+", "-", stem.name.lower()).strip("-")[:40] or "teacher"
        suffix = f"-{slug}-{self.model.fingerprint[:6]}-{words[:6]}"
        return Drawn(pairs, [f"{self.name}-on-{data}", f"prompts-{words}"], suffix)

    def held(self, prompts: list[str]) -> Pairs:
        """The teacher's answers to prompts that are measured, from noise that is never trained on."""
        return self._answers(prompts, held_out_seed("pairs", self.seed))

    def _answers(self, prompts: list[str], seed: int) -> Pairs:
        return teacher_pairs(self.model, prompts, self.sizes.teacher_steps, self.sizes.w, seed, self.name)


def open_foreign(sizes: Text, seed: int, prompts: str, judges: Judges | str = "") -> Foreign:
    """The teacher `sizes.pipeline` with its prompts and judges; whatever fails, fails before anything is drawn.

    Args:
        sizes: how many prompts are measured, and by how many steps and at which strength the teacher answers.
        seed: of prompts and noise.
        prompts: the text file.
        judges: what measures, or the folder of the foreign judges, as in `judges.foreign_judges`.

    Raises:
        ValueError: as `prompts_of`, `judges.foreign_judges`, `sdxl.open_teacher` and `TextToImage.check`.
    """
    measured, others = prompts_of(prompts, sizes.prompts)
    judges = foreign_judges(judges) if isinstance(judges, str) else judges
    model = open_teacher(sizes.pipeline)
    model.check([*measured, *others])
    judges.clip(torch.zeros(1, 3, 64, 64, dtype=torch.uint8), [max(measured, key=len)])
    return Foreign(sizes, seed, model, judges, measured, others)

"""A LoRA file that somebody brings with a teacher: the teacher's student of one step learns it, as notebook 12 says.

    offline, and the teacher behind the pairs     with the LoRA merged                      SDXS, Fig. 4
    online                                        starts as the teacher without it
    student                                       of notebook 11, frozen; learns a LoRA of its own

No picture of the style is known but the teacher's own with the LoRA, and students are measured beside these.
"""

import hashlib
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

from torch import Tensor

from distill_lib.engine import store
from distill_lib.experiments.finished import finished
from distill_lib.experiments.foreign import open_foreign, sizes_of
from distill_lib.experiments.own_part import OwnPart
from distill_lib.experiments.sdxs_task import task_of
from distill_lib.measure.prompts import Judges, PromptBenchmark
from distill_lib.measure.rows import Row
from distill_lib.networks.lora import Lora, check_base, styled, with_adapter
from distill_lib.networks.lora_files import load_lora, save_lora
from distill_lib.networks.pipeline import TextToImage
from distill_lib.profiles import Lora as Sizes
from distill_lib.profiles import Profile
from distill_lib.sdxs.lora import TrainedLora
from distill_lib.sdxs.score_distillation import fit_by_scores
from distill_lib.teachers.latents import Pairs, teacher_pairs
from distill_lib.worlds.seeds import training_seed


@dataclass(frozen=True)
class OwnStyle(OwnPart):
    """A teacher's student of one step and a LoRA of the teacher, under one profile and seed."""

    kind = "lora"
    lora: Lora
    sizes: Sizes

    @cached_property
    def digest(self) -> str:
        """Of the weights; as `OwnPart.digest`."""
        digest = hashlib.sha256()
        for name, value in sorted(self.lora.items()):
            digest.update(name.encode() + value.numpy().tobytes())
        return digest.hexdigest()[:12]

    @cached_property
    def styled(self) -> TextToImage:
        """The teacher with the LoRA."""
        return styled(self.job.model, (self.lora, 1.0))

    @cached_property
    def pairs(self) -> Pairs:
        """The teacher's answers with the LoRA, to the prompts and the noise that the student has trained from."""
        text, prompts = self.job.text, self.job.pairs.prompts[: self.sizes.pairs]
        arguments = text.teacher_steps, text.w, training_seed(self.job.seed), f"{self.source}, {self.digest}"
        return teacher_pairs(self.styled, prompts, *arguments)

    def trained(self) -> TrainedLora:
        """The student's own LoRA, by Algorithm 1 with the placement of the paper."""
        seed, plain, style = self.job.seed, self.job.model.network, self.styled.network
        adapted = with_adapter(self.student, self.sizes.rank, seed)
        scoring = self.sizes.scores.of_run(seed, self.job.text.w)
        fitted = fit_by_scores(adapted, self.pairs, self.trials.cost("matching"), scoring, (style, plain))
        return TrainedLora.of(self.student, finished(fitted))

    @cached_property
    def benchmark(self) -> PromptBenchmark:
        """The prompts, with the styled teacher as the truth."""
        return replace(self.job.benchmark, model=self.styled)

    def rows(self, trained: TrainedLora) -> list[Row]:
        """All metrics beside the styled teacher: of the student before and after, and of that teacher's latents
        through the student's decoder."""
        bench, w = self.benchmark, self.benchmark.w
        net, rows = self.styled.network, []
        for name, student in {"no LoRA": self.student, "one-step LoRA": trained.net}.items():
            rows += bench.rows(name, student, 1, 0.0, truth_w=w)
        through = net.like(net.module, decode=self.student.decode)
        return rows + bench.rows("teacher, tiny decoder", through, bench.teacher_steps, w)

    def pictures(self, trained: TrainedLora) -> dict[str, Tensor]:
        """Pictures uint8 (n, 3, R, R) of the same prompts and noise: before, after, and the styled teacher's."""
        before, after = (self.benchmark.pictures(net, 1, 0.0) for net in (self.student, trained.net))
        return {"no LoRA": before, "one-step LoRA": after, "teacher": self.benchmark.truth()}

    def export(self, trained: TrainedLora) -> tuple[Path, Path]:
        """The student's folder for diffusers, and that of its LoRA in PEFT's format; both places are printed."""
        whole = self.job.export(self.student, "onestep", 1)
        folder = store.RUNS / "students" / f"lora{self.suffix}"
        save_lora(folder, trained.lora)
        print(f"its LoRA, for load_lora_weights: {folder}")
        return whole, folder


def own_style(
    settings: Profile, seed: int, teacher: str, prompts: str, lora: str, judges: Judges | str = ""
) -> OwnStyle:
    """A teacher of one's own, its prompts, and a LoRA file of it.

    Args:
        settings, seed, teacher, prompts: as in `sdxs_task.sdxs_task`.
        lora: a file of PEFT's, diffusers' or kohya's form, or a folder with `pytorch_lora_weights.safetensors`.
        judges: what measures, or the folder of the foreign judges.

    Raises:
        ValueError: as `foreign.open_foreign`, `sdxs_task.task_of`, `lora_files.load_lora` and `lora.check_base`, before
            anything is drawn.
    """
    if not lora:
        raise ValueError("a teacher of your own needs lora=, a LoRA file that was trained on it; '' is no file")
    sizes, read = sizes_of(settings, teacher, prompts), load_lora(Path(lora).expanduser())
    if sizes is None:
        raise ValueError(f"lora={lora!r} needs teacher=, the folder or hub id of the model that it was trained on")
    foreign, own = open_foreign(sizes, seed, prompts, judges), settings.other or settings
    try:
        check_base(foreign.model.network.module, read)
    except ValueError as error:
        raise ValueError(f"lora={lora!r} and teacher={sizes.pipeline!r} do not fit: {error}") from error
    return OwnStyle(task_of(foreign, own.small), read, own.lora)

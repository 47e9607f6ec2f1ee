"""Another teacher's trainings on the memory that is there: whether they keep moments in 8 bits.

    needed = bytes at the worst time + reserve                          by `measure.plan`, moments in float32       (1)
    moments have 8 bits where needed > memory, needed <= memory with them, and bitsandbytes is installed            (2)

Only trainings with savings are asked, which are those of profiles for a GPU. What fits neither way stays as it is, and
`run.plan.check_fits` refuses it with its number.

Two other ways were left. Moments in bfloat16 would stand still: the second changes by a share of 1 - 0.999 an update,
and bfloat16 tells numbers apart that differ by 2^-8. Moments in the machine's memory cross the bus twice an update.
"""

from collections.abc import Iterable, Iterator
from dataclasses import replace
from importlib.util import find_spec
from typing import TypeVar

from distill_lib.engine.loop import FrugalSettings, TrainSettings
from distill_lib.engine.precision import current
from distill_lib.engine.savings import Savings
from distill_lib.measure.plan import GB, Needed, Plan, memory_here, needed
from distill_lib.measure.roles import Architecture
from distill_lib.networks.pipeline import TextToImage
from distill_lib.networks.unet import config_of
from distill_lib.profiles import Small, Text
from distill_lib.sdxs.scoring import Scoring

Part = TypeVar("Part", Text, Small)
Training = TypeVar("Training", TrainSettings, Scoring)
_METHODS = {"stage_one": "stage-one", "halving": "halving", "unet": "small-unet", "scores": "scores"}
RESTING = {"halving": 1}  # the guided pair; finished students wait in the machine's memory (`networks.resting`)
_EIGHT_BITS = "adamw8bit"


def has_eight_bits() -> bool:
    """Whether bitsandbytes is installed."""
    return find_spec("bitsandbytes") is not None


def trainings_of(part: Text | Small) -> Iterator[tuple[str, str, TrainSettings]]:
    """The trainings of a part of a profile that have a plan: field, method and settings. 07 does those of `Text`, 10 to
    13 do those of `Small`."""
    for field, method in _METHODS.items():
        if hasattr(part, field):
            training = getattr(part, field)
            yield field, method, training.settings if isinstance(training, Scoring) else training


def fitted(model: Architecture, method: str, settings: TrainSettings, memory: int) -> tuple[Plan, Needed]:
    """The plan of a training at the teacher's own size of pictures, with moments by (2), and what it needs."""
    pixels, bf16, resting = model.unet["sample_size"] * model.factor, current() == "bf16", RESTING.get(method, 0)
    of = {"pixels": pixels, "batch": settings.batch_size, "bf16": bf16, "resting": resting}
    plan = Plan(method=method, **of, savings=settings.savings)
    need = needed(model, plan)
    open_to = isinstance(settings, FrugalSettings) and settings.savings.optimizer == "adamw" and has_eight_bits()
    if need.whole <= memory or not open_to:
        return plan, need
    few, less = replace(plan, savings=replace(plan.savings, optimizer=_EIGHT_BITS)), need.by(_EIGHT_BITS)
    return (few, less) if less.whole <= memory else (plan, need)


def adopted(part: Part, plans: Iterable[Plan]) -> Part:
    """A part of a profile with the savings of its trainings' plans, which come in the order of `trainings_of`."""
    changed = {}
    for (field, _, settings), plan in zip(trainings_of(part), plans, strict=True):
        if plan.savings != settings.savings:
            changed[field] = _saving(getattr(part, field), plan.savings)
    return part.model_copy(update=changed)


def _saving(training: Training, savings: Savings) -> Training:
    """The same with other savings, the online model alone included; a training without savings stays as it is."""
    if isinstance(training, Scoring):
        before = training.before and _saving(training.before, savings)
        return replace(training, settings=_saving(training.settings, savings), before=before)
    return replace(training, savings=savings) if isinstance(training, FrugalSettings) else training


def fitting(part: Part, model: TextToImage) -> Part:
    """A part of a profile whose trainings keep moments by (2); which have 8 bits is printed.

    No plan is made of a training without savings.
    """
    (where, memory), plans = memory_here(), []
    for _, method, settings in trainings_of(part):
        plan = Plan(method=method, savings=settings.savings)
        if isinstance(settings, FrugalSettings):
            plan, need = fitted(architecture_of(model), method, settings, memory)
            if plan.savings != settings.savings:
                fits = f"{need.whole / GB:.1f} GB of {memory / GB:.1f} on {where}, by the plan"
                print(f"{method}: moments in 8 bits ({_EIGHT_BITS}), since those of float32 do not fit; {fits}")
        plans.append(plan)
    return adopted(part, plans)


def moments_sentence(part: Text | Small) -> str:
    """What a card says of the moments of trainings; nothing where they are float32."""
    few = [method for _, method, settings in trainings_of(part) if settings.savings.optimizer != "adamw"]
    return f" Moments of AdamW in 8 bits by bitsandbytes: {', '.join(few)}." if few else ""


def architecture_of(model: TextToImage) -> Architecture:
    """Of a teacher that is open."""
    texts = [part for part in (model.pipe.text_encoder, getattr(model.pipe, "text_encoder_2", None)) if part]
    configs = [text.config.to_dict() for text in texts]
    return Architecture(unet=config_of(model.network.module), texts=configs, vae=config_of(model.pipe.vae))

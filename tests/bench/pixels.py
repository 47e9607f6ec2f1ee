"""The cases of guided distillation, on the shipped networks of the world `textured`."""

import time
from functools import partial

import torch
from diffusers import UNet2DConditionModel

from bench import plain
from bench.rates import Case, step_of
from distill_lib import profiles
from distill_lib.engine.loop import TrainSettings
from distill_lib.engine.replay import BANK
from distill_lib.engine.store import Run
from distill_lib.guided.halving import Halving, halve_steps
from distill_lib.guided.stage_one import distill_guidance
from distill_lib.measure.draw import BATCH, classes, sample_pictures
from distill_lib.networks.adapter import Network
from distill_lib.networks.unet import student_of
from distill_lib.paths import COMMITTED
from distill_lib.shipped import pretrained
from distill_lib.teachers.denoising import train_teacher
from distill_lib.worlds.pictures import DatasetSpec, load

SIZE, COUNT = 64, 2048
"""Pictures of a batch, and of the data."""


def settings(size: int) -> TrainSettings:
    """A training that does not end, and keeps nothing on the way."""
    return TrainSettings(steps=100_000, batch_size=size, lr=1e-4, checkpoint_seconds=1e9)


def run(kind: str) -> Run:
    """A folder of its own."""
    return Run(f"bench-{kind}", {"at": time.time_ns()}, Run)


def _teacher() -> UNet2DConditionModel:
    return pretrained.teacher("textured")


def _network(unet: UNet2DConditionModel, learns: bool = False) -> Network:
    return Network(unet.requires_grad_(learns), compiled=torch.cuda.is_available())


def _halving(data: object, reuse: int) -> object:
    frozen = _network(student_of(_teacher()))
    halving = Halving(8, settings(SIZE), reuse=reuse)
    return step_of(halve_steps(_network(student_of(_teacher()), True), frozen, data, halving, run("halving")))


def cases() -> list[Case]:
    """Three trainings and two samplers."""
    data, reuse = load(DatasetSpec(name="textured", count=COUNT)), profiles.load(COMMITTED).reuse
    weights = sum(weight.numel() for weight in _teacher().parameters()) / 1e6
    batch = f"batch {SIZE}, 32 pixels, U-Net of {weights:.1f} M weights"
    label = classes(BATCH, _teacher().config.num_class_embeds - 1)

    def teacher() -> object:
        return step_of(train_teacher(_network(_teacher(), True), data, settings(SIZE), run("teacher")))

    def stage_one() -> object:
        student = _network(student_of(_teacher()), True)
        return step_of(distill_guidance(student, _network(_teacher()), data, settings(SIZE), run("stage-one")))

    on_pictures = partial(plain.step_on_pictures, pictures=data, size=SIZE)
    trainings = [
        Case("train the teacher", teacher, lambda: on_pictures(_teacher(), loss_of=plain.teacher_loss), SIZE, batch),
        Case(
            "stage one",
            stage_one,
            lambda: on_pictures(student_of(_teacher()), loss_of=plain.stage_one_loss(_network(_teacher()).module)),
            SIZE,
            batch,
        ),
        Case(
            "halving",
            partial(_halving, data, reuse),
            lambda: on_pictures(
                student_of(_teacher()), loss_of=plain.halving_loss(_network(student_of(_teacher())).module)
            ),
            SIZE,
            f"{batch}; a target serves {reuse} updates",
            BANK * reuse,
        ),
    ]
    drawn = {"the guided pair, 8 steps": (lambda unet: unet, 8), "the student, 4 steps": (student_of, 4)}
    return trainings + [
        Case(
            f"sample {name}",
            lambda of=of, n=n: partial(sample_pictures, _network(of(_teacher())), n, 1.0, label),
            lambda of=of, n=n: plain.sampler(of(_teacher()).requires_grad_(False), n, 1.0, BATCH),
            BATCH,
            f"batch {BATCH}, 32 pixels, w = 1",
        )
        for name, (of, n) in drawn.items()
    ]

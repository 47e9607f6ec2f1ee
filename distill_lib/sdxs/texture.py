"""A short adversarial fine-tuning of a one-step student through an adapter of very low rank.

SDXS (Song et al. 2024, arXiv 2403.16627), section 3.3: score distillation leaves less texture than the teacher has,
which a projected critic (Sauer et al. 2023, arXiv 2301.09515) brings back, while the adapter keeps the student near
what it was:

    x_hat = one step of the student;  the critic reads features of a frozen network of both pictures, layer by layer
    critic: tell the teacher's picture from the student's                                     hinge loss
    adapter: fool it                                                                          -D(features(x_hat))

Data-free: what is held real is the teacher's own picture from the same noise. Differs from the paper: one critic head a
layer, of two convolutions, is not conditioned on the prompt; no crops and no augmentation, since features are of small
pictures.
"""

from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor

from distill_lib.engine.loop import Loop, Progress, TrainSettings, finish
from distill_lib.engine.store import Run
from distill_lib.engine.trainable import Bare, Team, fixed
from distill_lib.networks.adapter import Network, Trained
from distill_lib.networks.lora import add_low_rank, merge_low_rank
from distill_lib.sdxs.critics import ProjectedCritic
from distill_lib.sdxs.feature_matching import View
from distill_lib.sdxs.one_step import one_step
from distill_lib.teachers.autoencoder import critic_loss, fooling_loss
from distill_lib.teachers.latents import Pairs

_CRITIC_RATE = 3.0  # learning rate of the critic over that of the adapter


def tune_adversarially(
    team: Team, features: Callable[[Tensor], Sequence[Tensor]], pairs: Pairs, settings: TrainSettings, run: Run
) -> Iterator[Progress]:
    """Train the adapter and the critic.

    Args:
        team: `student`, after `add_low_rank`, and `critic`, a `ProjectedCritic`.
        features: layers of a frozen network for pictures (B, 3, R, R) in [-1, 1]; of none that measures.
    """
    loop = Loop(team, settings, run, {"critic.": _CRITIC_RATE})
    student, critic = team.members["student"], team.members["critic"]
    for _, draws in loop:
        z_T, x, label = pairs.batch(draws.integer("pair", len(pairs)).cpu(), loop.device)
        seen = [f.float() for f in features(student.decode(one_step(student, z_T, label, student.schedule)))]
        with torch.no_grad():
            wanted = [f.float() for f in features(student.decode(x))]
        critic_term = critic_loss(critic.forward(wanted), critic.forward([f.detach() for f in seen]))
        yield loop.update(fooling_loss(fixed(critic.module, seen)) + critic_term)


def tune_texture(student: Network, pairs: Pairs, see: View, settings: TrainSettings, rank: int = 1) -> Trained:
    """A student after adversarial tuning of an adapter of a rank, which is merged into its weights.

    Args:
        student: the same object is trained.
        pairs, settings: as in `one_step.fit_on_pairs`.
        see: features of pictures (B, 3, R, R), which the critic reads.
        rank: of the adapter.
    """
    with torch.no_grad():
        channels = [layer.shape[1] for layer in see(student.decode(pairs.x[:1].float()))]
    run = Run(
        "textured", {"settings": settings, "pairs": pairs, "student": student, "see": see, "rank": rank}, tune_texture
    )
    torch.manual_seed(settings.seed)
    add_low_rank(student, rank)
    team = Team(student=student, critic=Bare(ProjectedCritic(channels)))
    curve = finish(team, tune_adversarially(team, see, pairs, settings, run), run, "adversarial tuning")
    merge_low_rank(student)
    return Trained(student, curve, run)

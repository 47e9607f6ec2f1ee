"""The cases of SDXS, on the shipped small Stable Diffusion: feature matching, score distillation, ControlNet.

The teacher's latents are white noise here: what they are changes no time, and drawing them would take minutes.
"""

import copy
from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor

from bench import plain
from bench.pixels import run, settings
from bench.rates import Case, Way, step_of
from distill_lib.diffusion.guidance import combine
from distill_lib.diffusion.schedules import OURS, add_noise, v_from, x_from_v
from distill_lib.engine.trainable import Team
from distill_lib.networks.adapter import Network
from distill_lib.networks.autoencoders import TinyDecode
from distill_lib.networks.controlnet import Controlled, cut_control
from distill_lib.networks.pipeline import TextToImage
from distill_lib.sdxs.controlnet import distill_control, through_decoder
from distill_lib.sdxs.feature_matching import feature_matching_loss, one_step_loss, views
from distill_lib.sdxs.one_step import Matching, train_on_pairs
from distill_lib.sdxs.score_distillation import distill_scores
from distill_lib.sdxs.scoring import Scoring
from distill_lib.sdxs.triplets import Triplets
from distill_lib.shipped import pretrained
from distill_lib.teachers.latents import Pairs, Remembered, phrased
from distill_lib.worlds.captions import drawn_attributes

SIZE, COUNT = 16, 64
"""Pairs of a batch, and of the data."""
_W, _KIND = 2.0, "edges"


def white_pairs(model: TextToImage) -> Pairs:
    """Latents of white noise with prompts of our world."""
    x = torch.randn(COUNT, *model.network.shape, generator=torch.Generator().manual_seed(0)).half()
    return Pairs(x, phrased(drawn_attributes(COUNT, 0), 0), model, 0)


def _learner(model: TextToImage) -> Network:
    net = pretrained.tiny_unet("scenes", model)
    net.module.requires_grad_(True)
    return net.like(net.module, decode=TinyDecode(pretrained.tiny_decoder()))


def _cost(pairs: Pairs, learner: Network) -> Matching:
    """As `experiments.one_step` has it: the tiny decoder for the student, the teacher's pictures decoded once."""
    matcher, teacher = pretrained.matcher("cnn"), pairs.model.network
    see, wanted = (views("cnn", matcher, teacher, decode) for decode in (learner.decode, Remembered(pairs)))
    return one_step_loss("matching", see, wanted)


class _Plain:
    """What a first script of Algorithm 1 holds: float32 networks, the large decoder at each update."""

    def __init__(self, model: TextToImage, size: int) -> None:
        self.model, self.pairs, self.student = model, white_pairs(model), _learner(model)
        self.matcher, self.unet = pretrained.matcher("cnn"), self.student.module
        z_T, x, states = self.pairs.batch(torch.arange(COUNT))
        self.following, self.learner = plain.batches(size, z_T, x, states), plain.Optimised(self.unet)

    def drawn(self, z_T: Tensor, states: Tensor) -> Tensor:
        t = torch.full((len(z_T),), OURS.T)
        return x_from_v(z_T, self.unet(z_T, t - 1, states).sample, t)

    def matching(self, x_hat: Tensor, x: Tensor) -> Tensor:
        with torch.no_grad():
            vae = self.model.pipe.vae
            wanted = self.matcher.layers(vae.decode(x / vae.config.scaling_factor).sample)
        return feature_matching_loss(self.matcher.layers(self.student.decode(x_hat)), wanted).mean()

    def match(self) -> None:
        z_T, x, states = self.following()
        self.learner.update(self.matching(self.drawn(z_T, states), x))


class _PlainScores(_Plain):
    def __init__(self, model: TextToImage, size: int) -> None:
        super().__init__(model, size)
        self.offline = model.network.module
        self.online = copy.deepcopy(self.offline).requires_grad_(True)
        self.follower, self.null = plain.Optimised(self.online), model.network.null
        self.updates, self.states = 0, self.pairs.batch(torch.arange(COUNT))[2]

    def predicted(self, unet: torch.nn.Module, z_t: Tensor, t: Tensor, states: Tensor) -> Tensor:
        return x_from_v(z_t, unet(z_t, t - 1, states).sample, t)

    def update(self) -> None:
        pair_z_T, x, pair_states = self.following()
        states, z_T = self.states[torch.randint(COUNT, (len(x),))], torch.randn_like(pair_z_T)
        x_hat, eps = self.drawn(z_T, states), torch.randn_like(z_T)
        drawn, t = x_hat.detach(), torch.randint(1, OURS.T + 1, (len(z_T),))
        answer = self.online(add_noise(drawn, eps, t), t - 1, states).sample
        self.follower.update((v_from(drawn, eps, t) - answer).square().mean())
        self.updates += 1
        if self.updates % 2:
            return
        t = torch.randint(20, 900, (len(z_T),))
        z_t = add_noise(drawn, torch.randn_like(z_T), t)
        with torch.no_grad():
            empty = self.null.expand(len(z_T), -1, -1)
            words, none = (self.predicted(self.offline, z_t, t, label) for label in (states, empty))
            direction = self.predicted(self.online, z_t, t, states) - combine(words, none, torch.full((len(t),), _W))
        self.learner.update((direction * x_hat).mean() + self.matching(self.drawn(pair_z_T, pair_states), x))


def _controlled(model: TextToImage) -> tuple[Triplets, Controlled]:
    control = pretrained.controlnet(_KIND)
    teacher = Controlled(model.network, control, "unet")
    pairs, pixels = white_pairs(model), model.pipe.vae_scale_factor * model.network.shape[-1]
    seen = torch.rand(COUNT, 1, pixels, pixels, generator=torch.Generator().manual_seed(1)).half()
    small = model.network.like(pretrained.tiny_unet("scenes", model).module)
    student = Controlled(small, cut_control(control, small.module, True).requires_grad_(True))
    return Triplets(replace(pairs, model=replace(model, network=teacher)), seen), student


def _plain_control(model: TextToImage, size: int) -> Way:
    triplets, student = _controlled(model)
    teacher = triplets.model.network
    for net in (student, teacher, student.network, teacher.network):
        net.bf16_option = False
    data = triplets.as_data()
    following, learner = plain.batches(size, *data.batch(torch.arange(COUNT))), plain.Optimised(student.control)

    def step() -> None:
        x, states = following()
        t = torch.randint(1, OURS.T + 1, (len(x),))
        z_t = add_noise(x, torch.randn_like(x), t)
        learner.update(through_decoder(student, teacher, z_t, t, states).mean())

    return step


def cases() -> list[Case]:
    """Feature matching, segmented score distillation, and a ControlNet for the small U-Net."""
    model = pretrained.pipeline("scenes")
    count = sum(weight.numel() for weight in _learner(model).module.parameters()) / 1e6
    words = f"batch {SIZE}, 64 pixels, U-Net of {count:.1f} M weights"

    def matching() -> Way:
        pairs, student = white_pairs(model), _learner(model)
        return step_of(train_on_pairs(student, pairs, settings(SIZE), run("matching"), _cost(pairs, student)))

    def scores() -> Way:
        pairs, student, teacher = white_pairs(model), _learner(model), model.network
        team = Team(student=student, online=teacher.like(copy.deepcopy(teacher.module).requires_grad_(True)))
        scoring = Scoring(settings(SIZE), _W, online_updates=2)
        return step_of(distill_scores(team, teacher, pairs, _cost(pairs, student), scoring, run("scores")))

    def control() -> Way:
        triplets, student = _controlled(model)
        teacher = triplets.model.network
        return step_of(distill_control(student, teacher, triplets.as_data(), settings(SIZE), run("control")))

    in_pairs = "an update of the student for two of the online model"
    made: dict[str, tuple[Callable[[], Way], Callable[[], Way], str, int]] = {
        "feature matching": (matching, lambda: _Plain(model, SIZE).match, words, 1),
        "score distillation": (scores, lambda: _PlainScores(model, SIZE).update, f"{words}; {in_pairs}", 2),
        "ControlNet for the small U-Net": (control, lambda: _plain_control(model, SIZE), words, 1),
    }
    return [Case(name, ours, other, SIZE, setting, calls) for name, (ours, other, setting, calls) in made.items()]

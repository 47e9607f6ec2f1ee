"""What notebook 13 trains: ControlNets that differ in one choice.

All see the same triplets in the same order. Those of one step start from the one that was shrunk here, and have the
shipped student of one step under them.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property, partial

from diffusers import ControlNetModel

from distill_lib.experiments.finished import finished
from distill_lib.measure.readers.geometry import read_depth
from distill_lib.measure.systems import System
from distill_lib.networks.adapter import Network, Trained
from distill_lib.networks.controlnet import Controlled
from distill_lib.profiles import Control
from distill_lib.sdxs.controlnet import distill_controlnet, one_step_control
from distill_lib.sdxs.feature_matching import ByMatcher, one_step_loss
from distill_lib.sdxs.one_step import Matching
from distill_lib.sdxs.triplets import Triplets
from distill_lib.shipped import pretrained
from distill_lib.teachers.latents import Pairs, Remembered

_SOLVER = "unipc"  # as the teacher's pairs were made


@dataclass(frozen=True)
class ControlTrials:
    """ControlNets of one teacher, guided by w, under one profile and seed; its pairs are those without control."""

    pairs: Pairs
    sizes: Control
    w: float
    seed: int

    @cached_property
    def small(self) -> Network:
        """The shipped small U-Net, which draws in many steps."""
        return pretrained.tiny_unet("scenes", self.pairs.model)

    @cached_property
    def plain(self) -> Network:
        """The shipped student of one step, behind its tiny decoder."""
        return pretrained.one_step("scenes", self.pairs.model)

    def control(self, kind: str) -> ControlNetModel:
        """The teacher's shipped ControlNet for a kind of map."""
        return pretrained.controlnet(kind)

    def triplets(self, kind: str, share: float = 0.0) -> Triplets:
        """Noise, target and map of the pairs, with a share of the noise resampled."""
        depth_of = partial(read_depth, pretrained.geometry("captioned"))
        return Triplets.of(self.pairs, kind, depth_of, self.control(kind), share)

    def small_control(self, kind: str, target: str = "decoder", inherit: bool = True) -> Trained:
        """A ControlNet for the small U-Net; `target` and `inherit` as in `controlnet.distill_controlnet`."""
        settings = self.sizes.shrinking.with_seed(self.seed)
        triplets, control = self.triplets(kind), self.control(kind)
        return finished(distill_controlnet(self.small, triplets, control, settings, target, inherit))

    def one_step(self, kind: str, share: float) -> list[Trained]:
        """A ControlNet for the student of one step: after feature matching, and after score distillation."""
        student = Controlled(self.plain, self.small_control(kind).net.control.requires_grad_(True))
        scoring = self.sizes.scores.of_run(self.seed, self.w)
        matching = self.sizes.matching.with_seed(self.seed)
        trained = one_step_control(student, self.triplets(kind, share), self.cost, matching, scoring)
        return list(map(finished, trained))

    @cached_property
    def cost(self) -> Matching:
        """Feature matching, as the student of one step was trained."""
        see = partial(ByMatcher, pretrained.matcher("cnn"))
        return one_step_loss("matching", see(self.plain.decode), see(Remembered(self.pairs)))

    def teacher(self, kind: str = "") -> System:
        """The teacher with its many steps, under maps of a kind, or without."""
        net = self.pairs.model.network
        return self.many(Controlled(net, self.control(kind)) if kind else net)

    def many(self, net: Network) -> System:
        """A small network as it draws in as many steps as the teacher."""
        return System(self.pairs.model, net, self.sizes.teacher_steps, self.w, _SOLVER)

    def once(self, net: Network) -> System:
        """A student of one step as it draws."""
        return System(self.pairs.model, net, 1, 0.0)

    def shipped(self, kind: str) -> System:
        """The shipped ControlNet of one step for a kind of map, over the shipped student."""
        return self.once(Controlled(self.plain, pretrained.one_control(kind)))

    def compared(self, kinds: Iterable[str]) -> dict[str, tuple[System, str]]:
        """Systems by name, with the kind of map that each is shown: of one step, trained here and shipped, beside the
        teacher; and both without control."""
        systems = {"teacher, no control": (self.teacher(), ""), "no control": (self.once(self.plain), "")}
        for kind in kinds:
            live = self.once(self.one_step(kind, self.sizes.share)[-1].net)
            controlled = {"teacher": self.teacher(kind), "one step": live, "shipped": self.shipped(kind)}
            systems |= {f"{name}, {kind}": (system, kind) for name, system in controlled.items()}
        return systems

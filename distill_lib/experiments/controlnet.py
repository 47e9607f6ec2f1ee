"""What notebook 13 trains: ControlNets that differ in one choice.

All see the same triplets in the same order. Those of one step start from the one that was shrunk here, and have the
shipped student of one step under them.
"""

import copy
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cached_property, partial
from typing import Any

from diffusers import ControlNetModel

from distill_lib.measure.readers.geometry import read_depth
from distill_lib.measure.systems import System
from distill_lib.networks.adapter import Network, Trained
from distill_lib.networks.controlnet import Controlled
from distill_lib.profiles import Control
from distill_lib.sdxs.controlnet import one_step_control, shrunk
from distill_lib.sdxs.feature_matching import one_step_loss, views
from distill_lib.sdxs.one_step import Matching
from distill_lib.sdxs.score_distillation import Segment
from distill_lib.sdxs.triplets import Triplets
from distill_lib.shipped import pretrained
from distill_lib.teachers.latents import Pairs, Remembered

_SEGMENT = Segment((0.95, 0.7), (1.0, 0.3))
_HOW = {"online_updates": 2, "online_rate": 2.0, "normalised": True}  # as the student of one step was trained
_SOLVER = "unipc"  # as the teacher's pairs were made


@dataclass(frozen=True)
class ControlTrials:
    """ControlNets of one teacher under one profile and seed.

    Args:
        pairs: of the teacher without control.
        how: sizes, from the profile.
        w: strength of guidance of the teacher.
        seed: of the trainings.
    """

    pairs: Pairs
    how: Control
    w: float
    seed: int
    _made: dict[Any, Any] = field(default_factory=dict)

    @cached_property
    def small(self) -> Network:
        """The shipped small U-Net, which draws in many steps."""
        return pretrained.tiny_unet("scenes", self.pairs.told)

    @cached_property
    def plain(self) -> Network:
        """The shipped student of one step, behind its tiny decoder."""
        return pretrained.one_step("scenes", self.pairs.told)

    def control(self, kind: str) -> ControlNetModel:
        """The teacher's shipped ControlNet for a kind of map."""
        return self._once(("control", kind), lambda: pretrained.controlnet(kind))

    def triplets(self, kind: str, share: float = 0.0) -> Triplets:
        """Noise, target and map of the pairs, with a share of the noise drawn anew."""
        reader = self._once("reader", lambda: pretrained.geometry("captioned"))
        return Triplets.of(self.pairs, kind, partial(read_depth, reader), self.control(kind), share)

    def shrunk(self, kind: str, way: str = "decoder", inherit: bool = True) -> Trained:
        """A ControlNet for the small U-Net; `way` and `inherit` as in `controlnet.shrunk`."""
        settings = self.how.shrinking.with_seed(self.seed)
        make = lambda: shrunk(  # noqa: E731
            self.small, self.triplets(kind), self.control(kind), self._about(kind), settings, way, inherit
        )
        return self._once(("shrunk", kind, way, inherit), make)

    def one_step(self, kind: str, share: float) -> list[Trained]:
        """A ControlNet for the student of one step: after feature matching, and after score distillation."""
        settings = [one.with_seed(self.seed) for one in (self.how.matching, self.how.scores)]
        start = self.shrunk(kind)

        def make() -> list[Trained]:
            student = Controlled(self.plain, copy.deepcopy(start.net.control).requires_grad_(True))
            about = self._about(kind) | {"start": start.key}
            return one_step_control(
                student, self.triplets(kind, share), self.cost, about, *settings, segment=_SEGMENT, w=self.w, **_HOW
            )

        return self._once(("one", kind, share), make)

    @cached_property
    def cost(self) -> Matching:
        """Feature matching, as the student of one step was trained."""
        matcher, told = pretrained.matcher("cnn"), self.pairs.told
        by = (self.plain.decode, Remembered(self.pairs))
        see, wanted = (views("cnn", matcher, told.network, decode) for decode in by)
        return one_step_loss("matching", see, wanted)

    def teacher(self, kind: str = "") -> System:
        """The teacher with its many steps, under maps of a kind, or without."""
        told = self.pairs.told
        net = Controlled(told.network, self.control(kind)) if kind else told.network
        return System(told, net, self.how.teacher_steps, self.w, _SOLVER)

    def many(self, net: Network) -> System:
        """A small network as it draws in as many steps as the teacher."""
        return System(self.pairs.told, net, self.how.teacher_steps, self.w, _SOLVER)

    def once(self, net: Network) -> System:
        """A student of one step as it draws."""
        return System(self.pairs.told, net, 1, 0.0)

    def shipped(self, kind: str) -> System:
        """The shipped ControlNet of one step for a kind of map, over the shipped student."""
        return self.once(Controlled(self.plain, self._once(("shipped", kind), lambda: pretrained.one_control(kind))))

    def compared(self, kinds: Iterable[str]) -> dict[str, tuple[System, str]]:
        """Systems by name, with the kind of map that each is shown: of one step, trained here and shipped, beside the
        teacher; and both without control."""
        found = {"teacher, no control": (self.teacher(), ""), "no control": (self.once(self.plain), "")}
        for kind in kinds:
            live = self.once(self.one_step(kind, self.how.share)[-1].net)
            here = {"teacher": self.teacher(kind), "one step": live, "shipped": self.shipped(kind)}
            found |= {f"{name}, {kind}": (system, kind) for name, system in here.items()}
        return found

    def _about(self, kind: str) -> dict[str, Any]:
        names = ("pairs-scenes", "tinyunet-scenes", "onestep-scenes", "geometry-captioned", f"controlnet-{kind}")
        return {"kind": kind} | {name: pretrained.made(name)["weights"] for name in names}

    def _once(self, key: Any, make: Any) -> Any:
        if key not in self._made:
            self._made[key] = make()
        return self._made[key]

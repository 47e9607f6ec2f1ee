"""ControlNets of SDXS: for the small U-Net (Fig. 2c) and for the student of one step (Fig. 5).

SDXS (Song et al. 2024, arXiv 2403.16627), section 3.1 and Fig. 2c: a ControlNet leaves the features of the U-Net's
down stages as they are, and changes those of its up stages and its output. So these are compared, by eqs. 7 and 8, and
not what the ControlNet itself puts out; the small U-Net is frozen.

    x ~ data, t ~ U, z_t = alpha_t x + sigma_t eps
    the small U-Net and ControlNet at (z_t, t, words, map) learn the large ones' output and features of up stages

The other way, residuals of one ControlNet against those of the other, is there to be compared with.

    teacher     a ControlNet for the large U-Net, on pictures of the world and their exact maps    `taught`
    shrunk      one for the small U-Net, through features of its up stages       Fig. 2c           `shrunk`
    one step    for the student of one step: feature matching, then segmented
                score distillation with the teacher's ControlNet on both the
                online and the offline model                                     Fig. 5, Alg. 1    `one_step_control`

Song et al. 2024 (arXiv 2403.16627). From the second on it is data-free: a control map is taken from the teacher's own
picture, so that noise, target and control are a triplet.
"""

import copy
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from diffusers import ControlNetModel
from torch import Tensor
from torch.nn import Module

from distill_lib.diffusion.guidance import without_condition
from distill_lib.diffusion.schedules import add_noise
from distill_lib.engine.loop import Loop, Progress, TrainSettings, finish, place
from distill_lib.engine.store import Run, content_key
from distill_lib.networks.adapter import Network, Trained
from distill_lib.networks.controlnet import Controlled, cut_control, shared_places
from distill_lib.networks.pruning import counterparts, tapped
from distill_lib.sdxs.one_step import Matching, regressed
from distill_lib.sdxs.score_distillation import Segment, scored
from distill_lib.sdxs.tiny_unet import feature_loss, knowledge_loss
from distill_lib.sdxs.triplets import Triplets
from distill_lib.teachers.denoising import train_teacher
from distill_lib.teachers.inpainting import Masked
from distill_lib.worlds.maps import control_map


def observed(net: Controlled, taps: Sequence[Module], z_t: Tensor, t: Tensor, label: Tensor) -> tuple[Tensor, list]:
    """The answer of a controlled U-Net, and the outputs of its layers `taps` in float32."""
    with tapped(taps) as found:
        v_hat = net(z_t, t, label)
    return v_hat, [feature.float() for feature in found]


def distill_control(
    student: Controlled,
    teacher: Controlled,
    pictures: Masked,
    settings: TrainSettings,
    run: Run,
    through: str = "decoder",
    lambda_f: float = 1.0,
    drop: float = 0.2,
) -> Iterator[Progress]:
    """Train student.module, a `controlnet.cut_control` of the teacher's.

    Args:
        student, teacher: controlled U-Nets that take no w.
        pictures: data with maps; of a data-free training, the teacher's own.
        settings, run: of the training.
        through: "decoder" compares features of up stages and output, "residuals" what the ControlNets put out.
        lambda_f: weight of the features of "decoder".
        drop: share of samples whose prompt is left out.

    Raises:
        ValueError: `through` is neither.
    """
    if through not in ("decoder", "residuals"):
        raise ValueError(f"through={through!r} is unknown; choose decoder or residuals")
    loop = Loop(student, settings, run)
    for part in (student.network, teacher, teacher.network):
        place(part, loop.device)
    mine, theirs = counterparts(student.network.module, teacher.network.module, down=False)
    shared = shared_places(student.control, teacher.control)
    schedule = teacher.schedule
    for _, draws in loop:
        x, label = pictures.batch(draws.integer("picture", len(pictures)).cpu(), loop.device)
        dropped = (draws.uniform("drop") < drop).reshape(-1, 1, 1)
        label = torch.where(dropped, without_condition(label, teacher.null), label)
        t = 1 + draws.integer("t", schedule.T)
        z_t = add_noise(x, draws.normal("eps", x.shape[1:]), t, schedule)
        if through == "residuals":
            with torch.no_grad():
                wanted, _ = teacher.residuals(z_t, t, label)
            found, _ = student.residuals(z_t, t, label)
            loss = feature_loss([r.float() for r in found], [wanted[k].float() for k in shared])
        else:
            with torch.no_grad():
                v_teacher, wanted = observed(teacher, theirs, z_t, t, label)
            v_student, features = observed(student, mine, z_t, t, label)
            loss = knowledge_loss(v_student, v_teacher, features, wanted, lambda_f)
        yield loop.update(loss)


WAYS = ("decoder", "residuals", "denoising")
"""What a ControlNet for the small U-Net is held to: the teacher's features and output behind it (eqs. 7 and 8), what
the teacher's ControlNet itself puts out, or the pictures alone."""


def _code() -> dict[str, str]:
    """What tells apart trainings by functions of other modules that see controls through this one."""
    return {"control": content_key({}, Controlled, control_map)}


def taught(
    net: Controlled, data: Masked, settings: TrainSettings, about: dict[str, Any], drop: float
) -> tuple[list[tuple[float, float]], Run]:
    """A ControlNet by the denoising loss on data with maps, its U-Net frozen; the curve and the run.

    Args:
        net: the same object is trained.
        data, settings: of the training.
        about: what tells it from others.
        drop: share of samples whose prompt is left out, so that the map has to be read.
    """
    run = Run("controlnet", {"settings": settings, "data": data, "net": net, "drop": drop} | about | _code(), taught)
    return finish(net, train_teacher(net, data, settings, run, drop), run, "ControlNet"), run


def shrunk(
    small: Network,
    triplets: Triplets,
    control: ControlNetModel,
    about: dict[str, Any],
    settings: TrainSettings,
    way: str = "decoder",
    inherit: bool = True,
) -> Trained:
    """A ControlNet for the small U-Net, trained in one of `WAYS`.

    Args:
        small: the small U-Net behind its adapter, frozen.
        triplets: whose pictures and maps it is trained on.
        control: the teacher's ControlNet.
        about, settings: what tells the training from others, and its settings.
        way: of WAYS.
        inherit: start from `control`, cut; else as a new ControlNet.

    Raises:
        ValueError: the way is unknown.
    """
    if way not in WAYS:
        raise ValueError(f"way={way!r} is unknown; choose one of {', '.join(WAYS)}")
    torch.manual_seed(settings.seed)
    student = Controlled(small, cut_control(control, small.module, inherit).requires_grad_(True))
    config = {"settings": settings, "pairs": triplets, "student": student, "way": way} | about | _code()
    data = triplets.as_data()
    run = Run("small-control", config, distill_control, train_teacher)
    if way == "denoising":
        training = train_teacher(student, data, settings, run, 0.2)
    else:
        training = distill_control(student, triplets.told.network, data, settings, run, way)
    return Trained(student, finish(student, training, run, f"small ControlNet, {way}"), run)


def one_step_control(
    student: Controlled,
    triplets: Triplets,
    cost: Matching,
    about: dict[str, Any],
    matching: TrainSettings,
    scores: TrainSettings | None,
    *,
    segment: Segment,
    w: float,
    **how: Any,
) -> list[Trained]:
    """A ControlNet for the student of one step, whose U-Net is frozen: after feature matching, and after Algorithm 1.

    Both are the very functions that trained the U-Net, `one_step.regressed` and `score_distillation.scored`.

    Args:
        student: the same object is trained.
        triplets: noise, target, control; `told` is the controlled teacher, of which the online model is a copy.
        cost: feature matching.
        about: what tells it from others.
        matching, scores: settings of both trainings; None leaves the second out.
        segment, w, how: as in `sdxs.score_distillation.distill_scores`.
    """
    about = about | {"share": triplets.share} | _code()
    done = [regressed(student, triplets, cost, about, matching)]
    if scores is not None:
        again = student.like(copy.deepcopy(student.control))
        about = about | {"warm": done[0].run.key}
        done.append(scored(again, triplets, cost, about, scores, segment=segment, w=w, **how))
    return done

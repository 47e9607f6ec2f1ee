"""A ControlNet for a small U-Net learns what that of the large U-Net does, at every noise level.

SDXS (Song et al. 2024, arXiv 2403.16627), section 3.1 and Fig. 2c: a ControlNet leaves the features of the U-Net's
down stages as they are, and changes those of its up stages and its output. So these are compared, by eqs. 7 and 8, and
not what the ControlNet itself puts out; the small U-Net is frozen.

    x ~ data, t ~ U, z_t = alpha_t x + sigma_t eps
    the small U-Net and ControlNet at (z_t, t, words, map) learn the large ones' output and features of up stages

The other way, residuals of one ControlNet against those of the other, is there to be compared with.
"""

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor
from torch.nn import Module

from distill_lib.controlnet import Controlled, shared_places
from distill_lib.guidance import without_condition
from distill_lib.inpainting import Masked
from distill_lib.losses.knowledge import feature_loss, knowledge_loss
from distill_lib.pruning import counterparts, tapped
from distill_lib.schedules import add_noise
from distill_lib.store import Run
from distill_lib.training import Loop, Progress, TrainSettings, place

__all__ = ["distill_control", "observed"]


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

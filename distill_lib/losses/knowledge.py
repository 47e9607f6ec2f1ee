"""What a small U-Net learns from a large one at the same noisy input.

    OKD = |v_hat_student - v_hat_teacher|^2                                                                    (1)
    FKD = sum_l |f_l_student - f_l_teacher|^2          features of the stages that both have                   (2)
    KD  = OKD + lambda_F FKD                                                                                   (3)

SDXS (Song et al. 2024, arXiv 2403.16627), eqs. 6 to 8, which leave the denoising loss out. (1) is taken in v, where all
noise levels count alike; a difference of scores is one of v times alpha_t / sigma_t.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from distill_lib.losses.denoising import mean_square

__all__ = ["feature_loss", "knowledge_loss", "output_loss"]


def output_loss(v_student: Tensor, v_teacher: Tensor) -> Tensor:
    """(1), one value a sample, (B,), of predictions (B, *D)."""
    return mean_square(v_student - v_teacher)


def feature_loss(features: Sequence[Tensor], wanted: Sequence[Tensor]) -> Tensor:
    """(2), (B,); features (B, C_l, H_l, W_l) of both, stage by stage.

    Raises:
        ValueError: they are not of as many stages.
    """
    if len(features) != len(wanted):
        raise ValueError(f"{len(features)} stages of the student stand beside {len(wanted)} of the teacher")
    return torch.stack([mean_square(a - b) for a, b in zip(features, wanted, strict=True)]).sum(0)


def knowledge_loss(
    v_student: Tensor,
    v_teacher: Tensor,
    features: Sequence[Tensor],
    wanted: Sequence[Tensor],
    lambda_f: float = 1.0,
) -> Tensor:
    """(3), (B,); lambda_f as the paper does not give it, and BK-SDM has 1."""
    return output_loss(v_student, v_teacher) + lambda_f * feature_loss(features, wanted)

"""The loss of the undistilled teacher, and the weights that turn an x error into a training loss.

    weight_trunc = max(alpha^2 / sigma^2, 1)          truncated SNR                                            (1)
    weight_v     = alpha^2 / sigma^2 + 1              SNR + 1, which makes the x error a v error               (2)

Salimans and Ho 2022 (arXiv 2202.00512), section 4, eqs. 9 and 10.
"""

from collections.abc import Callable

from torch import Tensor

from distill_lib.diffusion.schedules import OURS, Schedule, add_noise, log_snr, v_from

Predict = Callable[[Tensor, Tensor, Tensor], Tensor]
"""net(z_t (B, *D), t (B,), label (B,)) -> v_hat (B, *D)."""


def mean_square(difference: Tensor) -> Tensor:
    """Mean over all but the batch dimension of the square, (B,)."""
    return difference.square().flatten(1).mean(1)


def truncated_snr(t: Tensor, schedule: Schedule = OURS, clamp: float = 100.0) -> Tensor:
    """Weight (1) on the x error, (B,), float32.

    Differs from the paper: bounded by `clamp`, since a batch of small pictures at t near 0 would otherwise be ruled by
    one sample (the paper's batches hold up to 2048).
    """
    return log_snr(t, schedule).exp().clamp(1.0, clamp).float()


def v_loss(net: Predict, x: Tensor, eps: Tensor, t: Tensor, label: Tensor, schedule: Schedule = OURS) -> Tensor:
    """Denoising loss  |v - net(z_t, t, label)|^2, one value per sample; weight (2) on the x error.

    Args:
        net: net(z_t, t, label) -> v_hat.
        x: data, (B, *D), in [-1, 1].
        eps: unit noise, (B, *D).
        t: grid indices in 1..T, (B,).
        label: classes, some replaced by the null class, (B,).

    Returns:
        Loss per sample, (B,).
    """
    z_t = add_noise(x, eps, t, schedule)
    return mean_square(v_from(x, eps, t, schedule) - net(z_t, t, label))

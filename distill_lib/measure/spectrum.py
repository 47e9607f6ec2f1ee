"""Sharpness compared with real pictures, as one ratio and as the power of the grey picture by cycles a picture.

ratio      sharpness of samples over that of real pictures. A good value lies between 0.9 and 1.1: blur makes it smaller
           and noise makes it larger, so larger is not better
P(f)       mean of |F|^2 over all frequencies with f - 1/2 <= |k| < f + 1/2, F the Fourier transform of the grey picture
           less its mean, times a Hann window. The window goes to 0 at the border, so that the border itself, where the
           transform continues a picture with its opposite side, does not count as a sharp edge
fine       share of the power at |k| > 7 cycles, summed over frequencies and pictures
"""

import torch
from torch import Tensor

from distill_lib.diffusion.pixels import finite, to_unit
from distill_lib.measure.metrics import laplacian_variance

BAND = (0.9, 1.1)
"""The ratio of a picture that is neither blurred nor overlaid with noise."""
FINE = 7
"""Cycles a picture, above which the power counts as fine."""


def sharpness_ratio(image: Tensor, real: Tensor) -> float:
    """Laplacian variance of pictures uint8 (N, 3, R, R) over that of real ones."""
    return laplacian_variance(image) / laplacian_variance(real)


def in_band(ratio: float) -> bool:
    """Whether a ratio of sharpness lies in BAND."""
    return BAND[0] <= ratio <= BAND[1]


def _power(image: Tensor) -> tuple[Tensor, Tensor]:
    """Mean power over pictures, (R, R), and |k| in cycles a picture, (R, R)."""
    side = image.shape[-1]
    window = torch.hann_window(side, periodic=True, dtype=torch.float64)
    k = torch.fft.fftfreq(side, 1 / side, dtype=torch.float64)
    power = torch.zeros(side, side, dtype=torch.float64)
    for part in finite(image, "pictures").split(256):
        grey = to_unit(part).mean(1).double()
        grey = grey - grey.mean((1, 2), keepdim=True)
        power += torch.fft.fft2(grey * window[:, None] * window).abs().square().sum(0)
    return power / len(image), (k[:, None].square() + k.square()).sqrt()


def spectrum(image: Tensor) -> Tensor:
    """P(f) of pictures uint8 (N, 3, R, R) for f = 0 .. R/2, (R/2 + 1,)."""
    power, cycles = _power(image)
    ring, count = cycles.round().long(), image.shape[-1] // 2 + 1
    sums = torch.zeros(int(ring.max()) + 1, dtype=power.dtype).index_add_(0, ring.flatten(), power.flatten())
    return (sums / ring.flatten().bincount())[:count]


def fine_share(image: Tensor, above: float = FINE) -> float:
    """`fine` of pictures uint8 (N, 3, R, R)."""
    power, cycles = _power(image)
    return (power[cycles > above].sum() / power.sum()).item()

"""Measurement: torch-fidelity on our own extractor, distances from the same noise, sharpness, edges, time.

FID at finite N is biased, so `floor_fid` (real against other real pictures, same N) stands beside each. The primary
measures of distillation compare with the many-step teacher at the same w, from the same noise and classes:

    fid_teacher   Frechet distance between the two sets; 0 for a perfect student with a deterministic sampler, since
                  both start from the same noise; above 0 where a sampler draws fresh noise on the way
    paired        mean over pictures of the mean square difference in [-1, 1]
"""

import math
import time
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn.functional import conv2d
from torch_fidelity.feature_extractor_base import FeatureExtractorBase
from torch_fidelity.metric_fid import fid_featuresdict_to_statistics, fid_statistics_to_metric
from torch_fidelity.metric_isc import isc_featuresdict_to_metric
from torch_fidelity.metric_kid import kid_featuresdict_to_metric
from torch_fidelity.metric_prc import prc_featuresdict_to_metric

from distill_lib.diffusion.pixels import finite, to_unit
from distill_lib.engine.measuring import measuring_time
from distill_lib.measure.readers.common import Once, answers_of
from distill_lib.measure.readers.extractor import Extractor

_PART = 256  # pictures taken to float at a time


class Reader:
    """The extractor, or torch-fidelity's own Inception network (`judges`), as the metrics use it.

    The same pictures behind many metrics are read once.
    """

    def __init__(self, net: Extractor | FeatureExtractorBase) -> None:
        self.net, self._once = net.eval().requires_grad_(False), Once(self._layers)
        foreign = isinstance(net, FeatureExtractorBase)
        self.features, self.logits = net.features_list if foreign else ("64", "logits")

    def read(self, image: Tensor) -> dict[str, Tensor]:
        """Features (N, F) and class logits (N, C) of pictures uint8 (N, 3, R, R), by the names of their layers.

        Raises:
            ValueError: pictures or features are not finite.
        """
        return self._once(image)

    def _layers(self, image: Tensor) -> dict[str, Tensor]:
        finite(image, "pictures")
        if isinstance(self.net, FeatureExtractorBase):  # which takes bytes
            features, logits = answers_of(self.net, image, lambda part: part)
        else:  # float64: the Frechet distance of near-equal sets is a small difference of large traces
            features, logits = (layer.double() for layer in answers_of(self.net, image)[:2])
        subject = "features of pictures"
        return {self.features: finite(features, subject), self.logits: finite(logits, subject)}


def fid(reader: Reader, image: Tensor, other: Tensor) -> float:
    """Frechet distance of the features of two sets of pictures, uint8 (N, 3, R, R)."""
    statistics = [fid_featuresdict_to_statistics(reader.read(x), reader.features) for x in (image, other)]
    return fid_statistics_to_metric(*statistics, verbose=False)["frechet_inception_distance"]


def quality(reader: Reader, image: Tensor, real: Tensor) -> dict[str, float]:
    """fid, kid, is, precision and recall of pictures against real ones, by their names in the contracts."""
    drawn_features, real_features = reader.read(image), reader.read(real)
    subset = {"kid_subset_size": min(1000, min(len(image), len(real)) // 2), "kid_subsets": 20}
    kid = kid_featuresdict_to_metric(drawn_features, real_features, reader.features, verbose=False, **subset)
    near = prc_featuresdict_to_metric(drawn_features, real_features, reader.features, save_cpu_ram=True, verbose=False)
    return {
        "fid": fid(reader, image, real),
        "kid": kid["kernel_inception_distance_mean"],
        "is": isc_featuresdict_to_metric(drawn_features, reader.logits, isc_splits=1, verbose=False)[
            "inception_score_mean"
        ],
        "precision": near["precision"],
        "recall": near["recall"],
    }


def paired(image: Tensor, other: Tensor) -> Tensor:
    """Mean square difference of each pair in [-1, 1], (N,), of uint8 pictures."""
    parts = zip(finite(image, "pictures").split(_PART), finite(other, "pictures").split(_PART), strict=True)
    return torch.cat([((a.float() - b.float()) / 127.5).square().flatten(1).mean(1) for a, b in parts])


def laplacian_variance(image: Tensor) -> float:
    """Sharpness: variance of the discrete Laplacian of the grey picture in [-1, 1], over all pictures."""
    grey = torch.cat([to_unit(part).mean(1, keepdim=True) for part in finite(image, "pictures").split(_PART)])
    kernel = torch.tensor([[[[0.0, 1.0, 0.0], [1.0, -4.0, 1.0], [0.0, 1.0, 0.0]]]])
    return conv2d(grey, kernel).var().item()


def period_two_share(image: Tensor) -> float:
    """Power of the horizontal and vertical pattern of period 2 (the pixel grid), as a share of all but the mean."""
    grey = to_unit(finite(image, "pictures")).mean(1)
    power = torch.fft.fft2(grey - grey.mean((1, 2), keepdim=True)).abs().square().mean(0)
    half = power.shape[-1] // 2
    return ((power[half].sum() + power[:, half].sum() - power[half, half]) / power.sum()).item()


def edge_width(image: Tensor) -> float:
    """Width of the steep edges in pixels: contrast across eight pixels divided by the steepest of their seven steps.

    Only pieces of rows and columns whose total change exceeds 0.6 count: silhouettes. 1 is a perfect step; an edge
    wider than 5 pixels does not fit a piece and is left out.
    """
    grey = to_unit(finite(image, "pictures")).mean(1)
    widths = []
    for lines in (grey, grey.mT):
        pieces = lines.unfold(2, 8, 1)
        steps = pieces.diff(dim=3).abs()
        change = (pieces[..., -1] - pieces[..., 0]).abs()
        steepest = steps.amax(3)
        # one edge, not two that meet: the steps add up to the change; the whole of it: flat at both ends
        clean = (change > 0.6) & (steps.sum(3) < 1.05 * change) & (steps[..., 3] > 0.99 * steepest)
        clean &= (steps[..., 0] < 0.1 * steepest) & (steps[..., -1] < 0.1 * steepest)
        widths.append((change / steepest)[clean])
    return torch.cat(widths).mean().item()


def interval(values: list[float], confidence: float = 0.95) -> tuple[float, float]:
    """Student's t interval of the mean of a few seeds; (nan, nan) for a single one."""
    if len(values) < 2:
        return math.nan, math.nan
    from scipy.stats import t  # half a second that other metrics do not need

    x = torch.tensor(values, dtype=torch.float64)
    half = t.ppf(0.5 + confidence / 2, len(values) - 1) * x.std().item() / math.sqrt(len(values))
    return x.mean().item() - half, x.mean().item() + half


def margins(logits: Tensor, label: Tensor) -> Tensor:
    """By how much the log probability of class `label` (N,) exceeds that of any other class, (N,); logits (N, C)."""
    log_p = logits.log_softmax(1)
    others = log_p.scatter(1, label[:, None], -torch.inf).amax(1)
    return log_p.gather(1, label[:, None])[:, 0] - others


def median_seconds(work: Callable[[], object], repeats: int = 5) -> float:
    """Median wall-clock seconds of `work`, after one call that does not count; waits for the GPU.

    The machine is its own meanwhile (`engine.measuring`).
    """
    times = []
    with measuring_time():
        for i in range(repeats + 1):
            start = time.perf_counter()
            work()
            if torch.cuda.is_available():
                torch.cuda.synchronize()
            if i:
                times.append(time.perf_counter() - start)
    return sorted(times)[len(times) // 2]


def psnr(image: Tensor, other: Tensor) -> float:
    """Peak signal-to-noise ratio, 10 log10(2^2 / `paired`) in decibels; infinite if all pictures are the same.

    Of pictures uint8 (N, 3, R, R), whose values span 2 in [-1, 1].
    """
    return (10 * torch.log10(4 / paired(image, other).double().mean())).item()

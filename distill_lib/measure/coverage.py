"""How much of the real pictures is covered, and how many samples lie among them, by balls of nearest neighbours.

Of N samples x_i and M real pictures y_j, with r_j the distance from y_j to its k-th nearest real neighbour:

    density     1/(k N) sum_i sum_j [ |x_i - y_j| < r_j ]        1 for the real distribution                     (1)
    coverage    1/M sum_j [ min_i |x_i - y_j| < r_j ]            see `expected_coverage`                         (2)

Naeem et al. 2020 (arXiv 2002.09797), eqs. 3 and 4. Precision and recall (Kynkaanniemi et al. 2019, arXiv 1904.06991)
are torch-fidelity's. All four depend on N and M: only numbers of one size compare.
"""

from math import prod

import torch
from torch import Tensor
from torch_fidelity.metric_prc import prc_features_to_metric

NEIGHBOURS = 5
"""k of (1) and (2); precision and recall have 3, as their authors."""
_BLOCK = 512


def density_and_coverage(x: Tensor, y: Tensor, k: int = NEIGHBOURS) -> dict[str, float]:
    """(1) and (2) of features (N, F) of samples and (M, F) of real pictures, a block of distances at a time.

    Raises:
        ValueError: there are no k neighbours.
    """
    if len(y) <= k:
        raise ValueError(f"{len(y)} real pictures have no {k} neighbours; take more")
    x, y = x.double(), y.double()
    inside, covered = 0, 0
    for part in y.split(_BLOCK):
        radius = torch.cdist(part, y).kthvalue(k + 1, dim=1).values  # the nearest is the picture itself
        near = torch.cdist(part, x) < radius[:, None]
        inside, covered = inside + near.sum().item(), covered + near.any(1).sum().item()
    return {"density": inside / (k * len(x)), "coverage": covered / len(y)}


def expected_coverage(n: int, k: int = NEIGHBOURS) -> float:
    """(2) where both sets are n samples of one distribution: 1 - prod over i = 1 .. k of (n - i) / (2 n - i).

    The product is the probability that a real picture is not covered: none of its k nearest neighbours, among the
    2 n - 1 other pictures of both sets, is a sample. So the value is about 1 - 2^-k.
    """
    return 1 - prod((n - i) / (2 * n - i) for i in range(1, k + 1))


def precision_and_recall(x: Tensor, y: Tensor) -> dict[str, float]:
    """torch-fidelity's, of features (N, F) of samples and (M, F) of real pictures."""
    scores = prc_features_to_metric(
        x.double(), y.double(), prc_neighborhood=3, prc_batch_size=_BLOCK, save_cpu_ram=True, verbose=False
    )
    return {name: scores[name] for name in ("precision", "recall")}

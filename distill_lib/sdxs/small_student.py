"""The training of `tiny_unet` (eqs. 6 to 8) for a network that somebody else's teacher was cut to.

Any cut and any network behind an adapter; runs of the one cut of our own teacher are those of `tiny_unet.small_unet`.
"""

from distill_lib.engine.loop import TrainSettings, finish
from distill_lib.engine.store import Run
from distill_lib.networks.adapter import Network, Trained
from distill_lib.networks.pipeline import Latents
from distill_lib.sdxs.tiny_unet import distill_unet
from distill_lib.teachers.latents import Pairs


def fit_small_unet(
    student: Network, pairs: Pairs, settings: TrainSettings, lambda_f: float = 1.0, denoising: float = 0.0
) -> Trained:
    """A cut network taught by the whole one on the teacher's own latents, eqs. 6 to 8.

    Args:
        student: the cut network; the same object is trained.
        pairs: of the teacher that it was cut from.
        settings: of the training.
        lambda_f, denoising: as in `tiny_unet.distill_unet`.
    """
    model = pairs.model
    config = {"settings": settings, "pairs": pairs, "student": student, "lambda_f": lambda_f, "denoising": denoising}
    run = Run("small-unet", config, fit_small_unet)
    data = Latents(pairs.x, pairs.prompts, model)
    training = distill_unet(student, model.network, data, settings, run, lambda_f, denoising)
    return Trained(student, finish(student, training, run, "small U-Net"), run)

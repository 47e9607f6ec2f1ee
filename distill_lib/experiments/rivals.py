"""What notebook 14 trains live to set beside SDXS: a consistency model, and the whole U-Net distilled to one step.

Song et al. 2024 (arXiv 2403.16627), Table 3, has LCM and SD Turbo there, which are other people's models; ours are of
the same teacher as the student, so that nothing but the method differs.
"""

from functools import partial

from distill_lib.engine.loop import finish
from distill_lib.engine.store import Run
from distill_lib.experiments.finished import finished
from distill_lib.experiments.text_to_image import Task
from distill_lib.networks.adapter import Trained
from distill_lib.networks.autoencoders import TinyDecode
from distill_lib.profiles import Small
from distill_lib.sdxs.consistency import distill_consistency
from distill_lib.sdxs.feature_matching import ByMatcher, one_step_loss
from distill_lib.sdxs.one_step import fit_on_pairs
from distill_lib.shipped import pretrained
from distill_lib.teachers.latents import Remembered


def consistency_model(job: Task, sizes: Small, seed: int) -> Trained:
    """A consistency model of all w up to `job.w_max`, from the finished stage one of a task."""
    student, settings = job.first[0].student(), sizes.consistency.with_seed(seed)
    teacher, arguments = job.model.network, ((0.0, job.w_max), sizes.easy_tuning)
    config = {
        "settings": settings,
        "sizes": arguments,
        "student": student,
        "teacher": teacher,
        "pictures": job.pictures,
    }
    run = Run("consistency", config, distill_consistency)
    training = distill_consistency(student, teacher, job.pictures, settings, run, *arguments)
    return finished(Trained(student, finish(student, training, run, "consistency"), run))


def whole_unet(job: Task, sizes: Small, seed: int) -> Trained:
    """The teacher's own U-Net trained to one step, on the pairs and by the loss of the small one's warm-up."""
    model, world = job.model, job.sizes.pipeline
    pairs, tiny = pretrained.pairs(world, model).part(0, sizes.pairs), TinyDecode(pretrained.tiny_decoder(world))
    see = partial(ByMatcher, pretrained.matcher("cnn"))
    start = model.network.like(pretrained.pipeline(world).pipe.unet.requires_grad_(True))
    cost = one_step_loss("matching", see(tiny), see(Remembered(pairs)))
    return finished(fit_on_pairs(start, pairs, cost, sizes.matching.with_seed(seed)))

"""What notebook 14 trains live to set beside SDXS: a consistency model, and the whole U-Net distilled to one step.

Song et al. 2024 (arXiv 2403.16627), Table 3, has LCM and SD Turbo there, which are other people's models; ours are of
the same teacher as the student, so that nothing but the method differs.
"""

from distill_lib.engine.loop import finish
from distill_lib.engine.store import Run
from distill_lib.experiments.text_to_image import Task
from distill_lib.networks.adapter import Trained
from distill_lib.networks.autoencoders import TinyDecode
from distill_lib.networks.pipeline import Latents
from distill_lib.profiles import Small
from distill_lib.sdxs.consistency import distill_consistency
from distill_lib.sdxs.feature_matching import one_step_loss, views
from distill_lib.sdxs.one_step import regressed
from distill_lib.shipped import pretrained
from distill_lib.teachers.latents import Remembered


def consistency_model(job: Task, how: Small, seed: int) -> Trained:
    """A consistency model of all w up to `job.w_max`, from the finished stage one of a task."""
    first, key = job.first
    student, settings = first.student(), how.consistency.with_seed(seed)
    w_range, points = (0.0, job.w_max), how.consistency_points
    config = {"settings": settings, "w_max": job.w_max, "points": points, "first": key, "teacher": job.parents}
    run = Run("consistency", config, distill_consistency, Latents)
    training = distill_consistency(student, job.told.network, job.pictures, settings, run, w_range, points)
    return Trained(student, finish(student, training, run, "consistency"), run)


def whole_unet(job: Task, how: Small, seed: int) -> Trained:
    """The teacher's own U-Net trained to one step, on the pairs and by the loss of the small one's warm-up."""
    told, world = job.told, job.how.pipeline
    teacher, pairs = told.network, pretrained.pairs(world, told).part(0, how.pairs)
    matcher, tiny = pretrained.matcher("cnn"), TinyDecode(pretrained.tiny_decoder(world))
    see, wanted = (views("cnn", matcher, teacher, decode) for decode in (tiny, Remembered(pairs)))
    start = teacher.like(pretrained.pipeline(world).pipe.unet.requires_grad_(True))
    shipped = *(f"{kind}-{world}" for kind in ("pairs", "tinydecoder", "tinyunet", "onestep")), "matcher-cnn"
    about = {"loss": "matching", "network": "whole"} | {name: pretrained.key(name) for name in shipped}
    cost = one_step_loss("matching", see, wanted)
    return regressed(start, pairs, cost, about, how.matching.with_seed(seed))

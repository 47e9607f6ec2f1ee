"""Students leave as diffusers folders: `unet/`, `scheduler/` and a README with the loop that runs them, or a whole
pipeline where the student is one of text to image.

`run_readme_loop` executes that loop as a reader would, without this library.
"""

import contextlib
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

from diffusers import (
    AutoencoderKL,
    AutoencoderTiny,
    DDIMScheduler,
    StableDiffusionPipeline,
    StableDiffusionXLPipeline,
    UNet2DConditionModel,
)
from torch import Tensor

from distill_lib.diffusion.schedules import OURS
from distill_lib.networks.adapter import Network
from distill_lib.networks.autoencoders import TinyDecode
from distill_lib.networks.folders import plain_pipeline

_NUMBERS = re.compile(r"\d+|\{\w+\}")  # of a README, or the places for them in its card


def card(name: str) -> str:
    """The README of a kind of folder, with places for what differs: a file of `shipped/cards`."""
    return (Path(__file__).parent / "cards" / f"{name}.md").read_text()


def export_pipeline(
    folder: Path,
    pipe: StableDiffusionPipeline,
    unet: UNet2DConditionModel,
    n_steps: int,
    description: str,
    w_max: float,
    prompt: str,
) -> Path:
    """Write a text-to-image student to `folder` as diffusers' own pipeline, with the other parts of its teacher's.

    Args:
        folder: an older one there stays whole until the new one is.
        pipe: the teacher's pipeline.
        unet: the student's, which takes w and predicts v.
        n_steps, description, w_max, prompt: written into the folder's README.
    """
    values = {"n_steps": n_steps, "description": description, "w_max": w_max, "prompt": prompt, "folder": folder.name}
    return _write(folder, assembled(pipe, unet, pipe.vae), card("text_student").format(**values))


def export_plain(
    folder: Path, pipe: StableDiffusionPipeline, net: Network, *, description: str, n_steps: int, prompt: str
) -> Path:
    """Write a student that takes no w to `folder`, as it predicts and with the decoder that it draws through.

    Args:
        folder, pipe, description, n_steps, prompt: as in `export_pipeline`; one step needs no guidance.
        net: the student behind its adapter.
    """
    vae = net.decode.tiny if isinstance(net.decode, TinyDecode) else pipe.vae
    scale = 1.0 if n_steps == 1 else 7.5
    values = {"description": description, "n_steps": n_steps, "prompt": prompt, "folder": folder.name, "scale": scale}
    student = assembled(pipe, net.module, vae, net.predicts)
    return _write(folder, student, card("plain").format(**values))


def export_decoder(folder: Path, tiny: AutoencoderTiny, description: str) -> Path:
    """Write a tiny decoder to `folder` as diffusers' AutoencoderTiny, whose encoder is not trained."""
    with replaced(folder) as part:
        tiny.save_pretrained(part, safe_serialization=True)
        (part / "README.md").write_text(card("decoder").format(description=description, folder=folder.name))
    return folder


def assembled(
    pipe: StableDiffusionPipeline,
    unet: UNet2DConditionModel,
    vae: AutoencoderKL | AutoencoderTiny,
    predicts: str = "v_prediction",
) -> StableDiffusionPipeline:
    """A pipeline of a student's U-Net and a decoder; all else is that of its teacher's, `pipe`."""
    scheduler = DDIMScheduler.from_config(
        pipe.scheduler.config,
        prediction_type=predicts,
        timestep_spacing="trailing",
        clip_sample=False,
        set_alpha_to_one=True,  # Stable Diffusion's own says False, and would leave a last trace of noise
    )
    changed = {"vae": vae, "unet": unet, "scheduler": scheduler}
    if isinstance(pipe, StableDiffusionXLPipeline):
        changed |= {"force_zeros_for_empty_prompt": pipe.config.force_zeros_for_empty_prompt, "add_watermarker": False}
        return type(pipe)(**pipe.components | changed)
    return plain_pipeline(**changed, text_encoder=pipe.text_encoder, tokenizer=pipe.tokenizer)


def _write(folder: Path, student: StableDiffusionPipeline, readme: str, shards: str = "10GB") -> Path:
    with replaced(folder) as part:
        student.save_pretrained(part, safe_serialization=True, max_shard_size=shards)
        (part / "README.md").write_text(readme)
    return folder


def export_one_step(
    folder: Path,
    pipe: StableDiffusionPipeline,
    unet: UNet2DConditionModel,
    tiny: AutoencoderTiny,
    description: str,
    prompt: str,
) -> Path:
    """Write a student of one step to `folder` as diffusers' own pipeline, with its tiny decoder, in files of 7 MB.

    Args:
        folder, pipe, description, prompt: as in `export_pipeline`.
        unet: the student's, which takes no w and predicts v.
        tiny: the decoder.
    """
    readme = card("one_step").format(description=description, prompt=prompt, folder=folder.name)
    return _write(folder, assembled(pipe, unet, tiny), readme, "7MB")


@contextlib.contextmanager
def replaced(folder: Path) -> Iterator[Path]:
    """A folder to write to, which takes the place of an older one when all is written."""
    part, old = (folder.with_name(f".{folder.name}.{suffix}") for suffix in ("part", "old"))
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir(parents=True)
    yield part
    shutil.rmtree(old, ignore_errors=True)
    if folder.exists():
        folder.rename(old)
    part.rename(folder)
    shutil.rmtree(old, ignore_errors=True)


def export_student(
    folder: Path, unet: UNet2DConditionModel, n_steps: int, title: str, description: str, w_max: float
) -> Path:
    """Write a student to `folder`; an older one there stays whole until the new one is."""
    half = unet.config.sample_size
    text = card("student").format(
        title=title,
        description=description,
        w_max=w_max,
        n_steps=n_steps,
        half=half,
        side=2 * half,
        last=unet.config.num_class_embeds - 2,
        features=unet.config.time_cond_proj_dim // 2,
        last_feature=unet.config.time_cond_proj_dim // 2 - 1,
        tokens=unet.config.cross_attention_dim,
    )
    with replaced(folder) as part:
        unet.save_pretrained(part / "unet", safe_serialization=True)
        OURS.to_scheduler().save_pretrained(part / "scheduler")
        (part / "README.md").write_text(text)
    return folder


def _code(readme: str) -> str:
    """The first block of Python in a README, empty where there is none."""
    match = re.search(r"```python\n(.*?)```", readme, re.DOTALL)
    return match[1] if match else ""


def run_readme_loop(folder: Path, label: Tensor, w: float, z_T: Tensor) -> Tensor:
    """Execute the code block of the folder's README on classes (B,), w and noise; pictures (B, 3, R, R).

    Raises:
        ValueError: the code is not what `export_student` writes, numbers apart. Code of other people is never run.
    """
    code = _code((folder / "README.md").read_text())
    if _NUMBERS.sub("#", code) != _NUMBERS.sub("#", _code(card("student"))):
        raise ValueError(
            f"the code in {folder / 'README.md'} is not what this library writes; export the student again"
        )
    space: dict = {}
    exec(compile(code, str(folder / "README.md"), "exec"), space)
    return space["generate"](folder, label, w, z_T)

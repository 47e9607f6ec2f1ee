"""Students leave as diffusers folders: `unet/`, `scheduler/` and a README with the loop that runs them.

`run_readme_loop` executes that loop as a reader would, without this library.
"""

import re
import shutil
from pathlib import Path

from diffusers import UNet2DConditionModel
from torch import Tensor

from distill_lib.schedules import OURS
from distill_lib.store import atomic

__all__ = ["export_student", "run_readme_loop"]

_README = '''# {title}

{about}

Guidance strengths w in [0, {w_max:g}] (diffusers' guidance_scale is 1 + w); {n_steps} step(s); classes 0 to {last}.

```python
import math

import torch
from diffusers import DDIMScheduler, UNet2DConditionModel
from torch.nn.functional import pixel_shuffle


def generate(folder, label, w, z, n_steps={n_steps}):
    """Pictures (B, 3, {side}, {side}) in [-1, 1] for classes (B,), strength w and noise z (B, 12, {half}, {half})."""
    unet = UNet2DConditionModel.from_pretrained(folder, subfolder="unet").float()
    scheduler = DDIMScheduler.from_pretrained(folder, subfolder="scheduler")
    scheduler.set_timesteps(n_steps)
    f = torch.exp(torch.arange({features}) * -(math.log(10000) / {last_feature}))
    features = torch.cat([(1000 * w * f).sin(), (1000 * w * f).cos()]).expand(len(z), -1)
    tokens = torch.zeros(len(z), 1, {tokens})
    for t in scheduler.timesteps:
        with torch.no_grad():
            v = unet(z, t, tokens, class_labels=label, timestep_cond=features).sample
        z = scheduler.step(v, t, z).prev_sample
    return pixel_shuffle(z, 2).clamp(-1, 1)
```
'''


def export_student(
    folder: Path, unet: UNet2DConditionModel, n_steps: int, title: str, about: str, w_max: float
) -> Path:
    """Write a student to `folder`; an older one there stays whole until the new one is."""
    part = folder.with_name(f".{folder.name}.part")
    old = folder.with_name(f".{folder.name}.old")
    shutil.rmtree(part, ignore_errors=True)
    unet.save_pretrained(part / "unet", safe_serialization=True)
    OURS.to_scheduler().save_pretrained(part / "scheduler")
    half = unet.config.sample_size
    text = _README.format(
        title=title,
        about=about,
        w_max=w_max,
        n_steps=n_steps,
        half=half,
        side=2 * half,
        last=unet.config.num_class_embeds - 2,
        features=unet.config.time_cond_proj_dim // 2,
        last_feature=unet.config.time_cond_proj_dim // 2 - 1,
        tokens=unet.config.cross_attention_dim,
    )
    with atomic(part / "README.md") as file:
        file.write_text(text)
    shutil.rmtree(old, ignore_errors=True)
    if folder.exists():
        folder.rename(old)
    part.rename(folder)
    shutil.rmtree(old, ignore_errors=True)
    return folder


def run_readme_loop(folder: Path, label: Tensor, w: float, z_T: Tensor) -> Tensor:
    """Execute the code block of the folder's README on classes (B,), w and noise; pictures (B, 3, R, R)."""
    code = re.search(r"```python\n(.*?)```", (folder / "README.md").read_text(), re.DOTALL)[1]
    space: dict = {}
    exec(compile(code, str(folder / "README.md"), "exec"), space)
    return space["generate"](folder, label, w, z_T)

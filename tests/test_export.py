"""A student's folder runs with diffusers alone, and its README is the proof."""

import pytest
import torch

from distill_lib.diffusion import noise
from distill_lib.diffusion.pixels import from_patches
from distill_lib.diffusion.samplers import sample
from distill_lib.networks.adapter import Network, denoise_student
from distill_lib.networks.unet import build_unet, student_of
from distill_lib.shipped.export import export_student, run_readme_loop


@pytest.mark.parametrize("n_steps", [1, 4])
def test_the_loop_in_the_readme_gives_our_picture(tmp_path, n_steps):
    torch.manual_seed(0)
    unet = student_of(build_unet(resolution=8, n_classes=3, channels=(16, 32)))
    torch.nn.init.normal_(unet.time_embedding.cond_proj.weight, std=0.1)
    unet.eval().requires_grad_(False)
    folder = export_student(tmp_path / "student", unet, n_steps, "Title", "About.", 4.0)
    label, w = torch.tensor([0, 1, 2, 0]), torch.tensor([1.5])
    z_T = noise.normal(0, "z_T", 0, torch.arange(4), (12, 4, 4))
    denoise = denoise_student(Network(unet, bf16=False), label, w.expand(4))
    ours = from_patches(sample(denoise, z_T, n_steps)).clamp(-1, 1)
    assert torch.allclose(run_readme_loop(folder, label, w, z_T), ours, atol=1e-4)  # float32, n_steps steps
    assert len((folder / "README.md").read_text().split("```")[1].splitlines()) <= 26  # imports, and a loop of 20 lines
    assert not list(tmp_path.glob(".*part*"))


def test_code_that_somebody_wrote_into_a_folder_is_never_run(tmp_path):
    unet = student_of(build_unet(resolution=8, n_classes=3, channels=(16, 32)))
    folder = export_student(tmp_path / "student", unet, 4, "Title", "About.", 4.0)
    text = (folder / "README.md").read_text()
    marker = tmp_path / "ran"
    (folder / "README.md").write_text(text.replace("import math\n", f"import math\nopen({str(marker)!r}, 'w')\n"))
    with pytest.raises(ValueError, match="is not what this library writes"):
        run_readme_loop(folder, torch.tensor([0]), torch.tensor([1.0]), torch.zeros(1, 12, 4, 4))
    assert not marker.exists()

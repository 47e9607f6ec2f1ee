"""Every notebook runs at `smoke` under nbval, and turns red when the library is wrong."""

import ast
import os
import shutil
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest

from distill_lib.engine.reach import notebook_files
from distill_lib.paths import ROOT
from distill_lib.run.notebooks import artefacts_of, check_parameters, names

NAMES = names()

# A fault a notebook: (file, right, wrong), each a silent bug that such code has had.
FAULTS = {
    "00_start_here": ("diffusion/guidance.py", "(1 + w) * v_cond - w * v_uncond", "w * v_cond + (1 - w) * v_uncond"),
    "01_guided_teacher": (
        "diffusion/guidance.py",
        "v_cond, v_uncond = both.chunk(2)",
        "v_uncond, v_cond = both.chunk(2)",
    ),
    "02_guidance_distillation": ("networks/unet.py", "nn.init.zeros_(student", "nn.init.ones_(student"),
    "03_step_halving": ("guided/halving.py", "z_m, m.clamp(min=1), s,", "z_m, s.clamp(min=1), m,"),
    "04_ablations": ("experiments/ablations.py", "t, label, self.null), w)", "t, label, self.null), 0 * w)"),
    "05_style_transfer": (
        "guided/encoder.py",
        "(sigma_s * alpha_t - alpha_s * sigma_t)",
        "(sigma_s * alpha_t + alpha_s * sigma_t)",
    ),
    "06_latent_teacher": ("networks/pipeline.py", ".latent_dist.mean * vae", ".latent_dist.mean * 3 * vae"),
    "07_text_to_image_in_few_steps": (
        "shipped/export.py",
        'prediction_type="v_prediction"',
        'prediction_type="epsilon"',
    ),
    "08_editing": ("measure/editing.py", "add_noise(x, eps, t, schedule)", "add_noise(eps, x, t, schedule)"),
    "09_tiny_decoder": ("teachers/autoencoder.py", "return -_mean(fake)", "return _mean(fake)"),
    "10_tiny_unet": ("sdxs/tiny_unet.py", "+ lambda_f * feature_loss(", "+ feature_loss("),
    "11_one_step": (
        "sdxs/score_distillation.py",
        "direction = x_online - x_offline",
        "direction = x_online + x_offline",
    ),
    "12_lora": ("networks/lora.py", "fuse_lora(lora_scale=scale)", "fuse_lora()"),
    "13_controlnet": ("networks/controlnet.py", "fresh = moved and ", "fresh = not moved and "),
    "14_speed": (
        "measure/systems.py",
        "nfe(self.n_steps, self.w, not self.net.takes_w), 1), strict",
        "self.n_steps, 1), strict",
    ),
    "15_claims": ("diffusion/errors.py", ".clamp(1.0, clamp)", ".clamp(0.5, clamp)"),
    "16_rulers": ("measure/distances.py", "h[torch.arange(len(part)), part] = 0", "h = h"),
}


def cells(name: str) -> list:
    return nbformat.read(ROOT / "notebooks" / f"{name}.ipynb", as_version=4).cells


def nbval(name: str, tmp_path: Path, *options: str, library: Path = ROOT) -> subprocess.CompletedProcess:
    environment = os.environ | {
        "DISTILL_PROFILE": "smoke",
        "DISTILL_FIGURES": str(tmp_path / "figures"),
        "DISTILL_RUNS": str(tmp_path / "runs"),
        "PYTHONPATH": str(library),
    }
    notebook = str(ROOT / "notebooks" / f"{name}.ipynb")
    command = [sys.executable, "-m", "pytest", "--nbval-lax", "-q", "-p", "no:cacheprovider", *options, notebook]
    return subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)


@pytest.mark.notebook
@pytest.mark.parametrize("name", NAMES)
def test_a_notebook_passes_nbval_at_smoke_and_writes_its_artefacts(name, tmp_path):
    result = nbval(name, tmp_path)
    assert result.returncode == 0, result.stdout[-3000:]
    written = {path.stem for path in (tmp_path / "figures" / "smoke").glob("*.json")}
    assert set(artefacts_of(name)) <= written


@pytest.mark.notebook
@pytest.mark.parametrize("name", NAMES)
def test_a_fault_in_the_library_turns_a_notebook_red(name, tmp_path):
    file, right, wrong = FAULTS[name]
    library = tmp_path / "checkout"
    shutil.copytree(ROOT / "distill_lib", library / "distill_lib", ignore=shutil.ignore_patterns("__pycache__"))
    (library / "pretrained").symlink_to(ROOT / "pretrained")
    source = library / "distill_lib" / file
    assert right in source.read_text()
    source.write_text(source.read_text().replace(right, wrong))
    result = nbval(name, tmp_path, "-x", library=library)
    assert result.returncode == 1, result.stdout[-3000:]
    assert "mismatch" in result.stdout or "Error" in result.stdout


@pytest.mark.parametrize("name", NAMES)
def test_a_notebook_has_the_form_that_readers_expect(name):
    found = cells(name)
    code = [cell for cell in found if cell.cell_type == "code"]
    assert 12 <= len(found) <= 45
    assert code[0].metadata["tags"] == ["parameters"]
    assert sum("nbval-check-output" in cell.metadata.get("tags", []) for cell in code) >= 4
    assert not any("class " in line for cell in code for line in cell.source.splitlines() if line.startswith("class "))


WITH_LONG_CELLS = {name for name in NAMES if name[:2] not in ("00", "03", "13", "16")}


def only_imports(source: str) -> bool:
    return all(isinstance(node, ast.Import | ast.ImportFrom) for node in ast.parse(source).body)


@pytest.mark.parametrize("name", NAMES)
def test_cells_are_short_and_the_set_up_stands_in_a_few_lines_behind_folded_imports(name):
    if name in WITH_LONG_CELLS:
        pytest.skip("not yet")
    code = [cell for cell in cells(name) if cell.cell_type == "code"]
    assert not [cell.source for cell in code if len(cell.source.splitlines()) > 15]
    folded = [cell for cell in code if "hide-input" in cell.metadata.get("tags", [])]
    assert folded and all(cell.metadata.jupyter == {"source_hidden": True} for cell in folded)
    assert folded == [cell for cell in code if only_imports(cell.source)] == code[1 : len(folded) + 1]
    assert "session(" in code[len(folded) + 1].source
    assert len(code[len(folded) + 1].source.splitlines()) <= 8


@pytest.mark.parametrize("name", NAMES)
def test_no_notebook_branches_on_a_profile(name):
    assert not any("profile ==" in cell.source or "settings.name ==" in cell.source for cell in cells(name))


def test_a_notebook_reaches_the_library_files_that_make_it_stale():
    reached = {
        path.relative_to(ROOT).as_posix() for path in notebook_files(ROOT / "notebooks" / "03_step_halving.ipynb")
    }
    assert {
        "distill_lib/guided/halving.py",
        "distill_lib/diffusion/samplers.py",
        "distill_lib/diffusion/noise.py",
    } <= reached
    assert "distill_lib/run/bench.py" not in reached


def test_an_unknown_parameter_is_named_with_those_that_exist():
    with pytest.raises(ValueError, match=r"no parameter 'setps'; it has profile, seed, dataset, ws, steps"):
        check_parameters("03_step_halving", {"setps": [4]})


def test_a_parameter_of_the_wrong_type_is_refused():
    with pytest.raises(ValueError, match="should be of type list"):
        check_parameters("03_step_halving", {"ws": 1.0})

"""Whole notebooks on a teacher that somebody brings: every cell that is not left out, as the command runs them."""

import matplotlib
import pytest
from test_any_teacher import file_of_prompts, some_judges
from tiny_pipelines import tiny_sdxl, tiny_stable_diffusion

from distill_lib.engine import store
from distill_lib.experiments import foreign
from distill_lib.measure.rows import read_rows
from distill_lib.run.notebooks import code_cells, for_parameters

TEACHERS = {"SD": lambda: tiny_stable_diffusion("epsilon", "EulerDiscreteScheduler"), "XL": tiny_sdxl}


@pytest.mark.notebook
@pytest.mark.parametrize(
    ("name", "kind", "artefact"), [("10_tiny_unet", "SD", "s-unet"), ("09_tiny_decoder", "XL", "s-decoder")]
)
def test_a_notebook_goes_through_on_another_teacher(name, kind, artefact, runs, tmp_path, monkeypatch):
    monkeypatch.setenv("DISTILL_FIGURES", str(tmp_path / "figures"))
    monkeypatch.setattr(foreign, "foreign_judges", lambda judges: some_judges())
    matplotlib.use("Agg")
    TEACHERS[kind]().save_pretrained(tmp_path / "model", safe_serialization=True)
    given = {"teacher": str(tmp_path / "model"), "prompts": file_of_prompts(tmp_path)}
    space = {}
    for cell in code_cells(for_parameters(name, given)):
        exec(compile(cell.source, f"{name}, cell {cell.id}", "exec"), space)
        if "parameters" in cell.metadata.get("tags", []):
            space |= given | {"profile": "smoke"}
    (rows,) = (tmp_path / "figures" / "smoke").glob(f"{artefact}-model-*.json")
    assert {"fid_teacher", "clip"} <= {row["metric"] for row in read_rows(rows)}
    assert [*(store.RUNS / "students").iterdir()]

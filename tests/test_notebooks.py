"""Every notebook runs at `smoke` under nbval, and has the form that readers expect."""

import ast
import os
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest

from distill_lib.engine.reach import notebook_files
from distill_lib.measure.rows import read_rows
from distill_lib.papers.editions import second_edition
from distill_lib.paths import ROOT
from distill_lib.run.notebooks import artefacts_of, check_parameters, names

NAMES = names()


def cells(name: str) -> list:
    return nbformat.read(ROOT / "notebooks" / f"{name}.ipynb", as_version=4).cells


def nbval(name: str, tmp_path: Path, runs: Path) -> subprocess.CompletedProcess:
    environment = os.environ | {
        "DISTILL_PROFILE": "smoke",
        "DISTILL_FIGURES": str(tmp_path / "figures"),
        "DISTILL_RUNS": str(runs),
        "PYTHONPATH": str(ROOT),
    }
    notebook = str(ROOT / "notebooks" / f"{name}.ipynb")
    command = [sys.executable, "-m", "pytest", "--nbval-lax", "-q", "-p", "no:cacheprovider", notebook]
    return subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)


def reads_of_claims() -> dict[str, set[tuple[str, str]]]:
    """What the claims and gates of the second edition read: artefact to (metric, method)."""
    editions = [second_edition(paper) for paper in ("guided", "sdxs")]
    reads = {}
    for claim in [x for edition in editions for x in [*edition.gates, *edition.claims]]:
        for part in claim.effect:
            for select in part.selects():
                methods = select.method if isinstance(select.method, list) else [select.method]
                artefact = select.artefact or part.artefact
                reads.setdefault(artefact, set()).update((select.metric, method) for method in methods if method)
    return reads


EARLIER = ("earlier", "earlier, cut")
"""Methods whose weights are not shipped yet."""
NOT_WRITTEN = {
    "g-abl-range": {("fid_inf", "w from 0 to 2")},  # smoke has fewer ranges
    "s-abl-batch": {  # smoke has smaller batches
        ("fid_teacher", "32 pairs a step"),
        ("fid_teacher", "128 pairs a step, as many updates"),
    },
    "s-abl-noise": {("edge_f1", f"{share} anew") for share in (0.25, 0.5, 0.75)},  # smoke has fewer shares
    "s-fig7": {("prompt_accuracy", method) for method in EARLIER},
    "s-tab3": {(metric, method) for metric in ("clip", "prompt_accuracy", "fid_inf") for method in EARLIER},
}
"""Rows that claims read and that no notebook writes at smoke."""


def missing_rows(folder: Path, name: str) -> dict[str, set[tuple[str, str]]]:
    """What claims read of a notebook's artefacts and no row of them says."""
    missing = {}
    for artefact, wanted in reads_of_claims().items():
        if artefact in artefacts_of(name):
            rows = {(row["metric"], row.get("method")) for row in read_rows(folder / f"{artefact}.json")}
            missing[artefact] = wanted - rows - NOT_WRITTEN.get(artefact, set())
    return {artefact: absent for artefact, absent in missing.items() if absent}


@pytest.fixture(scope="module")
def kept(tmp_path_factory):
    """One place for runs and caches, as `make figures` has it: no notebook trains or draws again that another has."""
    return tmp_path_factory.mktemp("kept") / "runs"


@pytest.mark.notebook
@pytest.mark.parametrize("name", NAMES)
def test_a_notebook_passes_nbval_at_smoke_and_writes_its_artefacts(name, tmp_path, kept):
    result = nbval(name, tmp_path, kept)
    assert result.returncode == 0, result.stdout[-3000:]
    written = {path.stem for path in (tmp_path / "figures" / "smoke").glob("*.json")}
    assert set(artefacts_of(name)) <= written
    assert not missing_rows(tmp_path / "figures" / "smoke", name)


@pytest.mark.parametrize("name", NAMES)
def test_a_notebook_has_the_form_that_readers_expect(name):
    result = cells(name)
    code = [cell for cell in result if cell.cell_type == "code"]
    assert 12 <= len(result) <= 55
    assert code[0].metadata["tags"] == ["parameters"]
    assert sum("nbval-check-output" in cell.metadata.get("tags", []) for cell in code) >= 4
    assert not any("class " in line for cell in code for line in cell.source.splitlines() if line.startswith("class "))


def only_imports(source: str) -> bool:
    return all(isinstance(node, ast.Import | ast.ImportFrom) for node in ast.parse(source).body)


@pytest.mark.parametrize("name", NAMES)
def test_cells_are_short_and_the_set_up_stands_in_a_few_lines_behind_folded_imports(name):
    code = [cell for cell in cells(name) if cell.cell_type == "code"]
    assert not [cell.source for cell in code if len(cell.source.splitlines()) > 15]
    folded_pair = [cell for cell in code if "hide-input" in cell.metadata.get("tags", [])]
    assert folded_pair and all(cell.metadata.jupyter == {"source_hidden": True} for cell in folded_pair)
    assert folded_pair == [cell for cell in code if only_imports(cell.source)] == code[1 : len(folded_pair) + 1]
    assert "session(" in code[len(folded_pair) + 1].source
    assert len(code[len(folded_pair) + 1].source.splitlines()) <= 8


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
    assert "distill_lib/run/drawing.py" not in reached


def test_an_unknown_parameter_is_named_with_those_that_exist():
    with pytest.raises(ValueError, match=r"no parameter 'setps'; it has profile, seed, dataset, ws, steps"):
        check_parameters("03_step_halving", {"setps": [4]})


def test_a_parameter_of_the_wrong_type_is_refused():
    with pytest.raises(ValueError, match="should be of type list"):
        check_parameters("03_step_halving", {"ws": 1.0})

"""`make slides`: the lesson of docs/lesson-90min.md as slides, from the cells of notebooks that are tagged for it.

A cell with the tag `slide` is one slide; `slide_title` in its metadata is the sentence above it. A cell of code shows
what is stored as its outputs, one of Markdown its equations, or all of its text below the heading where it has none.
`slide_before` names the cell whose slide would answer a question, which is then asked first.

runs/slides/source/    the deck, its pictures, and site/slides (configuration, style)
runs/slides/html/      the slides; opened by any web server, without a network
"""

import argparse
import base64
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

from distill_lib.engine.files import atomic
from distill_lib.paths import ROOT, runs_folder
from distill_lib.report.site.build import installed

ORDER = ("14_speed", "00_start_here", "02_guidance_distillation", "03_step_halving", "11_one_step", "15_claims")
"""Notebooks in the order of the lesson; exercises of a notebook come after it."""
TITLE = "Diffusion in few steps"
_BELOW = "On Distillation of Guided Diffusion Models (Meng et al. 2023) and SDXS (Song et al. 2024), measured again"
_EXTRA = ("sphinx", "myst_parser", "sphinx_revealjs")
Cell = dict[str, Any]


def tagged_cells(root: Path, notebook: str) -> list[Cell]:
    """The cells of a notebook that are slides, and then those of its exercises, but for those asked before.

    Raises:
        ValueError: a slide has no sentence above it, or stands before a cell that is no slide.
    """
    cells = []
    for file in (f"notebooks/{notebook}.ipynb", f"notebooks/exercises/{notebook}.ipynb"):
        if (root / file).exists():
            every = json.loads((root / file).read_text(encoding="utf-8"))["cells"]
            cells += [cell for cell in every if "slide" in cell["metadata"].get("tags", [])]
    if nameless := [cell["id"] for cell in cells if not cell["metadata"].get("slide_title")]:
        raise ValueError(f"{notebook}: cell {nameless[0]} is tagged `slide`; give it `slide_title` in its metadata")
    for cell in [cell for cell in cells if "slide_before" in cell["metadata"]]:
        cells.remove(cell)
        ids = [other["id"] for other in cells]
        if (answer := cell["metadata"]["slide_before"]) not in ids:
            raise ValueError(f"{notebook}: cell {cell['id']} stands before {answer}, which is no slide")
        cells.insert(ids.index(answer), cell)
    return cells


def slide(cell: Cell, pictures: dict[str, bytes]) -> str:
    """One slide in Markdown; pictures of its outputs are added to `pictures` by the name of their file."""
    parts = [f"## {cell['metadata']['slide_title']}"]
    if cell["cell_type"] == "markdown":
        text = "".join(cell["source"])
        equations = re.findall(r"\$\$.*?\$\$", text, re.DOTALL)
        whole = [re.sub(r"[,.;](\s*\$\$)$", r"\1", equation) for equation in equations]  # no sentence goes on below
        parts += whole or [re.sub(r"^#.*\n", "", text).strip()]
    for number, output in enumerate(cell.get("outputs", [])):
        data = {kind: "".join(value) for kind, value in output.get("data", {}).items()}
        if "image/png" in data:
            name = f"{cell['id']}-{number}.png"
            pictures[name] = base64.b64decode(data["image/png"])
            parts.append(f"![{output.get('metadata', {}).get('image/png', {}).get('alt', '')}]({name})")
        elif text := data.get("text/markdown"):
            parts.append(text.strip())
    return "\n\n".join(parts)


def deck(root: Path) -> dict[str, bytes]:
    """The files of the deck by name: index.md, and its pictures."""
    pictures: dict[str, bytes] = {}
    slides = [slide(cell, pictures) for notebook in ORDER for cell in tagged_cells(root, notebook)]
    return {"index.md": "\n\n".join([f"# {TITLE}", _BELOW, *slides, ""]).encode()} | pictures


def build(root: Path, folder: Path) -> Path:
    """Write the deck of a checkout below a folder and build the slides.

    Returns:
        The folder of pages.

    Raises:
        ValueError: packages of the extra `site` are missing, or Sphinx could not build.
    """
    if missing := [name for name in _EXTRA if not installed(name)]:
        raise ValueError(f"slides need {', '.join(missing)}: give the command `make slides`, which installs them")
    source, html = folder / "source", folder / "html"
    files = deck(root)
    shutil.rmtree(source, ignore_errors=True)
    shutil.copytree(root / "site" / "slides", source)
    for name, content in files.items():
        with atomic(source / name) as part:
            part.write_bytes(content)
    # in a process of its own: Sphinx leaves settings behind that a second build of another kind stumbles over
    command = [sys.executable, "-m", "sphinx", "-q", "-b", "revealjs", "-d", folder / "doctrees", source, html]
    done = subprocess.run(command, stderr=subprocess.PIPE, text=True, check=False)
    print(done.stderr, end="", file=sys.stderr)
    if done.returncode:
        raise ValueError(f"Sphinx could not build the slides in {html}; its messages are above")
    return html


def main(arguments: list[str] | None = None) -> None:
    """Command line: build the slides, and say how to look at them."""
    argparse.ArgumentParser(prog="distill_lib.run slides", description="build the slides").parse_args(arguments)
    html = build(ROOT, runs_folder() / "slides")
    print(f"The slides lie in {html}. To show them:\n  {sys.executable} -m http.server --directory {html}")

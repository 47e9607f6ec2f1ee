"""Which page of the site holds what: chapters, notebooks, artefacts, and the pages of the repository.

The sources of the site mirror the repository, so that most links lead where they led: `notebooks/00_start_here.ipynb`
stays where it is, README.md becomes index.md, and `figures/00_start_here.md` shows what `figures/laptop` holds of it.
"""

import json
from dataclasses import dataclass
from pathlib import Path

from distill_lib.papers.manifest import PAPERS, load_paper
from distill_lib.paths import COMMITTED, ROOT
from distill_lib.report.notebook_map import COLUMNS, present

REST = {"bench", "chaos", "claims", "claims-fashion-mnist", "pace", "plans"}
"""Files of `figures/laptop` that are no figure and no table: pages link to them."""


@dataclass(frozen=True)
class Chapter:
    """A chapter of the site.

    Args:
        page: its first page, without suffix.
        title: its title.
        summary: a sentence below the title, in Markdown.
        columns: subjects of `notebook_map.COLUMNS` whose notebooks it holds, in their order.
        pages: further pages, without suffix.
    """

    page: str
    title: str
    summary: str
    columns: tuple[str, ...] = ()
    pages: tuple[str, ...] = ()


CHAPTERS = (
    Chapter(
        "learn",
        "Learn",
        "Noise, guidance and distillation: guided distillation (Meng et al.), from points in the plane to pictures.",
        ("In the plane", "Guided, pixels"),
    ),
    Chapter(
        "text-to-image",
        "Text to image",
        "The same two stages in latent space: a small Stable Diffusion, distilled to a few steps, draws and edits.",
        ("Guided, latents",),
    ),
    Chapter(
        "sdxs",
        "SDXS",
        "One step: a tiny decoder, a small U-Net, score distillation, LoRAs, ControlNets, and the cost of a picture.",
        ("SDXS",),
    ),
    Chapter(
        "evidence",
        "Evidence",
        "What the papers say, where they contradict themselves, what was measured here, and how to measure it again.",
        ("Evidence",),
        ("matrix", "CLAIMS", "LIMITS", "RESULTS"),
    ),
    Chapter(
        "course",
        "Course",
        "A lesson of 90 minutes, pictures under sliders, and exercises for each notebook, with folded solutions.",
        pages=(
            "docs/lesson-90min",
            "notebooks/explore",
            *(
                f"notebooks/exercises/{path.stem}"
                for path in sorted((ROOT / "notebooks" / "exercises").glob("*.ipynb"))
            ),
        ),
    ),
)
"""The chapters that hold notebooks, in reading order; each notebook is in one of them."""
FURTHER = {
    "Use": ("docs/distil-your-own", "live", "docs/run", "docs/cluster"),
    "Look up": ("docs/glossary", "references", "docs/code", "CONTRIBUTING", "LOG", "CHANGELOG"),
    "中文": ("README.zh",),
}
"""Further pages below the chapters, by heading; one whose source is not there is left out."""


def notebooks_of(chapter: Chapter) -> list[str]:
    """The notebooks of a chapter, in reading order."""
    names = present()
    return [names[number] for column in chapter.columns for number in COLUMNS[column] if number in names]


def pages(root: Path) -> dict[str, str]:
    """Pages and notebooks of a checkout, and the sources of the site that they become."""
    kept = [*root.glob("*.md"), *root.glob("docs/*.md"), *root.glob("notebooks/[0-9][0-9]_*.ipynb")]
    kept += [*root.glob("notebooks/exercises/*.ipynb"), *root.glob("notebooks/explore.ipynb")]
    names = [path.relative_to(root).as_posix() for path in sorted(kept)]
    return {name: "index.md" if name == "README.md" else name for name in names}


def artefacts(root: Path) -> dict[str, str]:
    """The artefacts of `figures/laptop`, each with the notebook that shows it.

    Those that no manifest names are looked for in the notebooks; real data stands beside the embedded world.

    Raises:
        ValueError: an artefact belongs to no notebook.
    """
    items = [item for name in PAPERS for item in [*load_paper(name).items, *load_paper(name).ours]]
    known = {artefact: item.notebook for item in items for artefact in item.artefacts if item.notebook}
    texts = {path.stem: path.read_text(encoding="utf-8") for path in sorted(root.glob("notebooks/[0-9][0-9]_*.ipynb"))}
    placed = {}
    for artefact in sorted({path.stem for path in (root / "figures" / COMMITTED).iterdir()} - REST):
        plain = artefact.removesuffix(suffix_of(artefact))
        named = [notebook for notebook, text in texts.items() if f'\\"{plain}\\"' in text]
        if not (notebook := known.get(artefact) or known.get(plain) or next(iter(named), None)):
            raise ValueError(f"figures/{COMMITTED}/{artefact} belongs to no notebook: name it in distill_lib/papers")
        placed[artefact] = notebook
    return placed


def suffix_of(artefact: str) -> str:
    """What the name of an artefact of real data ends in; empty for those of the embedded world."""
    return next((end for end in ("-fashion-mnist", "-cifar10", "-folder") if artefact.endswith(end)), "")


def record(root: Path, artefact: str) -> dict:
    """The file of rows of an artefact; empty where it has none."""
    path = root / "figures" / COMMITTED / f"{artefact}.json"
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}

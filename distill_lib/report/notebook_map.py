"""The notebooks on one sheet: what they are about, in which order they are read, and how long each took.

The minutes are those of the committed figures: the most seconds that a run had taken when it wrote one of a notebook's
artefacts. A run that found its trainings finished took fewer, and does not count.
"""

import json
import math
import textwrap
from pathlib import Path

from matplotlib.figure import Figure

from distill_lib.papers.manifest import PAPERS, load_paper
from distill_lib.paths import COMMITTED, ROOT
from distill_lib.report.boxes import Sheet
from distill_lib.report.style import PALETTE

COLUMNS = {
    "In the plane": ("00", "18"),
    "Guided, pixels": ("01", "02", "03", "04", "05", "17"),
    "Guided, latents": ("06", "07", "08"),
    "SDXS": ("09", "10", "11", "12", "13", "14"),
    "Evidence": ("15", "16"),
}
"""What the notebooks are about, by their numbers."""
_STEP, _HEIGHT, _WIDE, _HIGH = 15.0, 9.0, 13.6, 7.2


def present(folder: Path = ROOT / "notebooks") -> dict[str, str]:
    """The notebooks that are there, by their numbers."""
    return {path.stem[:2]: path.stem for path in sorted(folder.glob("[0-9][0-9]_*.ipynb"))}


def artefacts(notebook: str) -> set[str]:
    """The artefacts that the manifests know of a notebook."""
    items = [item for name in PAPERS for item in [*load_paper(name).items, *load_paper(name).ours]]
    return {artefact for item in items if item.notebook == notebook for artefact in item.artefacts}


def minutes(notebook: str, folder: Path = ROOT / "figures" / COMMITTED) -> int | None:
    """Minutes that a notebook took where all was computed, rounded up; None where nothing of it is committed."""
    paths = [path for path in (folder / f"{artefact}.json" for artefact in artefacts(notebook)) if path.exists()]
    seconds = [spent for path in paths for spent in _seconds(json.loads(path.read_text()))]
    return math.ceil(max(seconds) / 60) if seconds else None


def _seconds(record: dict) -> list[float]:
    every = [record, *record.get("made", {}).values()]
    return [made["seconds"] for made in every if "seconds" in made]


def notebook_map() -> Figure:
    """All notebooks, a column a subject, in the order in which they are read."""
    names = present()
    columns = {title: [names[n] for n in numbers if n in names] for title, numbers in COLUMNS.items()}
    most = max(len(column) for column in columns.values())
    subjects = "; ".join(f"{title}: {', '.join(column)}" for title, column in columns.items())
    alt = f"The notebooks in columns, each with the minutes that it took. {subjects}."
    title = f"The notebooks, and how long each takes at the profile {COMMITTED}"
    sheet = Sheet(_HEIGHT * most + 6.5, title, alt)
    last = None
    for i, (title, column) in enumerate(columns.items()):
        x = _STEP * (i + 0.5)
        sheet.words(x, sheet.height - 5.2, title, weight="bold")
        above = None
        for k, name in enumerate(column):
            spent = minutes(name)
            words = "\n".join(textwrap.wrap(name.replace("_", " "), 16))
            box = sheet.box(x, sheet.height - 11.2 - _HEIGHT * k, _WIDE, _HIGH, "", "data")
            sheet.words(x, box.y + (1.0 if spent else 0), words, linespacing=1.0)
            if spent:
                sheet.words(x, box.y - 2.3, f"{spent} min", color=PALETTE[0])
            if above:
                sheet.arrow(above.at("bottom"), box.at("top"))
            elif last:
                sheet.arrow(last.at("right"), box.at("left"))
            above, last = box, (last if above else box)
    return sheet.figure

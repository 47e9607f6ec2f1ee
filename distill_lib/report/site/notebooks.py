"""A published notebook as a page: its cells and outputs as they are, with links of the site; nothing is run."""

import json
from pathlib import Path
from typing import Any

from distill_lib.report.pages.claims import read_claims
from distill_lib.report.site.links import Places

Cell = dict[str, Any]
_PLANE = "00_start_here"  # its students are the points of the live page
_POINTS = """## In this browser

The students of this notebook, live: load them, then move w and the steps. [More models](../live.md)

```{raw} html
<iframe class="live" src="../live/index.html#points" title="Points in the plane, live" loading="lazy"></iframe>
```
"""


def label_of(notebook: str, cell: str) -> str:
    """The name of a cell as a place in the site."""
    return f"{notebook}-{cell}".lower()


def judged_cells(places: Places, notebook: str) -> set[str]:
    """The cells of a notebook that claims point to, by their ids."""
    cells = (entry["notebook_cell"] or "" for entry in read_claims(places.root / "figures"))
    return {cell for name, _, cell in (text.partition("#") for text in cells) if name == notebook and cell}


def page(places: Places, file: str, live: bool = False) -> str:
    """The source of a notebook's page: links lead into the site, pictures have their texts, judged cells have names.

    A notebook with exercises ends in a link to them; where there are live models, the first one in its students.
    """
    content = json.loads((places.root / file).read_text(encoding="utf-8"))
    notebook = Path(file).stem
    exercises = f"notebooks/exercises/{notebook}.ipynb"
    is_main = file == f"notebooks/{notebook}.ipynb"
    judged, cells = judged_cells(places, notebook) if is_main else set(), []
    for cell in content["cells"]:
        if cell["id"] in judged:
            cells.append(_markdown(f"at-{cell['id']}"[:64], f"({label_of(notebook, cell['id'])})="))
        cells.append(_relinked(places, cell, file))
    if live and notebook == _PLANE and is_main:
        cells.append(_markdown("at-live", _POINTS))
    if is_main and exercises in places.pages:
        cells.append(_markdown("at-exercises", f"[Exercises to this notebook](exercises/{notebook}.ipynb)"))
    return json.dumps(content | {"cells": cells}, ensure_ascii=False, sort_keys=True)


def _markdown(name: str, text: str) -> Cell:
    return {"cell_type": "markdown", "id": name, "metadata": {}, "source": text}


def _relinked(places: Places, cell: Cell, file: str) -> Cell:
    if cell["cell_type"] == "markdown":
        return cell | {"source": places.relinked("".join(cell["source"]), file)}
    outputs = [_output(places, output, file) for output in cell.get("outputs", [])]
    metadata = cell["metadata"]
    texts = [output.get("metadata", {}).get("image/png", {}).get("alt") for output in outputs]
    if alt := next(filter(None, texts), None):  # MyST-NB reads the text of a picture from its cell alone
        metadata = metadata | {"mystnb": metadata.get("mystnb", {}) | {"image": {"alt": alt}}}
    return cell | {"outputs": outputs, "metadata": metadata}


def _output(places: Places, output: Cell, file: str) -> Cell:
    data = output.get("data", {})
    if "text/markdown" not in data:
        return output
    return output | {"data": data | {"text/markdown": places.relinked("".join(data["text/markdown"]), file)}}

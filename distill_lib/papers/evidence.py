"""What stands behind a verdict: the cell of a notebook that shows its numbers, and how many of its rows were drawn by
code that differed from its commit."""

import json
import re
from collections.abc import Iterable
from functools import cache
from typing import Any

from distill_lib.papers.cells import Place
from distill_lib.papers.manifest import PAPERS, load_paper
from distill_lib.paths import ROOT


@cache
def notebook_cell(artefact: str) -> str | None:
    """NOTEBOOK#CELL where an artefact's table or picture is drawn, else its rows are written, else it is named.

    None where no cell does any of these. The manifest names the notebook, and the last cell of that kind counts.
    """
    items = [item for name in PAPERS for item in [*load_paper(name).items, *load_paper(name).ours]]
    for notebook in dict.fromkeys(item.notebook for item in items if artefact in item.artefacts):
        path = ROOT / "notebooks" / f"{notebook}.ipynb"
        cells = json.loads(path.read_text())["cells"] if path.exists() else []
        for before in (r"\.(?:table|figure)\(\s*", r"\.rows\(\s*", ""):
            call = re.compile(f'{before}"{re.escape(artefact)}"')
            ids = [cell["id"] for cell in cells if "id" in cell and call.search("".join(cell["source"]))]
            if ids:
                return f"{notebook}#{ids[-1]}"
    return None


def dirty_share(artefacts: Iterable[str], seeds: Iterable[int], place: Place) -> str | None:
    """ "n of m seeds": of the rows of these artefacts, an artefact and a seed at a time, those drawn by code that no
    commit holds; None where there are none."""
    commits = []
    for record in (place.record(artefact) for artefact in artefacts):
        drawn = {row["seed"] for row in record["rows"] if "seed" in row} & set(seeds)
        commits += [_commit(record, seed) for seed in drawn]
    dirty = sum(commit.endswith("+") for commit in commits)
    return f"{dirty} of {len(commits)} seeds" if dirty else None


def _commit(record: dict[str, Any], seed: int) -> str:
    """The commit that drew the rows of a seed; older files hold one for all."""
    return record.get("made", {}).get(str(seed), record).get("commit", "")

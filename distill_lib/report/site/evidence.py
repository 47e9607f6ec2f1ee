"""Pages of evidence: all claims, one section each, and the matrix of what reproduces them."""

import re
from pathlib import Path

from distill_lib.papers.page import themes
from distill_lib.paths import COMMITTED
from distill_lib.report.claims import PAPER_NAMES, UNJUDGED, Entry, table
from distill_lib.report.pages.claims import HEAD, UNMEASURED, latest_of, line_of, linked, read_claims
from distill_lib.report.sentences import times
from distill_lib.report.site.figures import command
from distill_lib.report.site.links import Places, title_of
from distill_lib.report.site.notebooks import label_of

_WIDE = "---\nhtml_theme.sidebar_secondary.remove: true\n---"  # the table takes the room of the contents at the right
_MATRIX = (
    "A line for each sentence of the papers that is judged here: the cell that shows its numbers, the command that "
    "draws them again, how long its notebook takes on two cores, and the verdict. "
    "[Claims](CLAIMS.md) holds the numbers behind each verdict, the premises, and the causes; "
    "[a picture](figures/15_claims.md#x-premises) shows what rests on what, and [limits](LIMITS.md) the errata: where "
    "a paper does not agree with itself."
)
_CLAIMS = re.compile("<!-- begin:claims -->.*<!-- end:claims -->", re.DOTALL)


def claims_page(places: Places) -> str:
    """CLAIMS.md with a section for each claim in place of its wide tables."""
    text, entries = (places.root / "CLAIMS.md").read_text(encoding="utf-8"), _entries(places)
    parts = []
    for theme in themes() if entries else []:
        parts += [f"### {theme.title}", *(_claim(entries[name]) for name in theme.claims)]
    body = "\n\n".join(parts) or UNMEASURED
    return places.relinked(_CLAIMS.sub(lambda _: body, text), "CLAIMS.md")


def _entries(places: Places) -> dict[str, Entry]:
    return {entry["id"]: entry for entry in read_claims(places.root / "figures")}


_HOLDS = {True: "holds here", False: "does not hold here", None: "not known to hold here"}


def _claim(entry: Entry) -> str:
    premises = [f"{premise['sentence']} ({_HOLDS[premise['holds']]})" for premise in entry["premises"]]
    cells = dict(zip(HEAD, line_of(entry), strict=True)) | {"rests on": "; ".join(premises)}
    rest = [f"- *{name}*: {cell}" for name, cell in cells.items() if cell and name not in ("claim", "says")]
    return "\n\n".join([f"#### {entry['id']}", cells["says"], "\n".join(rest)])


def matrix(places: Places) -> str:
    """The page of the reproduction matrix, a table for each paper."""
    head = ["statement of the paper", "cell of a notebook", "command", "minutes", "verdict"]
    entries, texts = list(_entries(places).values()), []
    for paper, name in PAPER_NAMES.items():
        lines = [_line(places, entry) for entry in entries if entry["paper"] == paper]
        texts += [f"## {name}", table(head, lines)] if lines else []
    return "\n\n".join([_WIDE, "# Reproduction matrix", _MATRIX, *(texts or [UNMEASURED]), ""])


def _line(places: Places, entry: Entry) -> list[str]:
    notebook, _, cell = (entry["notebook_cell"] or "").partition("#")
    place = f"[{title_of(notebook)}](notebooks/{notebook}.ipynb#{label_of(notebook, cell)})" if cell else ""
    drawn = next((name for name in entry["artefacts"] if name in places.artefacts), None)
    latest = latest_of(entry)
    edition = "second edition" if entry["verdict"] else "as first set"
    verdict = f"{latest['verdict']}, {edition}" if latest["verdict"] else UNJUDGED
    return [
        f"{entry['sentence']} ({linked([entry['id']])})",
        place,
        f"`{command(places, drawn)}`" if drawn else "",
        times(notebook, Path(places.root / "figures" / COMMITTED)) if notebook else "",
        verdict,
    ]

"""Pages of figures and tables: what `figures/laptop` holds, by notebook, with the command that draws it again."""

import json
import re
from pathlib import Path

from distill_lib.paths import COMMITTED
from distill_lib.report.claims import table
from distill_lib.report.sentences import caption
from distill_lib.report.site.links import Places, figure_page, title_of
from distill_lib.report.site.places import CHAPTERS, notebooks_of, record, suffix_of

_SUMMARY = f"All that `figures/{COMMITTED}` holds: pictures, tables, their rows for download, and where each came from."
_VERDICTS = f"Drawn from the [verdicts]({COMMITTED}/claims.json), without rows of its own."
_TRUE_SIZES = "random weights"  # how the data of `make true-scale` begins


def command(places: Places, artefact: str) -> str:
    """The command that draws an artefact again; one without rows is drawn with another one of its notebook."""
    source = record(places.root, artefact)
    if source.get("dataset", "").startswith(_TRUE_SIZES):
        return f"make true-scale ID={artefact}"
    drawn = artefact if source else _with_rows(places, artefact)
    real = suffix_of(artefact)[1:].replace("-", "_")
    return f"make figures PROFILE={COMMITTED} ID={drawn}" + (f" DATASET={real} FOLDER=path" if real else "")


def _with_rows(places: Places, artefact: str) -> str:
    notebook = places.artefacts[artefact]
    beside = [other for other, of in places.artefacts.items() if of == notebook and record(places.root, other)]
    return next(iter(beside), artefact)


def pages(places: Places) -> dict[str, str]:
    """The page of each notebook that has figures or tables, and the list of these pages."""
    order = [name for chapter in CHAPTERS for name in notebooks_of(chapter)]
    of_notebook = {name: [a for a, of in places.artefacts.items() if of == name] for name in order}
    of_notebook = {name: artefacts for name, artefacts in of_notebook.items() if artefacts}
    sources = {figure_page(name): _page(places, name, artefacts) for name, artefacts in of_notebook.items()}
    return sources | {"figures/index.md": _index(of_notebook)}


def _index(of_notebook: dict[str, list[str]]) -> str:
    lines = []
    for name, artefacts in of_notebook.items():
        links = (f"[{artefact}]({name}.md#{artefact})" for artefact in artefacts)
        lines.append([f"[{title_of(name)}]({name}.md)", ", ".join(links)])
    entries = "\n".join(f"{title_of(name)} <{name}>" for name in of_notebook)
    tree = f"```{{toctree}}\n:hidden:\n\n{entries}\n```"
    return "\n\n".join(["# Figures and tables", _SUMMARY, table(["notebook", "artefacts"], lines), tree, ""])


def _page(places: Places, notebook: str, artefacts: list[str]) -> str:
    head = f"# Figures of {title_of(notebook)}\n\nDrawn in [{title_of(notebook)}](../notebooks/{notebook}.ipynb)."
    return "\n\n".join([head, *(_section(places, artefact) for artefact in artefacts), ""])


def _section(places: Places, artefact: str) -> str:
    folder, name = places.root / "figures" / COMMITTED, f"{COMMITTED}/{artefact}"
    words = caption(artefact.removesuffix(suffix_of(artefact)))
    parts = [f"## {artefact}"]
    if (folder / f"{artefact}.png").exists():
        alt = re.sub(r"[*\[\]]", "", words) or artefact
        image = f"```{{image}} {name}.png\n:alt: {json.dumps(alt, ensure_ascii=False)}\n"
        parts += [f"{image}:target: ../_images/{artefact}.png\n```"]  # whole, on a click
    parts += [words] if words else []
    if (folder / f"{artefact}.md").exists():
        text = (folder / f"{artefact}.md").read_text(encoding="utf-8").strip()
        parts += [places.relinked(text, f"figures/{COMMITTED}/{artefact}.md")]
    parts += [f"```sh\n{command(places, artefact)}\n```", _origin(places, artefact, folder)]
    return "\n\n".join(parts)


def _origin(places: Places, artefact: str, folder: Path) -> str:
    """Rows for download, and by which commits they were drawn for which seeds."""
    source = record(places.root, artefact)
    kinds = [kind for kind in ("csv", "json") if (folder / f"{artefact}.{kind}").exists()]
    files = [f"[{kind.upper()}]({COMMITTED}/{artefact}.{kind})" for kind in kinds]
    of_rows = dict.fromkeys(str(row["seed"]) for row in source.get("rows", []) if "seed" in row)
    by_commit: dict[str, list[str]] = {}
    for seed, made in (source.get("made") or dict.fromkeys(of_rows, source)).items():  # older files hold one commit
        by_commit.setdefault(made["commit"], []).append(seed)
    made = [f"`{commit}` (seed{'s' * (len(seeds) > 1)} {', '.join(seeds)})" for commit, seeds in by_commit.items()]
    made = made or ([f"`{source['commit']}`"] if source else [])
    texts = [f"Rows: {', '.join(files)}."] if files else [_VERDICTS]
    texts += [f"Data: {source['dataset']}."] if source else []
    return " ".join([*texts, f"Commit: {', '.join(made)}." if made else ""]).strip()

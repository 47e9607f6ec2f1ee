"""The start page, README with cards that lead to the chapters, and the first page of each chapter."""

import json

from distill_lib.paths import COMMITTED
from distill_lib.report.claims import table
from distill_lib.report.sentences import times
from distill_lib.report.site.links import Places, figure_page, title_of
from distill_lib.report.site.places import CHAPTERS, FURTHER, Chapter, notebooks_of

_RESULTS = "## Results\n"
_FIGURES = (
    "figures/index",
    "Figures and tables",
    "Every picture and table, with its rows and the command that draws it.",
)
_LIVE = ("live", "Draw in the browser", "Distilled students under sliders and words, computed on this very machine.")
_YOUR_OWN = (
    "docs/distil-your-own",
    "Distil your own",
    "Folders of pictures, Fashion-MNIST, CIFAR-10, another Stable Diffusion.",
)


def start_page(places: Places, sources: set[str]) -> str:
    """README as the first page of the site, with cards before its results.

    Args:
        places: of a checkout.
        sources: pages of the site, without suffix; a further page that is not among them is left out.

    Raises:
        ValueError: README has no results.
    """
    text = places.relinked((places.root / "README.md").read_text(encoding="utf-8"), "README.md")
    if text.count(_RESULTS) != 1:
        raise ValueError(f"README.md needs the line {_RESULTS.strip()!r} once: the cards of the site stand before it")
    cards = [(chapter.page, chapter.title, chapter.summary) for chapter in CHAPTERS] + [_FIGURES, _YOUR_OWN]
    cards += [_LIVE] if _LIVE[0] in sources else []
    trees = [_tree("", [chapter.page for chapter in CHAPTERS] + [_FIGURES[0]])]
    trees += [_tree(title, [page for page in pages if page in sources]) for title, pages in FURTHER.items()]
    return "\n\n".join([text.replace(_RESULTS, f"{_grid(cards)}\n\n{_RESULTS}"), *trees, ""])


def _grid(cards: list[tuple[str, str, str]]) -> str:
    items = []
    for page, title, summary in cards:
        items.append(f":::{{grid-item-card}} {title}\n:link: {page}\n:link-type: doc\n\n{summary}\n:::")
    return "\n".join(["::::{grid} 1 2 3 3", ":gutter: 3", "", *items, "::::"])


def _tree(title: str, entries: list[str]) -> str:
    options = [":hidden:", *([f":caption: {title}"] if title else [])]
    return "\n".join(["```{toctree}", *options, "", *entries, "```"])


def chapter_page(places: Places, chapter: Chapter) -> str:
    """Title, a sentence, a line for each notebook and further page, and the tree of them."""
    names, head = notebooks_of(chapter), ["notebook", "subject", "minutes on two cores", "results"]
    lines = table(head, [_line(places, name) for name in names]) if names else ""
    entries = [f"{title_of(name)} <notebooks/{name}>" for name in names] + list(chapter.pages)
    further = [f"- [](/{page}{_suffix(places, page)})" for page in chapter.pages]
    parts = [f"# {chapter.title}", chapter.summary, lines, "\n".join(further), _tree("", entries), ""]
    return "\n\n".join(part for part in parts if part) + "\n"


def _suffix(places: Places, page: str) -> str:
    return ".ipynb" if f"{page}.ipynb" in places.pages else ".md"


def _line(places: Places, notebook: str) -> list[str]:
    file = f"notebooks/{notebook}.ipynb"
    first = "".join(json.loads((places.root / file).read_text(encoding="utf-8"))["cells"][0]["source"])
    title = first.partition("\n")[0].removeprefix("# ")
    drawn = notebook in places.artefacts.values()
    results = f"[figures and tables]({figure_page(notebook)})" if drawn else ""
    return [f"[{title_of(notebook)}]({file})", title, times(notebook, places.root / "figures" / COMMITTED), results]

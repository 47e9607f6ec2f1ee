"""`make site`: sources for Sphinx from a checkout, and the pages that Sphinx builds of them. Nothing is executed.

runs/site/source/    made here; site/ (configuration, style, references), pages, notebooks, figures
runs/site/live/      the page of models that draw in the browser, where `make live` has written it
runs/site/html/      the site; opened by any web server, without a network
"""

import argparse
import shutil
import sys
from importlib.util import find_spec
from pathlib import Path

from distill_lib.engine.files import atomic
from distill_lib.paths import ROOT, runs_folder
from distill_lib.report.site import figures, notebooks
from distill_lib.report.site.evidence import claims_page, matrix
from distill_lib.report.site.links import Places, copied
from distill_lib.report.site.places import CHAPTERS, artefacts, pages
from distill_lib.report.site.start import chapter_page, start_page

EXTRA = ("sphinx", "myst_nb", "sphinx_book_theme", "sphinx_design", "sphinx_copybutton", "sphinxcontrib.bibtex")


_LIVE = """# Distil in the browser

```{raw} html
<p><a href="live/index.html">Open the page</a>: distilled students draw in this browser, and nothing leaves it.</p>
```
"""


def sources(root: Path, live: bool = False) -> dict[str, bytes | Path]:
    """Every file of the sources of the site, by its path: its content, or the file of the checkout that is copied.

    Args:
        root: the checkout.
        live: whether the page of live models is written, so that others lead there.

    Raises:
        ValueError: an artefact has no notebook, or README lacks what the start page needs.
    """
    places = Places(root, pages(root), artefacts(root))
    made: dict[str, str] = {}
    for file, page in places.pages.items():
        if file.endswith(".ipynb"):
            made[page] = notebooks.page(places, file, live)
        elif file not in ("README.md", "CLAIMS.md"):
            made[page] = places.relinked((root / file).read_text(encoding="utf-8"), file)
    made |= {"CLAIMS.md": claims_page(places), "matrix.md": matrix(places)} | figures.pages(places)
    made |= {f"{chapter.page}.md": chapter_page(places, chapter) for chapter in CHAPTERS}
    files: dict[str, bytes | Path] = _by_hand(root / "site") | _copies(root)
    if live:
        made["live.md"] = _LIVE
    names = {name.rpartition(".")[0] for name in (*made, *files)}
    return files | {name: text.encode() for name, text in (made | {"index.md": start_page(places, names)}).items()}


def _by_hand(folder: Path) -> dict[str, bytes | Path]:
    """What lies in site/, but for the sources of the live page and of the slides, which have commands of their own."""
    paths = sorted(path for path in folder.rglob("*") if path.is_file() and "__pycache__" not in path.parts)
    names = {path.relative_to(folder).as_posix(): path for path in paths}
    return {name: path for name, path in names.items() if not name.startswith(("live/", "slides/"))}


def _copies(root: Path) -> dict[str, bytes | Path]:
    paths = [path for folder in ("figures", "docs") for path in sorted((root / folder).rglob("*"))]
    names = {path.relative_to(root).as_posix(): path for path in [*paths, root / "LICENSE", root / "CITATION.cff"]}
    vectors = {name for name in names if name.startswith("figures/") and name.endswith(".svg")}  # half of the weight
    return {name: path for name, path in names.items() if copied(name) and name not in vectors}


def write_sources(root: Path, folder: Path, live: bool = False) -> None:
    """Bring the sources up to date: what has not changed is left alone, so that Sphinx reads only what has."""
    wanted = sources(root, live)
    for path in sorted(folder.rglob("*")):
        if path.is_file() and path.relative_to(folder).as_posix() not in wanted:
            path.unlink()
    for name, content in wanted.items():
        path, data = folder / name, content if isinstance(content, bytes) else content.read_bytes()
        if not (path.exists() and path.read_bytes() == data):
            path.parent.mkdir(parents=True, exist_ok=True)
            with atomic(path) as part:
                part.write_bytes(data)


def build(root: Path, folder: Path) -> Path:
    """Write the sources of a checkout below a folder and build the site.

    Returns:
        The folder of pages.

    Raises:
        ValueError: packages of the extra `site` are missing, or Sphinx could not build.
    """
    missing = [name for name in EXTRA if not installed(name)]
    if missing:
        raise ValueError(f"the site needs {', '.join(missing)}: give the command `make site`, which installs them")
    from sphinx.cmd.build import build_main

    live = folder / "live"
    write_sources(root, folder / "source", (live / "live.json").exists())
    html, trees = folder / "html", folder / "doctrees"
    if build_main(["-q", "-b", "html", "-d", str(trees), str(folder / "source"), str(html)]):
        raise ValueError(f"Sphinx could not build the pages in {html}; its messages are above")
    if live.exists():
        shutil.copytree(live, html / "live", dirs_exist_ok=True)
    return html


def installed(name: str) -> bool:
    """Whether a package, or a part of one, is there."""
    try:
        return find_spec(name) is not None
    except ModuleNotFoundError:  # the package that it would be a part of
        return False


def main(arguments: list[str] | None = None) -> None:
    """Command line: build the site, and say how to look at it."""
    argparse.ArgumentParser(prog="distill_lib.run site", description="build the site").parse_args(arguments)
    html = build(ROOT, runs_folder() / "site")
    print(f"The site lies in {html}. To look at it:\n  {sys.executable} -m http.server --directory {html}")

"""Links of the repository as links of the site.

A link to a page or notebook leads to its place in the site, one to a picture or table of `figures/laptop` to the
section that shows it. Files that are copied stay as they are. Source files have no place, since the address of the
repository is not known: of such a link its words are left, as code.
"""

import posixpath
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from distill_lib.paths import COMMITTED

_PARTS = re.compile(
    r"(?P<kept>```.*?```|\$\$.*?\$\$|\$[^$\n]+\$)"
    r"|(?P<mark>!?)\[(?P<words>(?:`[^`\n]*`|[^\[\]`])*)\]\((?P<target>[^)\s]+)\)"
    r"|(?P<code>`[^`\n]+`)",
    re.DOTALL,
)


@dataclass(frozen=True)
class Places:
    """Where files of the repository lie in the site.

    Args:
        root: the checkout.
        pages: file to source, as of `places.pages`.
        artefacts: artefact to notebook, as of `places.artefacts`.
    """

    root: Path
    pages: Mapping[str, str]
    artefacts: Mapping[str, str]

    def relinked(self, text: str, file: str) -> str:
        """Markdown of a file of the repository, with links that lead where its page in the site can follow."""
        return _PARTS.sub(lambda match: self._part(match, file), text)

    def _part(self, match: re.Match[str], file: str) -> str:
        words, target, picture = match["words"], match["target"], match["mark"] == "!"
        if target is None or re.match(r"[a-z]+:|#", target):
            return match[0]
        path, _, anchor = target.partition("#")
        place = posixpath.normpath(posixpath.join(posixpath.dirname(file), path))
        if not (self.root / place).exists():
            return match[0]
        page = self.pages.get(file, file)
        name = posixpath.splitext(posixpath.basename(place))[0]  # of a notebook or artefact
        if place in self.pages:
            words = title_of(name) if words == name else words
            return f"[{words}]({_between(page, self.pages[place])}{anchor and '#' + anchor})"
        if place.startswith(f"figures/{COMMITTED}/") and name in self.artefacts and not picture:
            return f"[{words}]({_between(page, figure_page(self.artefacts[name]))}#{name})"
        if picture or copied(place):
            return f"{match['mark']}[{words}]({_between(page, place)})"
        return words if "`" in words else f"`{words}`"


def copied(place: str) -> bool:
    """Whether a file of the repository, by its path, is copied into the site as it is."""
    kinds = (".png", ".gif", ".csv", ".json", ".svg")
    results = place.startswith((f"figures/{COMMITTED}/", "docs/pictures/"))
    return place in ("LICENSE", "CITATION.cff") or (results and place.endswith(kinds))


def title_of(notebook: str) -> str:
    """The name of a notebook in words, which end a line where its file name would not."""
    return notebook.replace("_", " ")


def figure_page(notebook: str) -> str:
    """The page that shows the figures and tables of a notebook."""
    return f"figures/{notebook}.md"


def _between(page: str, place: str) -> str:
    return posixpath.relpath(place, posixpath.dirname(page) or ".")

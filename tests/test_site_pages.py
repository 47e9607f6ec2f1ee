"""The built site: no warning, every link and picture leads somewhere, nothing outside is asked for.

Skipped where the packages of the extra `site` are not installed, as after `make test` alone; `make test-site` installs
them and runs this file, in a minute or two.
"""

import contextlib
import io
import re
from html.parser import HTMLParser
from importlib.util import find_spec
from urllib.parse import unquote, urlsplit

import pytest

from distill_lib.paths import ROOT
from distill_lib.report.site.build import build

pytestmark = [
    pytest.mark.site,
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore:.* is deprecated"),  # what extensions still call in Sphinx
    pytest.mark.skipif(find_spec("sphinx_book_theme") is None, reason="the packages of `make site` are not installed"),
]


class Page(HTMLParser):
    """What a page points to, what it loads, and the places that it names."""

    def __init__(self, text):
        super().__init__()
        self.targets, self.loaded, self.names = [], [], {""}
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        given = dict(attrs)
        self.names.add(given.get("id"))
        if tag in ("script", "img", "source", "iframe") and given.get("src"):
            self.loaded.append(given["src"])
        if tag == "link" and given.get("href"):
            self.loaded.append(given["href"])
        if tag == "a" and given.get("href"):
            self.targets.append(given["href"])


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """The folder of the built pages, and what Sphinx said."""
    messages = io.StringIO()
    with contextlib.redirect_stderr(messages):
        html = build(ROOT, tmp_path_factory.mktemp("site"))
    return html, messages.getvalue()


@pytest.fixture(scope="module")
def parsed(site):
    """Every page; what themes keep in _static are templates."""
    paths = [path for path in sorted(site[0].rglob("*.html")) if "_static" not in path.parts]
    return {path: Page(path.read_text(encoding="utf-8")) for path in paths}


def test_there_is_no_warning(site):
    assert [line for line in site[1].splitlines() if "WARNING" in line or "ERROR" in line] == []


def test_every_link_and_picture_leads_somewhere(parsed):
    lost = []
    for path, page in parsed.items():
        for target in [*page.targets, *page.loaded]:
            parts = urlsplit(target)
            if parts.scheme or parts.netloc or target.startswith("data:"):
                continue
            place = (path.parent / unquote(parts.path)).resolve() if parts.path else path
            known = place.is_file() or (place / "index.html").is_file()
            if not known or (place in parsed and unquote(parts.fragment) not in parsed[place].names):
                lost.append(f"{path.name}: {target}")
    assert lost == []


def test_nothing_is_loaded_from_outside(site, parsed):
    outside = [target for page in parsed.values() for target in page.loaded if re.match(r"[a-z]+:|//", target)]
    assert [target for target in outside if not target.startswith("data:")] == []
    styles = {path.name: path.read_text() for path in (site[0] / "_static").rglob("*.css")}
    assert styles
    fetching = re.compile(r"""@import\s+["']?(?:https?:)?//|url\(\s*["']?(?:https?:)?//""")
    assert [name for name, text in styles.items() if fetching.search(text)] == []


def test_mathematics_is_bundled(site, parsed):
    page = parsed[site[0] / "notebooks" / "03_step_halving.html"]
    (script,) = [target for target in page.loaded if "mathjax" in target]
    assert (site[0] / "notebooks" / script.partition("?")[0]).resolve().is_file()

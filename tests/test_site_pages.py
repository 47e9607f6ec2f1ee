"""The built site: no warning, every link and picture leads somewhere, nothing outside is asked for.

Skipped where the packages of the extra `site` are not installed, as after `make test` alone; `make test-site` installs
them and runs this file, in some minutes: chromium, where it is, opens every page at the width of a phone.
"""

import contextlib
import io
import re
from html.parser import HTMLParser
from importlib.util import find_spec
from urllib.parse import unquote, urlsplit

import pytest
from browsing import chromium, page_of

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


_SEEN = """async () => {
  await (window.MathJax?.startup?.promise ?? null);
  await Promise.all([...document.images].map(x => x.complete || new Promise(done => x.onload = x.onerror = done)));
  const empty = [...document.images].filter(x => !x.naturalWidth).map(x => `${x.getAttribute("src")} is not drawn`);
  const broken = [...document.querySelectorAll("mjx-merror")].map(x => `mathematics: ${x.textContent}`);
  const wide = document.documentElement.scrollWidth - window.innerWidth;
  return [...empty, ...broken, ...(wide > 0 ? [`${wide} pixels wider than a phone`] : [])];
}"""


def test_in_a_browser_every_page_opens_without_an_error_and_fits_a_phone(site, parsed):
    errors = {}
    with chromium(site[0]) as (opened, address):
        for path in parsed:
            wrong = errors[path.name] = []
            with page_of(opened, address, wrong, viewport={"width": 390, "height": 844}) as page:
                page.goto(f"{address}{path.relative_to(site[0]).as_posix()}")
                wrong += page.evaluate(_SEEN)
    assert {name: wrong for name, wrong in errors.items() if wrong} == {}


def test_in_a_browser_the_sliders_of_explore_move_its_pictures_by_keyboard(site):
    wrong, place = [], "document.querySelector('#distill-explore .shown').style.backgroundPosition"
    with chromium(site[0]) as (opened, address), page_of(opened, address, wrong) as page:
        page.goto(f"{address}notebooks/explore.html")
        for slider, key in (("w", "ArrowRight"), ("steps", "ArrowLeft")):
            before, number = page.evaluate(place), page.inner_text(f"label:has([name={slider}]) output")
            page.focus(f"#distill-explore [name={slider}]")
            page.keyboard.press(key)
            page.wait_for_function(f"{place} !== '{before}'")
            assert page.inner_text(f"label:has([name={slider}]) output") != number
    assert wrong == []

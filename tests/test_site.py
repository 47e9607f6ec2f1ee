"""Sources of the site: everything has its place, links lead there, nothing outside is asked for. Needs no Sphinx."""

import json
import re
from collections import Counter

import pytest

from distill_lib.paths import COMMITTED, ROOT
from distill_lib.report.notebook_map import present
from distill_lib.report.pages.claims import read_claims
from distill_lib.report.site import build
from distill_lib.report.site import notebooks as notebook_pages
from distill_lib.report.site.figures import command
from distill_lib.report.site.links import Places
from distill_lib.report.site.places import CHAPTERS, REST, artefacts, notebooks_of, pages, record
from distill_lib.report.site.start import start_page
from distill_lib.run import notebooks
from distill_lib.run.true_scale import TABLES

PLACES = Places(ROOT, pages(ROOT), artefacts(ROOT))
_OUTSIDE = r"[\"']?(?:https?:)?//"
ASKS_OUTSIDE = re.compile(
    rf"<(?:script|link|img|iframe)\b[^>]*(?:src|href)\s*=\s*{_OUTSIDE}|@import\s+{_OUTSIDE}|url\(\s*{_OUTSIDE}"
)


@pytest.fixture(scope="module")
def sources():
    """The sources of the site by path; text where they are text."""
    made = build.sources(ROOT)
    return {name: data.decode() if isinstance(data, bytes) else data for name, data in made.items()}


def test_each_notebook_is_in_one_chapter(sources):
    assert sorted(name for chapter in CHAPTERS for name in notebooks_of(chapter)) == sorted(present().values())
    for chapter in CHAPTERS:
        entries = re.findall(r"<notebooks/(\w+)>", sources[f"{chapter.page}.md"])
        assert entries == notebooks_of(chapter)
        assert all(f"notebooks/{name}.ipynb" in sources for name in entries)


def test_each_page_is_in_one_tree(sources):
    entries_of_trees = Counter()
    for name, text in sources.items():
        folder = name.rpartition("/")[0]
        for tree in re.findall(r"```\{toctree\}\n(.*?)```", text, re.DOTALL) if isinstance(text, str) else []:
            for entry in (line for line in tree.splitlines() if line and not line.startswith(":")):
                page = re.sub(r".*<(.*)>", r"\1", entry)
                entries_of_trees[f"{folder}/{page}" if folder else page] += 1
    names = {name.rpartition(".")[0] for name in sources if name.endswith((".md", ".ipynb"))}
    assert entries_of_trees == Counter(names - {"index"})


def test_each_artefact_has_a_section_with_its_files_and_a_command_that_draws_it(sources):
    committed = {path.stem for path in (ROOT / "figures" / COMMITTED).iterdir()} - REST
    assert set(PLACES.artefacts) == committed
    known = {name for notebook in notebooks.names() for name in notebooks.artefacts_of(notebook)}
    for artefact, notebook in PLACES.artefacts.items():
        page = sources[f"figures/{notebook}.md"]
        assert f"\n## {artefact}\n" in page
        assert command(PLACES, artefact) in page
        drawn = re.search(r"ID=([\w-]+)", command(PLACES, artefact))[1]
        if command(PLACES, artefact).startswith("make true-scale"):
            assert drawn in TABLES
        else:
            assert drawn.removesuffix("-fashion-mnist") in known
        for kind in ("png", "csv", "json"):
            if (ROOT / "figures" / COMMITTED / f"{artefact}.{kind}").exists():
                place = f"{COMMITTED}/{artefact}.{kind}"
                assert f"({place})" in page or f"{{image}} {place}\n" in page
                assert f"figures/{COMMITTED}/{artefact}.{kind}" in sources
        section = page.partition(f"\n## {artefact}\n")[2].partition("\n## ")[0]
        assert re.search(r"\[(CSV|JSON|verdicts)\]", section)
        seeds_on_page = {seed for seeds in re.findall(r"\(seeds? ([\d, ]+)\)", section) for seed in seeds.split(", ")}
        assert seeds_on_page >= {str(row["seed"]) for row in record(ROOT, artefact).get("rows", []) if "seed" in row}


def test_the_matrix_has_a_line_and_the_page_of_claims_a_section_for_each_claim(sources):
    ids = [entry["id"] for entry in read_claims(ROOT / "figures")]
    lines = re.findall(r"^\| .*\(\[([\w-]+)\]\(CLAIMS.md#[\w-]+\)\) \| ", sources["matrix.md"], re.MULTILINE)
    assert sorted(lines) == sorted(ids)
    assert sorted(re.findall(r"^#### ([\w-]+)$", sources["CLAIMS.md"], re.MULTILINE)) == sorted(ids)


def test_each_cell_that_the_matrix_points_to_has_its_name(sources):
    linked = re.findall(r"\(notebooks/(\w+)\.ipynb#([\w-]+)\)", sources["matrix.md"])
    assert linked
    for notebook, label in linked:
        cells = json.loads(sources[f"notebooks/{notebook}.ipynb"])["cells"]
        assert [cell["source"] for cell in cells].count(f"({label})=") == 1


def test_a_page_keeps_all_cells_and_outputs_of_its_notebook(sources):
    for name in present().values():
        cells = json.loads((ROOT / "notebooks" / f"{name}.ipynb").read_text())["cells"]
        kept = [cell for cell in json.loads(sources[f"notebooks/{name}.ipynb"])["cells"] if cell["id"][:3] != "at-"]
        assert [cell["id"] for cell in kept] == [cell["id"] for cell in cells]
        assert [len(cell.get("outputs", [])) for cell in kept] == [len(cell.get("outputs", [])) for cell in cells]


def test_links_lead_to_files_of_the_site(sources):
    for name, text in sources.items():
        if isinstance(text, str) and name.endswith(".md"):
            bare = re.sub(r"```.*?```|`[^`\n]*`|\$[^$\n]*\$", "", text, flags=re.DOTALL)
            for target in re.findall(r"\]\(([^)\s#]+)(?:#[^)\s]*)?\)", bare):
                if not re.match("[a-z]+:", target):
                    folder = ROOT / (name.rpartition("/")[0] if not target.startswith("/") else "")
                    place = (folder / target.lstrip("/")).resolve().relative_to(ROOT).as_posix()
                    assert place in sources, f"{name} links to {target}"


@pytest.mark.parametrize(
    ("text", "result"),
    [
        ("[run](docs/run.md#profiles)", "[run](docs/run.md#profiles)"),
        ("[00_start_here](notebooks/00_start_here.ipynb)", "[00 start here](notebooks/00_start_here.ipynb)"),
        ("[start](README.md#limits)", "[start](index.md#limits)"),
        ("[make](Makefile), [`f`](distill_lib/paths.py)", "`make`, `f`"),
        ("[g](figures/laptop/g-tab1.md)", "[g](figures/03_step_halving.md#g-tab1)"),
        ("[c](figures/laptop/claims.json)", "[c](figures/laptop/claims.json)"),
        ("![p](docs/pictures/one-step.png)", "![p](docs/pictures/one-step.png)"),
        (
            "$[x](Makefile)$ `[x](Makefile)` [x](nowhere) [x](#here)",
            "$[x](Makefile)$ `[x](Makefile)` [x](nowhere) [x](#here)",
        ),
        ("[x](https://arxiv.org/abs/2210.03142)", "[x](https://arxiv.org/abs/2210.03142)"),
    ],
)
def test_a_link_leads_to_the_place_in_the_site(text, result):
    assert PLACES.relinked(text, "README.md") == result


def test_a_link_counts_from_the_folder_of_its_page():
    text = PLACES.relinked("[r](../README.md) [c](../CLAIMS.md#g-a1)", "docs/run.md")
    assert text == "[r](../index.md) [c](../CLAIMS.md#g-a1)"


def test_an_artefact_that_no_notebook_shows_is_refused(tmp_path):
    (tmp_path / "figures" / COMMITTED).mkdir(parents=True)
    (tmp_path / "figures" / COMMITTED / "g-lost.json").write_text("{}")
    with pytest.raises(ValueError, match="g-lost belongs to no notebook"):
        artefacts(tmp_path)


def test_nothing_in_the_sources_by_hand_asks_outside():
    files = [
        path for path in (ROOT / "site").rglob("*") if path.suffix in (".md", ".py", ".css", ".js", ".html", ".mjs")
    ]
    assert len(files) >= 3
    assert [path.name for path in files if ASKS_OUTSIDE.search(path.read_text(encoding="utf-8"))] == []


@pytest.mark.parametrize(
    "text", ['<script src="https://a.b/c.js">', "<link rel=x href='//a/b.css'>", "url(http://a.b)"]
)
def test_what_asks_outside_is_seen(text):
    assert ASKS_OUTSIDE.search(text)


def test_works_that_pages_link_to_are_among_the_references(sources):
    works = set(re.findall(r"eprint = \{([\d.]+)\}", (ROOT / "site" / "references.bib").read_text()))
    texts = [text for text in sources.values() if isinstance(text, str)]
    linked = {work for text in texts for work in re.findall(r"arxiv.org/abs/(\d+\.\d+)", text)}
    assert linked <= works


def test_sources_that_have_not_changed_are_left_alone_and_stale_ones_go(tmp_path, monkeypatch):
    files = {"a.md": b"one", "b/c.md": b"two"}
    monkeypatch.setattr(build, "sources", lambda root, live: dict(files))
    build.write_sources(ROOT, tmp_path)
    before = (tmp_path / "a.md").stat().st_mtime_ns
    (tmp_path / "old.md").write_text("gone")
    files["b/c.md"] = b"three"
    build.write_sources(ROOT, tmp_path)
    assert (tmp_path / "a.md").stat().st_mtime_ns == before
    assert (tmp_path / "b" / "c.md").read_bytes() == b"three"
    assert not (tmp_path / "old.md").exists()


def test_without_its_packages_the_site_names_them_and_writes_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr(build, "EXTRA", ("json", "no_such_package", "no_such.part"))
    with pytest.raises(ValueError, match=r"needs no_such_package, no_such\.part: give the command `make site`"):
        build.build(ROOT, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_where_there_are_live_models_the_first_notebook_holds_its_students_and_the_start_page_a_card(sources):
    page = "notebooks/00_start_here.ipynb"
    made = notebook_pages.page(PLACES, page, live=True)
    assert 'src=\\"../live/index.html#points\\"' in made and "<iframe" not in sources[page]
    assert "<iframe" not in notebook_pages.page(PLACES, "notebooks/18_score_distillation_in_the_plane.ipynb", live=True)
    assert 'id="points"' in (ROOT / "site" / "live" / "index.html").read_text()
    assert ":link: live\n" in start_page(PLACES, {"live"}) and ":link: live\n" not in sources["index.md"]


def test_references_can_be_taken_as_bibtex(sources):
    assert "[BibTeX](references.bib)" in sources["references.md"].read_text() and "references.bib" in sources


def test_a_claim_is_shown_with_its_premises_and_whether_they_hold(sources):
    sections = re.split(r"^#### ", sources["CLAIMS.md"], flags=re.MULTILINE)[1:]
    by_id = {section.partition("\n")[0]: section for section in sections}
    words = {True: "(holds here)", False: "(does not hold here)", None: "(not known to hold here)"}
    entries = read_claims(ROOT / "figures")
    assert any(entry["premises"] for entry in entries)
    for entry in entries:
        assert ("*rests on*" in by_id[entry["id"]]) is bool(entry["premises"])
        for premise in entry["premises"]:
            assert f"{premise['sentence']} {words[premise['holds']]}" in by_id[entry["id"]]

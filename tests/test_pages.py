"""README, its Chinese edition and the pages behind it: as they would be made today, with links that lead somewhere."""

import argparse
import json
import re
from collections import Counter
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from distill_lib.measure.rows import select
from distill_lib.papers.cells import Place
from distill_lib.papers.editions import second_edition
from distill_lib.papers.manifest import PAPERS, load_paper
from distill_lib.paths import COMMITTED, ROOT
from distill_lib.report.grids import grid
from distill_lib.report.pages import write
from distill_lib.report.pages.claims import read_claims
from distill_lib.report.pages.first_screen import FIRST_SCREEN, costs_table, headline_table, verdicts
from distill_lib.report.pages.limits import CAUSES, errata
from distill_lib.report.pages.pictures import CROPS, Crop, cut, samples_of, verdict_bars
from distill_lib.run import __main__ as commands

FIGURES = ROOT / "figures"
PAGES = sorted({*write.PAGES, "CONTRIBUTING.md", *(f"docs/{path.name}" for path in (ROOT / "docs").glob("*.md"))})
BOTH = ("README.md", "README.zh.md")
_LINK = re.compile(r"\[(?:!\[[^\]]*\]\(([^)]+)\)|[^\]])*\]\(([^)]+)\)|!\[[^\]]*\]\(([^)]+)\)")


def text_of(page):
    return (ROOT / page).read_text(encoding="utf-8")


def without_code(text):
    return re.sub(r"```.*?```|`[^`\n]*`", "", text, flags=re.DOTALL)


def links(text):
    """Where links and pictures of a page lead to."""
    return [target for match in _LINK.findall(without_code(text)) for target in match if target]


def anchors(text):
    """The names of places in a page: headings as GitHub names them, and what the page names itself."""
    headings = re.findall(r"^#+ (.*)$", re.sub(r"```.*?```", "", text, flags=re.DOTALL), re.MULTILINE)
    slugs = [re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings]
    return {*slugs, *re.findall(r'<a id="([^"]+)">', text)}


# --- up to date


def test_all_pages_and_pictures_are_as_they_would_be_made_today():
    write.main(["--check"])


@pytest.fixture
def checkout(tmp_path, monkeypatch):
    """A folder with a page of two parts and a picture."""
    monkeypatch.setattr(write, "ROOT", tmp_path)
    parts = {"a": lambda figures: f"made of {figures.name}", "b": lambda figures: "| 1 |"}
    monkeypatch.setattr(write, "PAGES", {"page.md": parts})
    monkeypatch.setattr(write, "PICTURES", {"docs/bars.svg": lambda figures: b"<svg/>"})
    return tmp_path


MARKED = "above\n<!-- begin:a -->\nold\n<!-- end:a -->\nbetween\n<!-- begin:b -->\n<!-- end:b -->\n"


def test_check_fails_on_what_is_outdated_and_passes_once_it_is_written(checkout):
    with pytest.raises(ValueError, match=r"page\.md is missing"):
        write.main(["--check"])
    (checkout / "page.md").write_text(MARKED)
    with pytest.raises(SystemExit, match=r"page\.md, docs/bars\.svg; run make readme"):
        write.main(["--check"])
    assert (checkout / "page.md").read_text() == MARKED and not (checkout / "docs").exists()
    write.main([])
    text = (checkout / "page.md").read_text()
    assert text.startswith("above\n") and "\nbetween\n" in text and "old" not in text
    assert "\n\nmade of figures\n\n" in text and "\n\n| 1 |\n\n" in text
    write.main(["--check"])
    (checkout / "docs" / "bars.svg").write_text("<svg></svg>")
    with pytest.raises(SystemExit, match=r"out of date: docs/bars\.svg"):
        write.main(["--check"])


@pytest.mark.parametrize(
    "wrong", [MARKED.replace("<!-- end:a -->", ""), MARKED + MARKED, "<!-- end:a --><!-- begin:a -->"]
)
def test_a_page_whose_markers_are_missing_doubled_or_crossed_is_left_alone(checkout, wrong):
    (checkout / "page.md").write_text(wrong)
    with pytest.raises(ValueError, match=r"page\.md needs the lines <!-- begin:a --> and <!-- end:a -->"):
        write.main([])
    assert (checkout / "page.md").read_text() == wrong


# --- links and commands


@pytest.mark.parametrize("page", PAGES)
def test_every_link_and_picture_leads_to_a_file_and_every_anchor_exists(page):
    wrong = []
    for target in links(text_of(page)):
        if target.startswith("https://"):
            continue
        name, _, anchor = target.partition("#")
        path = (ROOT / page).parent / name if name else ROOT / page
        if not path.exists() or (anchor and anchor not in anchors(path.read_text(encoding="utf-8"))):
            wrong.append(target)
    assert wrong == []


def test_links_are_found_in_pictures_tables_and_behind_each_other():
    text = "[a](b.md) ![c d](e.png) [![f](g.png)](h.md#i) | [x](y) | `[no](no)`\n```\n[no](no)\n```\n"
    assert sorted(links(text)) == ["b.md", "e.png", "g.png", "h.md#i", "y"]
    assert anchors('# Three doors\n## On `real` data!\n| <a id="g-a1"></a>\n') == {
        "three-doors",
        "on-real-data",
        "g-a1",
    }


def known_options():
    parser = commands._parser()
    (subs,) = (action for action in parser._actions if isinstance(action, argparse._SubParsersAction))
    options = {name: {*sub._option_string_actions} for name, sub in subs.choices.items()}
    others = {name: Path(find_spec(module).origin).read_text() for name, module in commands._OTHERS.items()}
    return options | {name: set(re.findall(r'"(--[\w-]+)"', text)) for name, text in others.items()}


@pytest.mark.parametrize("page", PAGES)
def test_every_command_option_and_variable_that_a_page_names_exists(page):
    text, options = text_of(page), known_options()
    for command, rest in re.findall(r"distill_lib\.run (\w[\w-]*)([^\n`]*)", text):
        assert command in {*options, *commands._OTHERS}
        assert set(re.findall(r"(?<!\S)--\w+", rest)) <= options.get(command, set())
    code = "".join(path.read_text() for path in (ROOT / "distill_lib").rglob("*.py"))
    assert [name for name in re.findall(r"DISTILL_[A-Z]+", text) if f'"{name}"' not in code] == []
    makefile = text_of("Makefile")
    calls = re.findall(r"\bmake [a-z-]+((?: [A-Z]+=(?:\"[^\"]*\"|[^\s`]+))+)", text)
    assert [name for call in calls for name in re.findall(r" ([A-Z]+)=", call) if f"{name}" not in makefile] == []


# --- the first screen


def test_what_a_whole_run_costs_is_read_from_the_last_one(tmp_path):
    def line(language):
        return next(x for x in costs_table(tmp_path, language).splitlines() if x.startswith("| `make figures` |"))

    assert line("en").endswith(" |  |  |  |  |")  # nobody has measured it
    notebooks = {"00_x": {"seconds": 60, "memory": 2**30}, "01_y": {"seconds": 900, "memory": 5 * 2**29}}
    run = {"day": "2031-02-03", "seconds": 1170, "notebooks": notebooks}
    (tmp_path / COMMITTED).mkdir()
    (tmp_path / COMMITTED / "pace.json").write_text(json.dumps({"quick": run}))
    assert line("en").endswith("| 20 min |  | 2.5 GB | 2031-02-03 |")
    assert line("zh").endswith("| 20 分钟 |  | 2.5 GB | 2031-02-03 |")


def test_readme_is_short():
    assert [page for page in BOTH if len(text_of(page).splitlines()) > 130] == []


def commands_of(text):
    blocks = re.findall(r"```sh\n(.*?)```", text, re.DOTALL)
    lines = [line.partition("    #")[0].partition("  # ")[0].strip() for block in blocks for line in block.splitlines()]
    return lines, Counter(re.findall(r"`([^`\n]+)`", re.sub(r"```.*?```", "", text, flags=re.DOTALL)))


def numbers_of(text):
    """The numbers of each line of each table."""
    lines = [line for line in text.splitlines() if line.startswith("|")]
    return [sorted(re.findall(r"\d+(?:\.\d+)?(?:e[+-]\d+)?", line)) for line in lines]


def test_both_languages_have_the_same_commands_links_pictures_and_numbers():
    english, chinese = (text_of(page) for page in BOTH)
    assert commands_of(english) == commands_of(chinese) and "make test" in commands_of(english)[0]
    swapped = [{"README.zh.md": "README.md"}.get(target, target) for target in links(english)]
    assert Counter(swapped) == Counter(links(chinese))
    assert [target for target in links(english) if "/pictures/" in target] == [f"docs/pictures/{x}" for x in ORDER]
    headings = [re.findall(r"^#+ ", text, re.MULTILINE) for text in (english, chinese)]
    assert headings[0] == headings[1]
    tables = [numbers_of(without_alternatives(text)) for text in (english, chinese)]
    assert tables[0] == tables[1] and len(tables[0]) > 15
    assert re.search("[\u4e00-\u9fff]", without_code(english).replace("中文", "")) is None


ORDER = ["transfer.png", "one-step.png", "verdicts.svg"]


def without_alternatives(text):
    """A page without the texts that stand for pictures, where a language may count otherwise."""
    return re.sub(r"!\[[^\]]*\]", "![]", text)


@pytest.mark.parametrize("language", ["en", "zh"])
def test_every_headline_is_measured_and_belongs_to_a_claim(language):
    words = FIRST_SCREEN.words[language]
    text = headline_table(FIGURES, language)
    assert len(FIRST_SCREEN.headlines) == 6 and words.unmeasured not in text
    claims = {claim.id for paper in PAPERS for claim in second_edition(paper).claims}
    assert {headline.claim for headline in FIRST_SCREEN.headlines} <= claims
    assert text.count("(notebooks/") == 6 and text.count("**") == 12


def test_a_headline_shows_the_mean_of_its_rows_and_what_is_absent_is_said(tmp_path):
    rows = select(Place(COMMITTED, FIGURES).rows("g-tab1"), method="ours-D", nfe=4, w=1.0, metric="fid_teacher")
    rows = [row for row in rows if row["seed"] >= 3]  # three of the seeds that count are there
    assert f"| **{np.mean([row['value'] for row in rows]):.3g} ± " in headline_table(FIGURES, "en")
    assert headline_table(tmp_path, "en").count("| not measured yet | not measured yet |") == 6


def entry(name, first, second):
    return {"id": name, "verdict": second, "verdict_v1": first, "v1": {"id": name.rstrip("ab")}}


@pytest.fixture
def four_claims(tmp_path, monkeypatch):
    """Four claims, of which two were one as first set."""
    made = [("a", "supported", None), ("xa", "contradicted", "supported"), ("xb", "contradicted", "still learning")]
    results = [entry(*line) for line in [*made, ("c", None, "not assessable here")]]
    for module in ("first_screen", "pictures"):
        monkeypatch.setattr(f"distill_lib.report.pages.{module}.read_claims", lambda figures: results)
    return tmp_path


def test_verdicts_are_counted_for_each_edition_and_a_split_claim_once_as_first_set(four_claims):
    text = verdicts(four_claims, "en")
    assert text.endswith(
        "As first set, 3 claims: 1 supported, 1 contradicted, 1 not judged yet. "
        "Second edition, 4 claims: 1 supported, 1 still learning, 1 not assessable here, 1 not judged yet."
    )
    assert "初版共 3 条论断：成立 1 条，不成立 1 条，尚未判定 1 条。" in verdicts(four_claims, "zh")


def test_the_bars_have_a_piece_for_each_verdict_as_wide_as_its_share(four_claims):
    text = verdict_bars(four_claims)
    bars = re.findall(r'<rect x="([\d.]+)" y="(\d+)\.?0?" width="([\d.]+)" height="26" fill="(?!#fff"/)', text)
    rows = {y: [float(width) for _, height, width in bars if height == y] for _, y, _ in bars}
    first, second = rows.values()
    assert first == pytest.approx([158] * 3) and second == pytest.approx([158] * 4)
    assert re.findall(r'text-anchor="middle"[^>]*>(\d+)<', text) == ["1"] * 7
    assert text.count("url(#crosses)") == 2 and text.count("<text") == 2 + 7 + 5  # names, numbers, legend


def test_the_committed_bars_count_all_claims():
    numbers = re.findall(r'text-anchor="middle"[^>]*>(\d+)<', text_of("docs/pictures/verdicts.svg"))
    results = read_claims(FIGURES)
    assert sum(map(int, numbers)) == len(results) + len({entry["v1"]["id"] for entry in results})


# --- pictures


def test_rows_are_cut_out_of_a_figure_pixel_by_pixel(tmp_path):
    generator = torch.Generator().manual_seed(0)
    strips = torch.randint(0, 256, (2, 7, 3, 32, 32), generator=generator, dtype=torch.uint8)
    path = tmp_path / COMMITTED / "g-x.svg"
    path.parent.mkdir()
    grid([[strip] for strip in strips], ["a & b, 4", "c"], [""], "title").savefig(path)
    rows = samples_of(path.read_text(), 32)
    assert list(rows) == ["a & b, 4", "c"]
    for cropped, drawn in zip(rows.values(), strips, strict=True):
        assert np.array_equal(cropped, drawn.permute(0, 2, 3, 1).numpy())
    image = np.asarray(cut(Crop("g-x", 32, {"c": "below", "a & b, 4": "above"}), tmp_path))
    corner = image[:128, -128:].reshape(32, 4, 32, 4, 3)
    assert np.array_equal(corner[:, 1, :, 2], rows["c"][5])
    with pytest.raises(ValueError, match="has no row 'd' but 'a & b, 4', 'c'"):
        cut(Crop("g-x", 32, {"d": ""}), tmp_path)
    with pytest.raises(ValueError, match="is missing: draw it"):
        cut(Crop("g-y", 32, {"d": ""}), tmp_path)


@pytest.mark.parametrize("name", CROPS)
def test_no_label_of_a_picture_is_cut_off(name):
    image = np.asarray(Image.open(ROOT / "docs" / "pictures" / name))
    assert (image[:, :4] == 255).all() and (image[:, 4:200] < 128).any()


# --- limits


def reported(row):
    (numbers,) = (entry.values for entry in load_paper("sdxs").reported if (entry.item, entry.row) == ("tab-3", row))
    return numbers["clip"], numbers["fid"]


def test_the_errata_follow_from_the_papers_own_numbers():
    clip, fid = reported("SDXS-1024")
    assert all(clip < reported(row)[0] for row in ("SDXL", "SDXL-LCM", "Vega")) and clip > reported("SDXL Lightning")[0]
    assert all(fid > reported(row)[1] for row in ("SDXL", "SDXL-LCM", "Vega", "SDXL Lightning"))
    clip, fid = reported("SDXS-512")
    assert reported("SD Turbo")[0] > clip > max(reported("SD v1.5")[0], reported("Tiny SD")[0])
    assert reported("SD Turbo")[1] < fid
    claims = {claim.id for paper in PAPERS for claim in second_edition(paper).claims}
    assert {name for erratum in errata() for name in erratum.claims} <= claims


def test_every_cause_that_a_claim_may_have_has_a_title():
    kinds = {claim.cause.kind for paper in PAPERS for claim in second_edition(paper).claims if claim.cause}
    assert kinds <= set(CAUSES)


def test_every_profile_is_listed():
    named = set(re.findall(r"^\| `(\w+)` \|", text_of("docs/run.md").partition("begin:profiles")[2], re.MULTILINE))
    assert named >= {path.stem for path in Path(ROOT / "distill_lib" / "profiles").glob("*.yaml")}

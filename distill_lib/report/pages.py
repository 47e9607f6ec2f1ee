"""README's tables, made from the manifests and from figures/laptop: `make readme`.

Each stands between `<!-- begin:NAME -->` and `<!-- end:NAME -->`; the text around them is left alone.

    reproduced    what of the two papers is shown here, by which artefact and notebook, and what is not
    claims        the verdicts of claims.json
    table-1       an excerpt of g-tab1: Frechet distance to the teacher, student beside DDIM at equal evaluations
    real-data     the same excerpt and the claims on real data, beside those of the embedded world
    tree          the library's files, each by the first line of its docstring
"""

import argparse
import ast
import json
import re
from collections.abc import Callable, Iterable
from pathlib import Path
from statistics import fmean
from typing import Any

from distill_lib.engine.files import atomic
from distill_lib.measure.metrics import interval
from distill_lib.papers.claims import rows
from distill_lib.papers.manifest import PAPERS, Item, load_paper
from distill_lib.paths import COMMITTED, ROOT

FIGURES = ROOT / "figures"
_KINDS = {"fig": "Fig.", "tab": "Table", "eq": "Eq.", "alg": "Algorithm"}
_AS_HERE = "as here"
_SIGNS = {"at_most": "≤", "at_least": "≥"}


def _table(head: list[str], lines: Iterable[list[str]]) -> str:
    return "\n".join(f"| {' | '.join(line)} |" for line in [head, ["---"] * len(head), *lines])


def _label(item: str) -> str:
    """fig-6 -> Fig. 6, v1-fig-4 -> Fig. 4 of v1."""
    if item.startswith("v1-"):
        return f"{_label(item[3:])} of v1"
    kind, _, number = item.partition("-")
    return f"{_KINDS[kind]} {number.upper()}" if kind in _KINDS else item


def _fold(pairs: Iterable[tuple[str, str]]) -> list[list[str]]:
    """One line a reason, [names, reason], in order of first appearance."""
    names: dict[str, list[str]] = {}
    for name, reason in pairs:
        names.setdefault(reason, []).append(name)
    return [[", ".join(of_reason), reason] for reason, of_reason in names.items()]


def _link(artefact: str, figures: Path) -> str:
    """The artefact's picture or table, relative to README, where it is there."""
    files = [f"{artefact}.{suffix}" for suffix in ("png", "md")]
    present = [file for file in files if (figures / COMMITTED / file).exists()]
    return f"[{artefact}](figures/{COMMITTED}/{present[0]})" if present else artefact


def _answer(item: Item, figures: Path) -> list[str]:
    links = [_link(artefact, figures) for artefact in item.artefacts]
    drawn = [link.startswith("[") for link in links]
    status = "drawn" if all(drawn) else "drawn in part" if any(drawn) else "not measured yet"
    notebook = f"[{item.notebook}](notebooks/{item.notebook}.ipynb)"
    return [_label(item.id), item.shows, ", ".join(links), notebook, f"{status}; {item.note}" if item.note else status]


def reproduced_table(figures: Path = FIGURES) -> str:
    """What of each paper is shown here, then what is not, one line a reason."""
    texts = []
    for name in PAPERS:
        paper = load_paper(name)
        texts.append(f"**{paper.title}** ([arXiv {paper.arxiv}](https://arxiv.org/abs/{paper.arxiv}), {paper.venue})")
        answers = [_answer(item, figures) for item in paper.items if item.not_reproduced is None]
        if answers:
            texts.append(_table(["item", "shows", "artefact", "notebook", "status"], answers))
        missing = _fold((_label(item.id), item.not_reproduced) for item in paper.items if item.not_reproduced)
        texts.append(_table(["not shown", "why"], missing))
        if paper.ours:
            lines = [_answer(item, figures)[1:] for item in paper.ours]
            texts.append(_table(["of our own", "artefact", "notebook", "status"], lines))
    return "\n\n".join(texts)


def _effect(claim: dict[str, Any]) -> str:
    spread = "" if claim["low"] is None else f" [{claim['low']:.3g}, {claim['high']:.3g}]"
    return f"{claim['effect']:.3g}{spread}"


def _bound(claim: dict[str, Any]) -> str:
    return f"{_SIGNS[claim['direction']]} {claim['margin']:g}"


def claims_table(figures: Path = FIGURES) -> str:
    """The verdicts; the claims without one follow, one line a reason."""
    path = figures / COMMITTED / "claims.json"
    if not path.exists():
        return "The claims are not measured yet."
    claims = json.loads(path.read_text())
    texts = []
    head = ["claim", "says", "verdict", "effect [95 % interval]", "supported if", "seeds", "note"]
    for title, wanted in [("Claims of the papers", False), ("Our hypotheses", True)]:
        lines = [
            [c["id"], c["sentence"], f"**{c['verdict']}**", _effect(c), _bound(c), str(len(c["seeds"])), c["note"]]
            for c in claims
            if c["verdict"] and (c["confidence"] == "M") == wanted
        ]
        if lines:
            texts.append(f"{title}:\n\n{_table(head, lines)}")
    unjudged = _fold((c["id"], c["not_judged"]) for c in claims if not c["verdict"])
    return "\n\n".join([*texts, _table(["not judged", "why"], unjudged)] if unjudged else texts)


def _cell(values: list[float]) -> str:
    """Mean over seeds, with half the 95 % t interval from two seeds on."""
    if not values:
        return "-"
    low, high = interval(values)
    return f"{fmean(values):.3g}" + (f" ± {(high - low) / 2:.2g}" if len(values) > 1 else "")


def _against(ours: list[float], reported: list[float]) -> str:
    """Two cells, the smaller mean in bold."""
    better = not reported or (bool(ours) and fmean(ours) <= fmean(reported))
    return f"**{_cell(ours)}** / {_cell(reported)}" if better else f"{_cell(ours)} / **{_cell(reported)}**"


def headline_table(figures: Path = FIGURES, suffix: str = "") -> str:
    """Steps by w: fid_teacher of the student beside that of DDIM at as many evaluations."""
    table = rows(COMMITTED, f"g-tab1{suffix}", figures)
    distances = [row for row in table if row["metric"] == "fid_teacher"]
    ours = [row for row in distances if row["method"] == "ours-D"]
    if not ours:
        return "Table 1 is not measured yet."

    def values(method: str, nfe: int, w: float) -> list[float]:
        return [row["value"] for row in distances if (row["method"], row["nfe"], row["w"]) == (method, nfe, w)]

    ws = sorted({row["w"] for row in ours})
    lines = [
        [str(nfe), *(_against(values("ours-D", nfe, w), values("ddim", nfe, w)) for w in ws)]
        for nfe in sorted({row["nfe"] for row in ours})
    ]
    seeds, counts = (sorted({row[key] for row in ours}) for key in ("seed", "n"))
    floor = [row["value"] for row in table if row["metric"] == "floor_fid"][:1]  # no seed
    caption = (
        "Fréchet distance to the many-step teacher at the same w: distilled student / the teacher by DDIM with as "
        "many network evaluations, the smaller in bold (-: a guided pair needs at least two). "
        f"{' or '.join(map(str, counts))} pictures a number, {len(seeds)} seed"
        f"{'s, mean ± half the 95 % t interval' if len(seeds) > 1 else ''}; real pictures against other real ones: "
        f"{_cell(floor)}. Our features and data, so not to be compared with the paper's FID."
    )
    return caption + "\n\n" + _table(["evaluations", *(f"w = {w:g}" for w in ws)], lines)


def _holds(claim: dict[str, Any]) -> bool:
    """Whether the mean effect of a claim lies on the right side of its margin, whatever its interval."""
    return claim["effect"] <= claim["margin"] if claim["direction"] == "at_most" else claim["effect"] >= claim["margin"]


def real_table(figures: Path = FIGURES) -> str:
    """For each kind of real data: Table 1's excerpt, and which claims come out otherwise than in the embedded world."""
    path, texts = figures / COMMITTED / "claims.json", []
    judged = json.loads(path.read_text()) if path.exists() else []
    verdicts = {claim["id"]: claim for claim in judged if claim["verdict"]}
    head = ["claim", "supported if", "embedded world", "real data", "conclusion", "note"]
    for real in sorted(path.parent.glob("claims-*.json")):
        suffix = real.stem.removeprefix("claims")
        pairs = [(verdicts[claim["id"]], claim) for claim in json.loads(real.read_text()) if claim["id"] in verdicts]
        lines = []
        for ours, other_claim in pairs:
            effects = [f"{claim['effect']:.3g}" for claim in (ours, other_claim)]
            lines.append(
                [
                    other_claim["id"],
                    _bound(other_claim),
                    *effects,
                    _conclusion(_holds(ours), _holds(other_claim)),
                    other_claim["note"],
                ]
            )
        other = sum(line[4] != _AS_HERE for line in lines)
        seeds = max((len(other_claim["seeds"]) for _, other_claim in pairs), default=0)
        caption = (
            f"**{suffix[1:]}**: {other} of {len(pairs)} claims come out otherwise than in the embedded world, by the "
            f"mean effect ({seeds} seed{'s' * (seeds > 1)}: no verdict). {headline_table(figures, suffix)}"
        )
        texts += [caption, _table(head, lines)]
    return "\n\n".join(texts) or "Real data is not measured yet."


def _conclusion(ours: bool, reported: bool) -> str:
    words = {True: "holds", False: "fails"}
    return _AS_HERE if ours == reported else f"**otherwise**: {words[ours]} here, {words[reported]} there"


_REST = {
    "pretrained/": "shipped weights, safetensors, each with its recipe and training curve",
    "figures/laptop/": "the committed results",
    "tests/": "a file a subject; notebooks under nbval, with planted faults; `chaos/` kills runs, `bench.py` times",
    "Snakefile Makefile": "one rule a notebook; the commands",
    "LOG.md CHANGELOG.md": "experiments with their negatives; what changed",
}


def _first_line(path: Path) -> str:
    return (ast.get_docstring(ast.parse(path.read_text())) or "").partition("\n")[0]


def tree(figures: Path) -> str:
    """The files of the library in the order of its map, each with the first line of its docstring.

    Args:
        figures: a folder of the checkout, which is not looked into.
    """
    del figures
    library = Path(__file__).resolve().parent.parent
    notebooks = sorted((library.parent / "notebooks").glob("*.ipynb"))
    lines = [("notebooks/", f"{notebooks[0].stem} to {notebooks[-1].stem}: read these")]
    lines += [("distill_lib/", _first_line(library / "__init__.py")), ("  paths.py", _first_line(library / "paths.py"))]
    for chapter in re.findall(r"^ *\d+ (\w+)/", (library / "__init__.py").read_text(), re.MULTILINE):
        lines.append((f"  {chapter}/", _first_line(library / chapter / "__init__.py")))
        for path in sorted((library / chapter).rglob("*.py")):
            if path.name != "__init__.py":
                lines.append((f"    {path.relative_to(library / chapter).as_posix()}", _first_line(path)))
    lines += list(_REST.items())
    width = max(len(name) for name, _ in lines) + 2
    return "\n".join(["```", *(f"{name:{width}}# {summary}" for name, summary in lines), "```"])


SECTIONS: dict[str, Callable[[Path], str]] = {
    "reproduced": reproduced_table,
    "claims": claims_table,
    "table-1": headline_table,
    "real-data": real_table,
    "tree": tree,
}


def regenerate(text: str, figures: Path = FIGURES) -> str:
    """README's text with its generated sections made anew.

    Raises:
        ValueError: the markers of a section are missing or doubled.
    """
    for name, make in SECTIONS.items():
        begin, end = f"<!-- begin:{name} -->", f"<!-- end:{name} -->"
        if (text.count(begin), text.count(end)) != (1, 1) or text.index(begin) > text.index(end):
            raise ValueError(f"README.md needs the lines {begin} and {end}, once each and in this order")
        pattern = re.compile(f"{re.escape(begin)}.*{re.escape(end)}", re.DOTALL)
        body = f"{begin}\n\n{make(figures)}\n\n{end}"
        text = pattern.sub(lambda _, body=body: body, text)
    return text


def main(arguments: list[str] | None = None) -> None:
    """Command line; with --check nothing is written, and the exit status is 1 if README is out of date."""
    parser = argparse.ArgumentParser(description="make README's tables anew")
    parser.add_argument("--check", action="store_true", help="only say whether README is up to date")
    check = parser.parse_args(arguments).check
    path = ROOT / "README.md"
    if not path.exists():
        raise SystemExit(f"{path} is missing: write it, with the markers that distill_lib/report/pages.py names")
    old = path.read_text()
    new = regenerate(old)
    if check and new != old:
        raise SystemExit("README.md is out of date: run make readme")
    if new != old:
        with atomic(path) as part:
            part.write_text(new)

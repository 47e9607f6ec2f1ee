"""README's tables, made from the manifests and from figures/laptop: `make readme`.

Each stands between `<!-- begin:NAME -->` and `<!-- end:NAME -->`; the text around them is left alone.

    reproduced    what of the two papers is shown here, by which artefact and notebook, and what is not
    claims        the verdicts of claims.json
    table-1       an excerpt of g-tab1: Frechet distance to the teacher, student beside DDIM at equal evaluations
    real-data     the same excerpt and the claims on real data, beside those of the embedded world
    pace          minutes and memory of whole runs, as `make pace` kept them
    tree          the library's files, each by the first line of its docstring
"""

import argparse
import ast
import json
import re
from collections.abc import Callable
from pathlib import Path
from statistics import fmean

from distill_lib.engine.files import atomic
from distill_lib.papers.cells import Place
from distill_lib.papers.manifest import PAPERS, Item, load_paper
from distill_lib.paths import COMMITTED, ROOT
from distill_lib.report.claims import AS_HERE, claims_table, compared, fold, table
from distill_lib.report.tables import plus_minus

FIGURES = ROOT / "figures"
_KINDS = {"fig": "Fig.", "tab": "Table", "eq": "Eq.", "alg": "Algorithm"}


def _label(item: str) -> str:
    """fig-6 -> Fig. 6, v1-fig-4 -> Fig. 4 of v1."""
    if item.startswith("v1-"):
        return f"{_label(item[3:])} of v1"
    kind, _, number = item.partition("-")
    return f"{_KINDS[kind]} {number.upper()}" if kind in _KINDS else item


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
            texts.append(table(["item", "shows", "artefact", "notebook", "status"], answers))
        missing = fold((_label(item.id), item.not_reproduced) for item in paper.items if item.not_reproduced)
        texts.append(table(["not shown", "why"], missing))
        if paper.ours:
            lines = [_answer(item, figures)[1:] for item in paper.ours]
            texts.append(table(["of our own", "artefact", "notebook", "status"], lines))
    return "\n\n".join(texts)


def _cell(values: list[float]) -> str:
    return plus_minus(values) or "-"


def _against(ours: list[float], reported: list[float]) -> str:
    """Two cells, the smaller mean in bold."""
    better = not reported or (bool(ours) and fmean(ours) <= fmean(reported))
    return f"**{_cell(ours)}** / {_cell(reported)}" if better else f"{_cell(ours)} / **{_cell(reported)}**"


def headline_table(figures: Path = FIGURES, suffix: str = "") -> str:
    """Steps by w: fid_teacher of the student beside that of DDIM at as many evaluations."""
    rows = Place(COMMITTED, figures, suffix).rows("g-tab1")
    distances = [row for row in rows if row["metric"] == "fid_teacher"]
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
    floor = [row["value"] for row in rows if row["metric"] == "floor_fid"][:1]  # no seed
    caption = (
        "Fréchet distance to the many-step teacher at the same w: distilled student / the teacher by DDIM with as "
        "many network evaluations, the smaller in bold (-: a guided pair needs at least two). "
        f"{' or '.join(map(str, counts))} pictures a number, {len(seeds)} seed"
        f"{'s, mean ± half the 95 % t interval' if len(seeds) > 1 else ''}; real pictures against other real ones: "
        f"{_cell(floor)}. Our features and data, so not to be compared with the paper's FID."
    )
    return caption + "\n\n" + table(["evaluations", *(f"w = {w:g}" for w in ws)], lines)


def real_table(figures: Path = FIGURES) -> str:
    """For each kind of real data: Table 1's excerpt, and which claims come out otherwise than in the embedded world."""
    path, texts = figures / COMMITTED / "claims.json", []
    embedded = json.loads(path.read_text()) if path.exists() else []
    head = ["claim", "supported if", "embedded world", "real data", "conclusion", "note"]
    for real in sorted(path.parent.glob("claims-*.json")):
        suffix, entries = real.stem.removeprefix("claims"), json.loads(real.read_text())
        lines = compared(embedded, entries)
        other = sum(line[4] != AS_HERE for line in lines)
        seeds = max((len(part["seeds"]) for entry in entries for part in (entry, entry["v1"])), default=0)
        caption = (
            f"**{suffix[1:]}**: {other} of {len(lines)} claims come out otherwise than in the embedded world, by the "
            f"mean effect ({seeds} seed{'s' * (seeds > 1)}: no verdict). {headline_table(figures, suffix)}"
        )
        texts += [caption, table(head, lines)]
    return "\n\n".join(texts) or "Real data is not measured yet."


def pace_table(figures: Path = FIGURES) -> str:
    """Minutes of whole runs by profile and by notebook, and the most memory that one of its notebooks took."""
    path = figures / COMMITTED / "pace.json"
    lines, texts = [], []
    for profile, run in (json.loads(path.read_text()) if path.exists() else {}).items():
        notebooks = run["notebooks"]
        most = max(spent["memory"] for spent in notebooks.values()) / 2**30
        at_once = f"{run['at_once']} of {run['threads']} thread{'s' * (run['threads'] != 1)}"
        lines.append([f"`{profile}`", f"{run['seconds'] / 60:.1f}", str(run["cores"]), at_once, f"{most:.1f}"])
        minutes = (f"{name[:2]} {spent['seconds'] / 60:.1f}" for name, spent in notebooks.items())
        texts.append(f"Minutes of each notebook, others beside it, at `{profile}`: {', '.join(minutes)}.")
    head = ["profile", "minutes", "cores", "notebooks at once", "GB of memory a notebook, at most"]
    return "\n\n".join([table(head, lines), *texts]) if lines else "Not measured yet: `make figures`, then `make pace`."


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
    "pace": pace_table,
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

"""RESULTS.md: what of the two papers is shown here, an excerpt of Table 1, and the same on real data."""

import json
from pathlib import Path
from statistics import fmean

from distill_lib.papers.cells import Place, counted
from distill_lib.papers.editions import rules
from distill_lib.papers.manifest import PAPERS, Item, load_paper
from distill_lib.paths import COMMITTED
from distill_lib.report.claims import AS_HERE, compared, fold, table
from distill_lib.report.tables import plus_minus

_KINDS = {"fig": "Fig.", "tab": "Table", "eq": "Eq.", "alg": "Algorithm"}


def _label(item: str) -> str:
    """fig-6 -> Fig. 6, v1-fig-4 -> Fig. 4 of v1."""
    if item.startswith("v1-"):
        return f"{_label(item[3:])} of v1"
    kind, _, number = item.partition("-")
    return f"{_KINDS[kind]} {number.upper()}" if kind in _KINDS else item


def _link(artefact: str, figures: Path) -> str:
    """The artefact's picture or table, where it is there."""
    files = [f"{artefact}.{suffix}" for suffix in ("png", "md")]
    present = [file for file in files if (figures / COMMITTED / file).exists()]
    return f"[{artefact}](figures/{COMMITTED}/{present[0]})" if present else artefact


def _answer(item: Item, figures: Path) -> list[str]:
    links = [_link(artefact, figures) for artefact in item.artefacts]
    drawn = [link.startswith("[") for link in links]
    status = "drawn" if all(drawn) else "drawn in part" if any(drawn) else "not measured yet"
    notebook = f"[{item.notebook}](notebooks/{item.notebook}.ipynb)"
    return [_label(item.id), item.shows, ", ".join(links), notebook, f"{status}; {item.note}" if item.note else status]


def reproduced_table(figures: Path) -> str:
    """What of each paper is shown here, then what is not, one line a reason."""
    texts = []
    for name in PAPERS:
        paper = load_paper(name)
        texts.append(f"### {paper.title}\n\n[arXiv {paper.arxiv}](https://arxiv.org/abs/{paper.arxiv}), {paper.venue}")
        answers = [_answer(item, figures) for item in paper.items if item.not_reproduced is None]
        if answers:
            texts.append(table(["item", "shows", "artefact", "notebook", "status"], answers))
        missing = fold((_label(item.id), item.not_reproduced) for item in paper.items if item.not_reproduced)
        if missing:
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


def table_1_excerpt(figures: Path, suffix: str = "") -> str:
    """Steps by w: fid_teacher of the student beside that of DDIM at as many evaluations."""
    rows = counted(Place(COMMITTED, figures, suffix).rows("g-tab1"), rules())
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
        f"{' or '.join(map(str, counts))} pictures per number, {len(seeds)} seed"
        f"{'s, mean ± half of the 95 % t interval' if len(seeds) > 1 else ''}; real pictures against other real ones: "
        f"{_cell(floor)}. Our features and data, so not to be compared with the paper's FID."
    )
    return caption + "\n\n" + table(["evaluations", *(f"w = {w:g}" for w in ws)], lines)


def real_table(figures: Path) -> str:
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
            f"mean effect ({seeds} seed{'s' * (seeds > 1)}: no verdict). {table_1_excerpt(figures, suffix)}"
        )
        texts += [caption, table(head, lines)]
    return "\n\n".join(texts) or "Real data is not measured yet."

"""`make readme`: the generated parts of README and of the pages behind it, and the pictures of README.

A part stands between `<!-- begin:NAME -->` and `<!-- end:NAME -->`; the text around it is left alone. One call renews
all of them from the manifests, from figures/laptop and from the YAML files beside this one.
"""

import argparse
import io
import re
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image

from distill_lib.engine.files import atomic
from distill_lib.paths import ROOT
from distill_lib.report.pages.claims import claims_table
from distill_lib.report.pages.first_screen import Language, costs_table, headline_table, verdicts
from distill_lib.report.pages.limits import errata_table, limits_table
from distill_lib.report.pages.pace import pace_table
from distill_lib.report.pages.pictures import CROPS, png, verdict_bars
from distill_lib.report.pages.plans import plans_table, weights_table
from distill_lib.report.pages.results import real_table, reproduced_table, table_1_excerpt
from distill_lib.report.pages.speed import speed_table
from distill_lib.report.pages.tree import profiles_table, tree

Sections = Mapping[str, Callable[[Path], str]]


def _first_screen(language: Language) -> Sections:
    makers = {"headlines": headline_table, "verdicts": verdicts, "costs": costs_table, "speed": speed_table}
    return {name: partial(make, language=language) for name, make in makers.items()}


PAGES: dict[str, Sections] = {
    "README.md": _first_screen("en"),
    "README.zh.md": _first_screen("zh"),
    "RESULTS.md": {"reproduced": reproduced_table, "table-1": table_1_excerpt, "real-data": real_table},
    "CLAIMS.md": {"verdicts": partial(verdicts, language="en"), "claims": claims_table},
    "LIMITS.md": {"errata": errata_table, "causes": limits_table},
    "docs/run.md": {"profiles": profiles_table, "pace": pace_table},
    "docs/code.md": {"tree": tree},
    "docs/distil-your-own.md": {"weights": weights_table, "plans": plans_table},
}
"""The generated parts of each page, by name."""
PICTURES: dict[str, Callable[[Path], bytes]] = {
    "docs/pictures/verdicts.svg": lambda figures: verdict_bars(figures).encode(),
    **{f"docs/pictures/{name}": partial(png, crop) for name, crop in CROPS.items()},
}
"""The pictures of README."""
_SHADES = 2.0  # of 255, on average: letters of another FreeType


def regenerate(page: str, text: str, figures: Path) -> str:
    """The text of a page with its generated parts made anew.

    Raises:
        ValueError: the markers of a part are missing or doubled.
    """
    for name, make in PAGES[page].items():
        begin, end = f"<!-- begin:{name} -->", f"<!-- end:{name} -->"
        if (text.count(begin), text.count(end)) != (1, 1) or text.index(begin) > text.index(end):
            raise ValueError(f"{page} needs the lines {begin} and {end}, once each and in this order")
        pattern = re.compile(f"{re.escape(begin)}.*{re.escape(end)}", re.DOTALL)
        body = f"{begin}\n\n{make(figures)}\n\n{end}"
        text = pattern.sub(lambda _, body=body: body, text)
    return text


def alike(old: bytes, new: bytes) -> bool:
    """Whether two files are the same, or two pictures in which at most the letters differ by a shade."""
    if old == new or not new.startswith(b"\x89PNG"):
        return old == new
    a, b = (np.asarray(Image.open(io.BytesIO(data)).convert("RGB"), dtype=float) for data in (old, new))
    return a.shape == b.shape and float(np.abs(a - b).mean()) < _SHADES


def outdated(root: Path) -> dict[Path, bytes]:
    """What is to be written: the files of a checkout that are not as they would be made today.

    Raises:
        ValueError: a page is missing or lacks its markers, or a figure has no such rows.
    """
    figures, files = root / "figures", {}
    for name in PAGES:
        path = root / name
        if not path.exists():
            raise ValueError(
                f"{path} is missing: write it, with the markers that distill_lib/report/pages/write.py names"
            )
        old = path.read_text(encoding="utf-8")
        new = regenerate(name, old, figures)
        if new != old:
            files[path] = new.encode()
    for name, make in PICTURES.items():
        path, new = root / name, make(figures)
        if not (path.exists() and alike(path.read_bytes(), new)):
            files[path] = new
    return files


def main(arguments: list[str] | None = None) -> None:
    """Command line; with --check nothing is written, and the exit status is 1 if a page or picture is out of date."""
    parser = argparse.ArgumentParser(description="make the tables of README, of the pages behind it, and its pictures")
    parser.add_argument("--check", action="store_true", help="only say whether all of them are up to date")
    check = parser.parse_args(arguments).check
    files = outdated(ROOT)
    if check and files:
        names = ", ".join(str(path.relative_to(ROOT)) for path in files)
        raise SystemExit(f"out of date: {names}; run make readme")
    for path, data in files.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        with atomic(path) as part:
            part.write_bytes(data)

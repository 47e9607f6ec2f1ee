"""The table of figures/laptop/bench.json (`make bench`): the plain way and ours, in both precisions, for each case."""

import json
from pathlib import Path
from typing import Any

import yaml

from distill_lib.papers.manifest import Strict
from distill_lib.paths import COMMITTED
from distill_lib.report.claims import table


class _Words(Strict):
    """By language: the head, the caption with places for machine and day, and the sentence in the table's place."""

    head: dict[str, list[str]]
    caption: dict[str, str]
    processes: dict[str, str]
    loops: dict[str, str]
    unmeasured: dict[str, str]


SPEED = _Words.model_validate(yaml.safe_load(Path(__file__).with_suffix(".yaml").read_text(encoding="utf-8")))
"""`loops`: the cases of the bench, and their names in Chinese."""


def _line(row: dict[str, Any], language: str) -> list[str]:
    rates = {name: f"{row[name]:.0f}" for name in ("plain", "bf16", "fp32")}
    rates[row["chosen"]] = f"**{rates[row['chosen']]}**"
    name = SPEED.loops[row["what"]] if language == "zh" else row["what"]
    return [name, row["setting"], *rates.values(), f"{row['ratio']:.2f}", f"{row['peak_share']:.0%}"]


def speed_table(figures: Path, language: str) -> str:
    """A line for each case of the bench, and what it ran on."""
    path = figures / COMMITTED / "bench.json"
    if not path.exists():
        return SPEED.unmeasured[language]
    bench = json.loads(path.read_text())
    peak = f"{max(bench['peak'].values()) / 1e9:.0f}"
    caption = SPEED.caption[language].format(**{name: bench[name] for name in ("device", "threads", "day")}, peak=peak)
    if both := bench.get("processes"):
        numbers = {"ratio": f"{both['ratio']:.2f}"} | {name: f"{both[name]:.0f}" for name in ("one", "two", "batch")}
        caption = f"{caption.strip()} {SPEED.processes[language].format(**numbers)}"
    return f"{table(SPEED.head[language], [_line(row, language) for row in bench['rows']])}\n\n{caption.strip()}"

"""Tables on which a claim of the second edition has to give a known verdict: its oracle and its baseline.

In this order: the committed rows of earlier seeds, given to seeds that count, or with `counted` those of the seeds that
count; metrics that they lack, from what stands in for them; rows made by hand; rows in the place of another method's.

What stands in for a metric without bias has a bias of its own, but hardly any noise: earlier rows tell whether a claim
is a test at all. The rows that count tell what the instruments can tell at their size.
"""

import functools
import json
from itertools import product

from distill_lib.papers.cells import artefacts_of
from distill_lib.papers.editions import rules
from distill_lib.paths import ROOT

MANY = 64  # steps of a teacher that is made
JITTER = (0.998, 1.0, 1.002)
RULES = rules()


def tables(claim, stand, counted=False):
    """Artefact to rows, of as many seeds as a verdict needs."""
    committed = stand.rows == "committed"
    table_of = {name: _committed(name, counted) if committed else [] for name in _names(claim, stand)}
    for name, row in _made(claim, stand):
        same = (row["method"], row["metric"])
        table_of[name] = [old for old in table_of[name] if "made" in old or (old.get("method"), old["metric"]) != same]
        table_of[name].append(row | {"made": True})
    read = {select.metric for part in claim.effect for select in part.selects()}
    unswapped = {name: list(rows) for name, rows in table_of.items()}
    for method, source in stand.swap.items():
        swaps = 0
        for name, rows in table_of.items():
            for i, row in enumerate(rows):
                if row.get("method") == method and row["metric"] in read - set(source.but):
                    other = _source_row(unswapped[source.artefact or name], row, source)
                    if other is not None:
                        rows[i], swaps = row | {"value": other["value"]}, swaps + 1
        assert swaps, f"{claim.id}: {source.method} has no row for any of {method}"
    return table_of


def write(folder, tables):
    """The tables as files of the laptop profile."""
    (folder / "laptop").mkdir(exist_ok=True)
    for name, rows in tables.items():
        (folder / "laptop" / f"{name}.json").write_text(json.dumps({"rows": rows}))


def measured(claim, stand):
    """Whether all of its artefacts have rows of as many seeds as a verdict needs, of those that count."""
    return stand.rows == "committed" and all(
        len({row["seed"] for row in _rows(name) if row.get("seed", 0) >= RULES.first_seed}) >= RULES.seeds
        for name in _names(claim, stand)
    )


def _names(claim, stand):
    sources = [source.artefact for source in stand.swap.values() if source.artefact]
    return dict.fromkeys([*artefacts_of(claim.effect), *sources])


@functools.cache
def _rows(name):
    return json.loads((ROOT / "figures" / "laptop" / f"{name}.json").read_text())["rows"]


def _committed(name, counted):
    rows = _rows(name)
    seeds = {row["seed"] for row in rows if "seed" in row}
    late = {seed for seed in seeds if seed >= RULES.first_seed}
    seeds = late if counted else seeds - late or seeds
    copies = 1 if len(seeds) > 1 else RULES.seeds  # one seed stands for all
    first = max(RULES.first_seed - min(seeds, default=0), 0)
    rows = [
        _of_seed(row, row["seed"] + first + i) if "seed" in row else row
        for row in rows
        if "seed" not in row or row["seed"] in seeds
        for i in range(copies if "seed" in row else 1)
    ]
    present = {row["metric"] for row in rows}
    for metric, old in RULES.stand_in.items():
        if metric not in present:
            rows += [row | {"metric": metric} for row in rows if row["metric"] == old]
    return rows


def _of_seed(row, seed):
    return row | {"seed": seed, "training": seed}


def _made(claim, stand):
    """The rows that are made by hand, at every point where a part of the claim, or a swap, asks for them."""
    given = {}
    for part in claim.effect:
        own = {field: claim.expects[field] for field in part.each if field in claim.expects}
        for point in _points(part.value.pins() | own):
            nfe = {"nfe": point["steps"]} if "nfe" in part.each else {}
            selects = [(part.artefact, point | nfe)]
            for select in part.selects()[1:]:
                at = {field: point[field] for field in part.each if field in point} | nfe
                selects.append((select.artefact or part.artefact, at | select.pins()))
            for artefact, row in [*selects]:
                if source := stand.swap.get(row.get("method")):
                    selects.append((source.artefact or artefact, row | {"method": source.method}))
            for artefact, row in selects:
                row = row | ({"steps": MANY} if row.get("steps") == "most" else {})
                value = stand.made.get(row.get("method"), {}).get(row["metric"])
                if value is not None:
                    given[artefact, json.dumps(row, sort_keys=True)] = (row, value)
    for (artefact, _), (row, value) in given.items():
        for seed, jitter in enumerate(JITTER, RULES.first_seed):
            yield artefact, _of_seed(row, seed) | {"value": _number(value, row) * jitter}


def _points(pins):
    fields = {field: value if isinstance(value, list) else [value] for field, value in pins.items()}
    return [dict(zip(fields, values, strict=True)) for values in product(*fields.values())]


def _number(value, row):
    if not isinstance(value, dict):
        return value
    ((field, of),) = value.items()
    return of[row[field]]


def _source_row(rows, row, source):
    """The one row that is put in the place of another; None if there is none."""
    fitting = [
        other
        for other in rows
        if other.get("method") == source.method
        and other["metric"] == row["metric"]
        and all(other.get(field, row.get(field)) == row.get(field, other.get(field)) for field in ("seed", "kind", "t"))
        and (source.w is None or other["w"] == source.w)
        and (source.steps != "nfe" or other["nfe"] == row["nfe"])
        and (not isinstance(source.steps, int) or other["steps"] == source.steps)
    ]
    if source.steps == "most" and fitting:
        most = max(other.get("steps", 0) for other in fitting)
        fitting = [other for other in fitting if other.get("steps", 0) == most]
    for field in ("w", "steps"):  # where they tell rows apart
        if len(fitting) > 1:
            fitting = [other for other in fitting if other.get(field) == row.get(field)]
    assert len(fitting) < 2, (source, row)
    return fitting[0] if fitting else None

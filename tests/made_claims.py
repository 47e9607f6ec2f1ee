"""A claim made up for tests of the rule of the second edition, and rows for it."""

import json

from distill_lib.papers.cells import Place
from distill_lib.papers.claims import judge_second
from distill_lib.papers.editions import Second, rules

PART = {"artefact": "g-x", "value": {"method": "ours", "metric": "fid"}, "each": ["w"]}
NEAR, FAR = (0.5, 0.52, 0.48), (1.5, 1.52, 1.48)


def a_claim(**more):
    """A claim that the FID of "ours" is at most 1 at each w, with other fields on top."""
    columns = {"id": "g-X", "sentence": "x", "tests": "x", "source": "x", "confidence": "V", "no_oracle": "made up"}
    made = {"rows": "made", "made": {"ours": {"fid": 1}}}
    columns |= {"effect": [PART], "oracle": made, "baseline": made, "expects": {"w": [0]}}
    return Second.model_validate(columns | more)


def write(folder, artefact, values, first=3, **more):
    """One row for each w and seed, of {w: values by seed}; returns the place."""
    rows = [
        {"method": "ours", "metric": "fid", "w": w, "seed": first + i, "value": value} | more
        for w, of_w in values.items()
        for i, value in enumerate(of_w)
    ]
    return write_rows(folder, artefact, rows)


def write_rows(folder, artefact, rows):
    """These rows as a file of the laptop profile; returns the place."""
    (folder / "laptop").mkdir(exist_ok=True)
    (folder / "laptop" / f"{artefact}.json").write_text(json.dumps({"rows": rows}))
    return Place("laptop", folder)


def verdict(folder, values, first=3, **more):
    """The entry of the claim on {w: values by seed}."""
    more = {"expects": {"w": list(values)}} | more
    return judge_second(a_claim(**more), write(folder, "g-x", values, first), rules())

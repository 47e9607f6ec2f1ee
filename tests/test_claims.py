"""Every claim on ablations, transfer and cost can be supported and can be contradicted, each part of it alone."""

import json
from itertools import product

import pytest

from distill_lib.papers import claims
from distill_lib.papers.manifest import load_paper

RANGES = {f"w from 0 to {w_max}": {"fid_teacher": 1.2} for w_max in (1, 2, 4, 8)}
FIG_12 = {
    "ours-D": {"style": 0.95, "fid_target": 3.0, "paired_target": 0.02, "iou_kept": 0.8},
    "ddim": {"style": 0.95, "fid_target": 6.0, "paired_target": 0.04, "iou_kept": 0.7},
    "source": {"fid_target": 30.0, "paired_target": 0.2},
    "unrelated": {"fid_target": 3.0, "paired_target": 0.2},
}
CLASSES = {"ours-D": {"accuracy": 0.9, "iou": 0.8}, "ddim": {"accuracy": 0.8, "iou": 0.7}}
HEADS = ("x", "eps", "v", "(x, eps)")
WEIGHTINGS = ("SNR", "truncated SNR", "SNR + 1")
NETWORKS = {f"{head}, {weighting}": {"fid": 20.0} for head in HEADS for weighting in WEIGHTINGS}
START = {
    "both from the teacher": {"fid_teacher": 1.0},
    "stage one from random weights": {"fid_teacher": 2.0},
    "halvings from random weights": {"fid_teacher": 2.0},
}
EMBEDDING = {"Fourier features": {"fid_teacher": 1.0}, "w as one number": {"fid_teacher": 2.0}}

# id: what supports it, as artefact -> method -> metric -> value
GOOD = {
    "g-S6": {"g-abl-range": RANGES},
    "g-S8": {"g-fig12": FIG_12},
    "g-S10": {"g-abl-init": START, "g-abl-embedding": EMBEDDING},
    "g-P1": {"g-abl-weighting": NETWORKS | {"eps, truncated SNR": {"fid": 90.0}}},
    "g-P3": {"g-cost": {"all of distillation": {"training_seconds": 50.0}, "teacher": {"training_seconds": 90.0}}},
    "g-F12": {"g-fig12": FIG_12, "g-class-transfer": CLASSES},
}
# id, and what is changed to contradict it: artefact, method, metric, value
BAD = [
    ("g-S6", "g-abl-range", "w from 0 to 8", "fid_teacher", 2.0),
    ("g-S6", "g-abl-range", "w from 0 to 1", "fid_teacher", 0.4),
    ("g-S8", "g-fig12", "ours-D", "style", 0.6),
    ("g-S8", "g-fig12", "ours-D", "fid_target", 20.0),
    ("g-S8", "g-fig12", "ours-D", "paired_target", 0.15),
    ("g-S8", "g-fig12", "ours-D", "iou_kept", 0.3),
    ("g-S10", "g-abl-init", "stage one from random weights", "fid_teacher", 1.0),
    ("g-S10", "g-abl-init", "halvings from random weights", "fid_teacher", 0.9),
    ("g-S10", "g-abl-embedding", "w as one number", "fid_teacher", 1.0),
    ("g-P1", "g-abl-weighting", "eps, truncated SNR", "fid", 22.0),
    ("g-P1", "g-abl-weighting", "x, SNR", "fid", 80.0),
    ("g-P3", "g-cost", "all of distillation", "training_seconds", 120.0),
    ("g-F12", "g-fig12", "ours-D", "fid_target", 7.0),
    ("g-F12", "g-fig12", "ours-D", "iou_kept", 0.5),
    ("g-F12", "g-class-transfer", "ours-D", "accuracy", 0.7),
    ("g-F12", "g-class-transfer", "ours-D", "iou", 0.5),
]


def write(folder, artefacts):
    """Rows of three seeds, a percent apart, at every step count and strength that the claims name."""
    for artefact, methods in artefacts.items():
        rows = [
            {"method": method, "metric": metric, "steps": steps, "nfe": 2 * steps, "w": w, "seed": seed}
            | {"value": value * (1 + 0.01 * (seed - 1))}
            for method, values in methods.items()
            for metric, value in values.items()
            for steps, w, seed in product(_steps(method, artefact), _ws(method, artefact), (0, 1, 2))
        ]
        path = folder / "laptop" / f"{artefact}.json"
        path.parent.mkdir(exist_ok=True)
        path.write_text(json.dumps({"rows": rows}))


def _steps(method, artefact):
    once = method in ("source", "unrelated") or artefact in ("g-cost", "g-abl-weighting")
    return (4,) if once or artefact.startswith("g-abl") else (2, 4, 8, 16)


def _ws(method, artefact):
    once = method in ("source", "unrelated") or artefact in ("g-cost", "g-abl-weighting", "g-class-transfer")
    return (1,) if once else (0, 1, 4) if artefact in ("g-abl-init", "g-abl-embedding") else (0, 1)


def verdict(folder, name, artefacts):
    write(folder, artefacts)
    claim = next(claim for claim in load_paper("guided").claims if claim.id == name)
    return claims.judge_claim(claim, "guided", "laptop", folder)


@pytest.mark.parametrize("name", GOOD)
def test_what_a_claim_says_supports_it(tmp_path, name):
    found = verdict(tmp_path, name, GOOD[name])
    assert found["verdict"] == "supported", found


@pytest.mark.parametrize("name, artefact, method, metric, value", BAD)
def test_one_part_that_fails_contradicts_a_claim(tmp_path, name, artefact, method, metric, value):
    table = GOOD[name][artefact]
    changed = GOOD[name] | {artefact: table | {method: table[method] | {metric: value}}}
    found = verdict(tmp_path, name, changed)
    assert found["verdict"] == "contradicted", found


def strengths(margin, paired):
    """Rows of g-v1-fig4: margin and squared error at w = 4, beside 1 at w = 0."""
    return [
        {"method": "ours-D", "steps": 8, "metric": metric, "w": w, "seed": seed, "value": value}
        for metric, at_4 in (("margin", margin), ("paired_target", paired))
        for w, value in ((0, 1.0), (4, at_4))
        for seed in (0, 1, 2)
    ]


@pytest.mark.parametrize(
    "margin, paired, another, direction",
    [
        (1.5, 1.5, "supported", "supported"),
        (0.5, 1.5, "supported", "contradicted"),
        (1.5, 1.01, "contradicted", "contradicted"),
    ],
)
def test_that_w_matters_and_in_which_direction_are_two_claims(tmp_path, margin, paired, another, direction):
    path = tmp_path / "laptop" / "g-v1-fig4.json"
    path.parent.mkdir()
    path.write_text(json.dumps({"rows": strengths(margin, paired)}))
    every = {claim.id: claim for claim in load_paper("guided").claims}
    found = [claims.judge_claim(every[name], "guided", "laptop", tmp_path)["verdict"] for name in ("g-S9", "g-S9a")]
    assert found == [another, direction]

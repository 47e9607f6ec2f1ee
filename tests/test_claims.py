"""Every claim on ablations, transfer, cost and text can be supported and can be contradicted, each part of it alone."""

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
SOLVER = {"fid": 60.0, "clip": 0.9}
TEXT = {
    "ours-D": {"fid": 30.0, "clip": 0.95, "prompt_accuracy": 0.97, "seconds": 1.0},
    "teacher": {"fid": 30.0, "clip": 0.95, "prompt_accuracy": 0.97, "seconds": 12.0},
    "ddim": SOLVER,
    "dpm": SOLVER,
    "dpm++": SOLVER | {"fid": {1: 60.0, 2: 60.0, 4: 60.0, 8: 30.0, 16: 30.0}},
    "unipc": SOLVER,
}
EDIT = {
    "ours-D": {"edit_success": 0.9, "paired_target": 0.02, "seam": 1.0},
    "teacher": {"edit_success": 0.9, "paired_target": 0.02, "seam": 1.0},
    "ddim": {"edit_success": 0.8, "paired_target": 0.04},
}

# id: what supports it, as artefact -> method -> metric -> value, or value by steps
GOOD = {
    "g-S6": {"g-abl-range": RANGES},
    "g-S8": {"g-fig12": FIG_12},
    "g-S10": {"g-abl-init": START, "g-abl-embedding": EMBEDDING},
    "g-P1": {"g-abl-weighting": NETWORKS | {"eps, truncated SNR": {"fid": 90.0}}},
    "g-P3": {"g-cost": {"all of distillation": {"training_seconds": 50.0}, "teacher": {"training_seconds": 90.0}}},
    "g-F12": {"g-fig12": FIG_12, "g-class-transfer": CLASSES},
    "g-A2": {"g-tab2": TEXT},
    "g-A3": {"g-fig8": EDIT, "g-fig9": EDIT},
    "g-T2": {"g-tab2": TEXT},
    "g-F10": {"g-fig10": TEXT},
    "g-F11": {"g-fig11": TEXT},
    "g-E1": {"g-fig8": EDIT},
    "g-E2": {"g-fig9": EDIT},
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
    ("g-A2", "g-tab2", "ours-D", "fid", 45.0),
    ("g-A2", "g-tab2", "ours-D", "prompt_accuracy", 0.8),
    ("g-A2", "g-tab2", "ours-D", "seconds", 2.0),
    ("g-A3", "g-fig8", "ours-D", "edit_success", 0.7),
    ("g-A3", "g-fig8", "ours-D", "paired_target", 0.03),
    ("g-A3", "g-fig9", "ours-D", "edit_success", 0.7),
    ("g-A3", "g-fig9", "ours-D", "paired_target", 0.03),
    ("g-T2", "g-tab2", "ddim", "fid", 30.0),
    ("g-T2", "g-tab2", "dpm", "fid", 30.0),
    ("g-T2", "g-tab2", "unipc", "fid", 30.0),
    ("g-T2", "g-tab2", "dpm++", "fid", 30.0),
    ("g-T2", "g-tab2", "dpm++", "fid", 60.0),
    ("g-T2", "g-tab2", "unipc", "clip", 0.99),
    ("g-F10", "g-fig10", "ddim", "fid", 20.0),
    ("g-F10", "g-fig10", "teacher", "fid", 20.0),
    ("g-F10", "g-fig10", "ddim", "clip", 0.99),
    ("g-F10", "g-fig10", "teacher", "clip", 0.99),
    ("g-F11", "g-fig11", "ours-D", "fid", 40.0),
    ("g-F11", "g-fig11", "ours-D", "prompt_accuracy", 0.8),
    ("g-E1", "g-fig8", "ddim", "edit_success", 0.95),
    ("g-E1", "g-fig8", "ours-D", "paired_target", 0.05),
    ("g-E2", "g-fig9", "ours-D", "seam", 1.3),
    ("g-E2", "g-fig9", "ours-D", "paired_target", 0.05),
]


STEPS = {"g-tab2": (1, 2, 4, 8, 16), "g-fig10": (1, 2, 4, 8, 16), "g-fig11": (1, 2, 4, 8, 16)}
STEPS |= {"g-fig8": (3,), "g-fig9": (1, 2, 4, 8)}
WS = {"g-abl-init": (0, 1, 4), "g-abl-embedding": (0, 1, 4), "g-fig11": (0, 2, 4)}
WS |= dict.fromkeys(("g-tab2", "g-fig10", "g-fig8", "g-fig9"), (2,))
WS |= dict.fromkeys(("g-cost", "g-abl-weighting", "g-class-transfer"), (1,))
KINDS = dict.fromkeys(("g-fig8", "g-fig9"), ({"kind": "colour"}, {"kind": "shape"}))


def write(folder, artefacts):
    """Rows of three seeds, a percent apart, at every step count, strength and kind of edit that the claims name."""
    for artefact, methods in artefacts.items():
        rows = [
            {"method": method, "metric": metric, "steps": steps, "nfe": 2 * steps, "w": w, "seed": seed}
            | kind
            | {"value": (value[steps] if isinstance(value, dict) else value) * (1 + 0.01 * (seed - 1))}
            for method, values in methods.items()
            for metric, value in values.items()
            for steps, w, seed, kind in product(
                _steps(method, artefact), _ws(method, artefact), (0, 1, 2), KINDS.get(artefact, ({},))
            )
        ]
        path = folder / "laptop" / f"{artefact}.json"
        path.parent.mkdir(exist_ok=True)
        path.write_text(json.dumps({"rows": rows}))


def _steps(method, artefact):
    if artefact in STEPS:
        return (32,) if method == "teacher" else STEPS[artefact]
    once = method in ("source", "unrelated") or artefact in ("g-cost", "g-abl-weighting")
    return (4,) if once or artefact.startswith("g-abl") else (2, 4, 8, 16)


def _ws(method, artefact):
    return (1,) if method in ("source", "unrelated") else WS.get(artefact, (0, 1))


def verdict(folder, name, artefacts):
    write(folder, artefacts)
    claim = next(claim for claim in load_paper("guided").claims if claim.id == name)
    return claims.judge_claim(claim, "guided", "laptop", folder)


@pytest.mark.parametrize("name", GOOD)
def test_what_a_claim_says_supports_it(tmp_path, name):
    result = verdict(tmp_path, name, GOOD[name])
    assert result["verdict"] == "supported", result


@pytest.mark.parametrize("name, artefact, method, metric, value", BAD)
def test_one_part_that_fails_contradicts_a_claim(tmp_path, name, artefact, method, metric, value):
    table = GOOD[name][artefact]
    changed = GOOD[name] | {artefact: table | {method: table[method] | {metric: value}}}
    result = verdict(tmp_path, name, changed)
    assert result["verdict"] == "contradicted", result


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
    result = [claims.judge_claim(every[name], "guided", "laptop", tmp_path)["verdict"] for name in ("g-S9", "g-S9a")]
    assert result == [another, direction]

"""One style for all figures: colours that colour-blind readers tell apart, markers, labels."""

import io
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure

Row = dict[str, Any]
COLORS = {"ours-D": "#0072B2", "ddim": "#D55E00", "teacher": "#000000", "real": "#777777"}
COLORS |= {"ours-S": "#009E73", "single-w": "#CC79A7", "ancestral": "#E69F00", "stage-one": "#56B4E9"}
COLORS |= {"dpm": "#E69F00", "dpm++": "#CC79A7", "unipc": "#009E73"}
MARKERS = {"ours-D": "o", "ddim": "s", "teacher": "*", "ours-S": "^", "single-w": "D", "ancestral": "v"}
MARKERS |= {"stage-one": "P", "dpm": "v", "dpm++": "D", "unipc": "^"}
_LEVELS = {"truth": "--", "source": ":", "unrelated": "-."}  # lines of what bounds a transfer
LABELS = {
    "ours-D": "distilled student (D)",
    "ours-S": "distilled student (S)",
    "single-w": "student for one w",
    "ddim": "guided pair, DDIM",
    "ancestral": "guided pair, ancestral",
    "teacher": "teacher, many steps",
    "stage-one": "student of stage one, not halved",
    "fid": "FID",
    "loss": "loss, smoothed",
    "fid_teacher": "distance to teacher",
    "is": "Inception score",
    "accuracy": "named as its class",
    "paired": "paired distance to teacher",
    "sharpness": "sharpness (Laplacian variance)",
    "recall": "recall",
    "nfe": "network evaluations a sample",
    "iou": "overlap with the true solid (IoU)",
    "depth_error": "depth error on the solid",
    "style": "called a picture of the new look",
    "fid_target": "distance to the true pictures",
    "paired_target": "square error to the true picture",
    "round_trip": "square error after the way back",
    "source": "not transferred",
    "truth": "true picture",
    "relative_error": "relative error of stage one",
    "margin": "log-probability margin of the class",
    "iou_kept": "share of the overlap kept",
    "unrelated": "fresh noise, same class",
    "regression": "one step by regression",
    "dpm": "guided pair, DPM-Solver",
    "dpm++": "guided pair, DPM-Solver++",
    "unipc": "guided pair, UniPC",
    "attribute_accuracy": "shapes and colours right",
    "prompt_accuracy": "prompts right",
    "clip": "picture and prompt (mini CLIP)",
    "edit_success": "shows what was asked for",
    "outside": "square change outside the region",
    "seam": "seam (1: that of the true picture)",
    "start": "time from which it is drawn",
    "kid": "KID",
    "floor_fid": "FID of real pictures",
    "crossing_share": "share of pairs that cross",
    "off_modes": "share off the modes",
    "off_modes_steep": "the same, steepest quarter",
    "to_best": "distance to eq. 9",
    "straightness": "distance of one Euler step",
    "layout": "overlap with before (IoU)",
    "fid_look": "distance to the true look",
    "scale": "scale of the LoRA",
    "independent": "couples drawn apart",
    "own": "the teacher's own couples",
    "reflow": "couples after one reflow",
    "flow": "first flow, many steps",
    "psnr": "PSNR (dB)",
    "psnr_coarse": "PSNR, pooled (dB)",
    "sharpness_kept": "share of the sharpness",
    "prediction_error": "relative error of the prediction",
    "prompt_size": "what the prompt changes",
    "lambda_gan": r"$\lambda_{GAN}$",
    "lambda_f": r"$\lambda_F$",
    "millions": "million weights",
    "milliseconds": "ms at batch 1",
    "lcm": "consistency model",
    "turbo": "whole U-Net, one step",
    "tiny": "small U-Net, DPM-Solver++",
    "sdxs": "SDXS, one step",
    "unguided": "teacher without guidance",
    "edge_f1": "edges right (F1)",
    "diversity": "difference by noise",
    "diversity_prompt": "difference by prompt",
    "prompt_accuracy_changed": "other prompts right",
    "share": "share of the noise drawn anew",
    "fid_inf": r"FID$_\infty$",
    "mmd_world": "MMD² to the world",
    "mmd_teacher": "MMD² to the teacher",
    "precision": "precision",
    "density": "density",
    "coverage": "coverage",
    "sharpness_ratio": "sharpness / real",
    "fine_ratio": "fine power / real",
    "copies": "copies",
}
_STYLE = {
    "figure.dpi": 100,
    "savefig.dpi": 150,
    "savefig.bbox": "tight",
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.alpha": 0.25,
    "legend.frameon": False,
    "svg.hashsalt": "distill_lib",
}

mpl.rcdefaults()  # whatever the matplotlibrc of the user says

mpl.rcParams.update(_STYLE)


class _Shown(Figure):
    """A Figure that a notebook shows without pyplot and its global state."""

    def _repr_png_(self) -> bytes:
        buffer = io.BytesIO()
        self.savefig(buffer, format="png", dpi=100)
        return buffer.getvalue()


def _new(width: float, height: float, rows: int = 1, columns: int = 1, **kwargs: Any) -> tuple[Figure, np.ndarray]:
    figure = _Shown(figsize=(width, height), layout="constrained")
    return figure, figure.subplots(rows, columns, squeeze=False, **kwargs)


def _mean_and_range(rows: list[Row], x: str) -> tuple[list[float], list[float], list[float], list[float]]:
    places = sorted({row[x] for row in rows})
    groups = [[row["value"] for row in rows if row[x] == place] for place in places]
    return places, [sum(g) / len(g) for g in groups], [min(g) for g in groups], [max(g) for g in groups]

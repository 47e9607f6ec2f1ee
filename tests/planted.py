"""Planted faults: the cells that a notebook checks, and of the others what these need, against a copy of the library.

    caught(name, fault)   the first checked cell that a fault turns red, or the exception that it ends in

No kernel is started: each run is a fork of a process that has torch and diffusers already, and forgets distill_lib.
"""

import ast
import contextlib
import io
import multiprocessing
import os
import shutil
import sys
from multiprocessing.connection import Connection
from pathlib import Path
from typing import NamedTuple

import nbformat

ROOT = Path(__file__).resolve().parent.parent
CHANGING = {"finish"}
"""Functions that train what they are given, and whose value is kept: no other sign says that an argument changes."""
PRINTING = {"print"}
LOCAL = ast.Lambda | ast.FunctionDef | ast.ListComp | ast.SetComp | ast.DictComp | ast.GeneratorExp


class Fault(NamedTuple):
    """A silent bug that such code has had: `right` in a file of the library becomes `wrong`."""

    file: str
    right: str
    wrong: str


class Seen(NamedTuple):
    """Where a run of the checked cells ended: index of the cell, and what it said; no cell where all was right."""

    cell: int | None
    said: str = ""


# A fault a notebook.
FAULTS = {
    "00_start_here": Fault(
        "diffusion/guidance.py", "(1 + w) * v_cond - w * v_uncond", "w * v_cond + (1 - w) * v_uncond"
    ),
    "01_guided_teacher": Fault(
        "diffusion/guidance.py", "v_cond, v_uncond = both.chunk(2)", "v_uncond, v_cond = both.chunk(2)"
    ),
    "02_guidance_distillation": Fault("networks/unet.py", "nn.init.zeros_(student", "nn.init.ones_(student"),
    "03_step_halving": Fault("guided/halving.py", "z_m, m.clamp(min=1), s,", "z_m, s.clamp(min=1), m,"),
    "04_ablations": Fault("experiments/ablations.py", "t, label, self.null), w)", "t, label, self.null), 0 * w)"),
    "05_style_transfer": Fault(
        "guided/encoder.py", "(sigma_s * alpha_t - alpha_s * sigma_t)", "(sigma_s * alpha_t + alpha_s * sigma_t)"
    ),
    "06_latent_teacher": Fault("networks/pipeline.py", ".latent_dist.mean * vae", ".latent_dist.mean * 3 * vae"),
    "07_text_to_image_in_few_steps": Fault(
        "shipped/export.py", 'prediction_type="v_prediction"', 'prediction_type="epsilon"'
    ),
    "08_editing": Fault("measure/editing.py", "add_noise(x, eps, t, schedule)", "add_noise(eps, x, t, schedule)"),
    "09_tiny_decoder": Fault("teachers/autoencoder.py", "return -_mean(fake)", "return _mean(fake)"),
    "10_tiny_unet": Fault("sdxs/tiny_unet.py", "+ lambda_f * feature_loss(", "+ feature_loss("),
    "11_one_step": Fault(
        "sdxs/score_distillation.py", "direction = x_online - x_offline", "direction = x_online + x_offline"
    ),
    "12_lora": Fault("networks/lora.py", "fuse_lora(lora_scale=scale)", "fuse_lora()"),
    "13_controlnet": Fault("networks/controlnet.py", "fresh = moved and ", "fresh = not moved and "),
    "14_speed": Fault(
        "measure/systems.py", "nfe(self.n_steps, self.w, not self.net.takes_w), 1), strict", "self.n_steps, 1), strict"
    ),
    "15_claims": Fault("diffusion/errors.py", ".clamp(1.0, clamp)", ".clamp(0.5, clamp)"),
}


def is_marked(cell) -> bool:
    """Whether nbval compares what a cell prints with what it printed when it was published."""
    tags = cell.metadata.get("tags", [])
    return cell.cell_type == "code" and (
        "nbval-check-output" in tags or cell.source.startswith("# NBVAL_CHECK_OUTPUT")
    )


# --- which statements the checked cells need


def root(node: ast.AST) -> str:
    """The name that an expression like a.b[0].c starts from, or nothing."""
    while isinstance(node, ast.Attribute | ast.Subscript | ast.Starred):
        node = node.value
    return node.id if isinstance(node, ast.Name) else ""


def outside_functions(node: ast.AST):
    """The nodes of a statement that are evaluated where it stands."""
    yield node
    for child in ast.iter_child_nodes(node):
        if not isinstance(child, LOCAL):
            yield from outside_functions(child)


def reads(statement: ast.AST) -> set[str]:
    """Names that a statement looks up, those of comprehensions included."""
    return {n.id for n in ast.walk(statement) if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Load)}


def binds(statement: ast.stmt) -> set[str]:
    """Names that a statement gives another value, whatever happens in it."""
    if isinstance(statement, ast.FunctionDef | ast.ClassDef):
        return {statement.name}
    if isinstance(statement, ast.Import | ast.ImportFrom):
        return {(alias.asname or alias.name).partition(".")[0] for alias in statement.names}
    if isinstance(statement, ast.Assign | ast.AnnAssign):
        return {n.id for n in outside_functions(statement) if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store)}
    return set()


def changes(statement: ast.stmt) -> set[str]:
    """Names that a statement may give another value or whose object it may change: assignments anywhere in it, to
    items and attributes too, all that a call whose value is dropped gets, and what CHANGING functions get."""
    found = binds(statement)
    for node in outside_functions(statement):
        if isinstance(node, ast.Name | ast.Attribute | ast.Subscript) and not isinstance(node.ctx, ast.Load):
            found.add(root(node))
        dropped = isinstance(node, ast.Expr) and isinstance(node.value, ast.Call)
        call = node.value if dropped else node
        if isinstance(call, ast.Call) and (dropped and root(call.func) not in PRINTING or root(call.func) in CHANGING):
            found |= reads(call)
    return found - {""}


def needed(cells: list) -> list[tuple[int, ast.stmt, bool]]:
    """Statements that the checked cells need, in order: the index of the cell, and whether all of it is needed."""
    statements = [
        (number, statement, is_marked(cell))
        for number, cell in enumerate(cells)
        if cell.cell_type == "code"
        for statement in ast.parse(cell.source).body
    ]
    kept, wanted = [], set()
    for number, statement, checked in reversed(statements):
        if checked or changes(statement) & wanted:
            kept.append((number, statement, checked))
            wanted = wanted - binds(statement) | reads(statement)
    return kept[::-1]


# --- a run of them


def printed(cell) -> str:
    """What a published cell printed."""
    return "".join(o.text for o in cell.outputs if o.output_type == "stream" and o.name == "stdout").strip()


def first_red(name: str, last: int) -> Seen:
    """Run the needed statements of a notebook up to a cell, until a checked cell prints something else, or breaks."""
    cells = nbformat.read(ROOT / "notebooks" / f"{name}.ipynb", as_version=4).cells
    names: dict[str, object] = {"__name__": "__main__"}
    heard: dict[int, io.StringIO] = {}
    statements = needed(cells)
    for place, (number, statement, checked) in enumerate(statements):
        if number > last:
            break
        try:
            with contextlib.redirect_stdout(heard.setdefault(number, io.StringIO())):
                exec(compile(ast.Module([statement], []), f"cell {number}", "exec"), names)
        except Exception as error:
            return Seen(number, f"{type(error).__name__}: {error}")
        ends = place + 1 == len(statements) or statements[place + 1][0] != number
        if checked and ends and heard[number].getvalue().strip() != printed(cells[number]):
            return Seen(number, f"mismatch: {heard[number].getvalue()}")
    return Seen(None)


def run_there(name: str, library: Path, place: Path, last: int, answer: Connection) -> None:
    """In a fork: forget this library, and run a notebook's checked cells against another."""
    for module in [m for m in sys.modules if m.partition(".")[0] == "distill_lib"]:
        del sys.modules[module]
    sys.path.insert(0, str(library))
    os.environ |= {
        "DISTILL_PROFILE": "smoke",
        "DISTILL_FIGURES": str(place / "figures"),
        "DISTILL_RUNS": str(place / "runs"),
        "MPLBACKEND": "agg",
    }
    os.chdir(place)
    seen = first_red(name, last)
    assert sys.modules["distill_lib"].__file__.startswith(str(library))
    answer.send(seen)


def run(name: str, library: Path, place: Path, last: int = sys.maxsize) -> Seen:
    """Where the checked cells of a notebook turn red with a library, in a process and folders of their own."""
    files = (path.relative_to(ROOT) for path in (ROOT / "distill_lib").rglob("*.py") if path.parent.name != "run")
    forks = multiprocessing.get_context("forkserver")
    forks.set_forkserver_preload([".".join(file.with_suffix("").parts) for file in files if file.stem[0] != "_"])
    ours, theirs = forks.Pipe(duplex=False)
    place.mkdir()
    child = forks.Process(target=run_there, args=(name, library, place, last, theirs))
    child.start()
    theirs.close()
    try:
        return ours.recv()
    finally:
        child.join(60)


def checkout(fault: Fault, folder: Path) -> Path:
    """A copy of the library with a fault in it."""
    shutil.copytree(ROOT / "distill_lib", folder / "distill_lib", ignore=shutil.ignore_patterns("__pycache__"))
    (folder / "pretrained").symlink_to(ROOT / "pretrained")
    source = folder / "distill_lib" / fault.file
    assert fault.right in source.read_text()
    source.write_text(source.read_text().replace(fault.right, fault.wrong))
    return folder

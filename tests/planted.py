"""Planted faults: one check of a notebook, and of its cells what this check needs, run against a copy of the library.

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
PRINTING = {"print", "check", "source"}
"""Functions that change none of their arguments."""
RECORDING = {"rows", "table", "figure"}
"""Methods of a session that write results, and change no other name."""
COMPREHENSION = ast.ListComp | ast.SetComp | ast.DictComp | ast.GeneratorExp
LOCAL = ast.Lambda | ast.FunctionDef | COMPREHENSION


class Fault(NamedTuple):
    """A silent bug that such code has had: `right` in a file of the library becomes `wrong`; and the check that sees
    it, a piece of the one statement in the marked cells of a notebook that prints it."""

    file: str
    right: str
    wrong: str
    check: str


# A fault a notebook.
FAULTS = {
    "00_start_here": Fault(
        "diffusion/guidance.py",
        "(1 + w) * v_cond - w * v_uncond",
        "w * v_cond + (1 - w) * v_uncond",
        "w = 0 is the conditional network exactly",
    ),
    "01_guided_teacher": Fault(
        "diffusion/guidance.py",
        "v_cond, v_uncond = both.chunk(2)",
        "v_uncond, v_cond = both.chunk(2)",
        "one batched call equals two",
    ),
    "02_guidance_distillation": Fault(
        "networks/unet.py", "nn.init.zeros_(student", "nn.init.ones_(student", "starts equal to the teacher"
    ),
    "03_step_halving": Fault(
        "guided/halving.py", "z_m, m.clamp(min=1), s,", "z_m, s.clamp(min=1), m,", "the target inverts the two steps"
    ),
    "04_ablations": Fault(
        "experiments/ablations.py",
        "t, label, self.null), w)",
        "t, label, self.null), 0 * w)",
        "is guided by each sample's own",
    ),
    "05_style_transfer": Fault(
        "guided/encoder.py",
        "(sigma_s * alpha_t - alpha_s * sigma_t)",
        "(sigma_s * alpha_t + alpha_s * sigma_t)",
        "one step with the target lands where two land",
    ),
    "06_latent_teacher": Fault(
        "networks/pipeline.py", ".latent_dist.mean * vae", ".latent_dist.mean * 3 * vae", "latents have unit size"
    ),
    "07_text_to_image_in_few_steps": Fault(
        "shipped/export.py",
        "prediction_type=predicts",
        'prediction_type="epsilon"',
        "diffusers alone draws our picture",
    ),
    "08_editing": Fault(
        "measure/editing.py",
        "add_noise(x, eps, t, schedule)",
        "add_noise(eps, x, t, schedule)",
        "from pure noise it is sampling",
    ),
    "09_tiny_decoder": Fault(
        "teachers/autoencoder.py",
        "return -_mean(fake)",
        "return _mean(fake)",
        "the second term raises the critic's answers",
    ),
    "10_tiny_unet": Fault("sdxs/tiny_unet.py", "+ lambda_f * feature_loss(", "+ feature_loss(", "eq. 8 is eq. 6 and"),
    "11_one_step": Fault(
        "sdxs/score_distillation.py",
        "direction = x_online - x_offline",
        "direction = x_online + x_offline",
        "no direction where both models agree",
    ),
    "12_lora": Fault("networks/lora.py", "fuse_lora(lora_scale=scale)", "fuse_lora()", "its change is half of BA"),
    "13_controlnet": Fault(
        "networks/controlnet.py",
        "if moved and name.startswith(",
        "if not moved and name.startswith(",
        "nothing in the middle, which is another place now",
    ),
    "14_speed": Fault(
        "measure/costs.py",
        "return counter.get_total_flops()",
        "return counter.get_total_flops() // 2",
        "GFLOP",
    ),
    "15_claims": Fault(
        "papers/measured.py",
        '(high <= margin if direction == "at_most"',
        '(low <= margin if direction == "at_most"',
        "verdicts on three seeds below the limit, above and around it",
    ),
    "16_rulers": Fault(
        "measure/distances.py",
        "h[torch.arange(len(part)), part] = 0",
        "h = h",
        "same distribution, 200 times 40: the mean is 0",
    ),
    "17_after_guided_distillation": Fault(
        "guided/shortcut.py", "average(z, t, 2 * n)", "average(z, t, n)", "one step with the target lands where two"
    ),
    "18_score_distillation_in_the_plane": Fault(
        "sdxs/cloud.py",
        "(z_t[:, None] - alpha_t[:, None] * self.x.to(z_t))",
        "(z_t[:, None] - self.x.to(z_t))",
        "the score is the gradient of the log density",
    ),
}


def is_marked(cell) -> bool:
    """Whether nbval compares what a cell prints with what it printed when it was published."""
    tags = cell.metadata.get("tags", [])
    return cell.cell_type == "code" and "nbval-check-output" in tags


# --- which statements a check needs


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


def stored(*nodes: ast.AST) -> set[str]:
    """Names that expressions bind, such as the target of a loop."""
    return {n.id for node in nodes for n in ast.walk(node) if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store)}


def reads(node: ast.AST, own: frozenset[str] = frozenset()) -> set[str]:
    """Names that a statement looks up; none of its `own`, to which its loops and comprehensions give a value first."""
    match node:
        case ast.Name(ctx=ast.Load()):
            return {node.id} - own
        case ast.For():
            inside = own | stored(node.target)
            parts = [reads(node.iter, own), *(reads(part, inside) for part in (*node.body, *node.orelse))]
        case _:
            inside = own | (stored(*node.generators) if isinstance(node, COMPREHENSION) else set())
            parts = [reads(child, inside) for child in ast.iter_child_nodes(node)]
    return set().union(*parts)


def binds(statement: ast.stmt) -> set[str]:
    """Names that a statement gives another value, whatever happens in it."""
    if isinstance(statement, ast.FunctionDef | ast.ClassDef):
        return {statement.name}
    if isinstance(statement, ast.Import | ast.ImportFrom):
        return {(alias.asname or alias.name).partition(".")[0] for alias in statement.names}
    if isinstance(statement, ast.Assign | ast.AnnAssign):
        return {n.id for n in outside_functions(statement) if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store)}
    return set()


def changes(statement: ast.stmt, modules: set[str]) -> set[str]:
    """Names that a statement may give another value or whose object it may change: assignments anywhere in it, to
    items and attributes too; the object whose method is called for nothing but that; what a function gets that is
    called for nothing but that, or that is one of CHANGING."""
    result = binds(statement)
    for node in outside_functions(statement):
        if isinstance(node, ast.Name | ast.Attribute | ast.Subscript) and not isinstance(node.ctx, ast.Load):
            result.add(root(node))
        dropped = isinstance(node, ast.Expr) and isinstance(node.value, ast.Call)
        call = node.value if dropped else node
        if not isinstance(call, ast.Call):
            continue
        called, method = root(call.func), isinstance(call.func, ast.Attribute)
        if dropped and method and call.func.attr in RECORDING:
            continue
        if dropped and method and called and called not in modules:
            result.add(called)
        elif (dropped and called not in PRINTING) or called in CHANGING:
            result |= reads(call)
    return result - {""}


def single(statement: ast.stmt) -> list[ast.stmt]:
    """`a, b = x, y` as `a = x` and `b = y`, where neither value reads a target: one may be needed without the other."""
    match statement:
        case ast.Assign(targets=[ast.Tuple(elts=targets)], value=ast.Tuple(elts=values)):
            single = not reads(statement) & binds(statement) and all(isinstance(t, ast.Name) for t in targets)
            if single and len(targets) == len(values):
                pairs = zip(targets, values, strict=True)
                return [ast.copy_location(ast.Assign([target], value), statement) for target, value in pairs]
    return [statement]


def needed(cells: list, check: str) -> tuple[list[ast.stmt], int]:
    """The statements up to the one of a checked cell whose source holds `check`, of those before what it needs; and
    the index of its cell."""
    statements: list[ast.stmt] = []
    places = []
    for number, cell in enumerate(cells):
        body = ast.parse(cell.source).body if cell.cell_type == "code" else []
        for statement in body:
            if is_marked(cell) and check in ast.get_source_segment(cell.source, statement):
                places.append((len(statements), number, statement))
            elif not (statement is body[-1] and isinstance(statement, ast.Expr)):  # what a cell ends in is looked at
                statements += single(statement)
    ((end, number, last),) = places
    imports = [s for s in statements if isinstance(s, ast.Import | ast.ImportFrom)]
    modules = {name for statement in imports for name in binds(statement)}
    kept, wanted = [last], reads(last)
    for statement in reversed(statements[:end]):
        if changes(statement, modules) & wanted:
            kept.append(statement)
            wanted = wanted - binds(statement) | reads(statement)
    return kept[::-1], number


# --- a run of them


def printed(cell) -> str:
    """What a published cell printed."""
    return "".join(o.text for o in cell.outputs if o.output_type == "stream" and o.name == "stdout")


def run_there(name: str, library: Path, place: Path, answer: Connection) -> None:
    """In a fork: forget this library, and run the check of a notebook against another. Sends what is wrong, or ""."""
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
    cells = nbformat.read(ROOT / "notebooks" / f"{name}.ipynb", as_version=4).cells
    statements, number = needed(cells, FAULTS[name].check)
    names: dict[str, object] = {"__name__": "__main__"}
    heard = io.StringIO()
    try:
        for statement in statements:
            heard.seek(heard.truncate(0))
            with contextlib.redirect_stdout(heard):
                exec(compile(ast.Module([statement], []), name, "exec"), names)
        message = heard.getvalue()
        answer.send("" if message and message in printed(cells[number]) else f"mismatch: {message}")
    except Exception as error:
        answer.send(f"{type(error).__name__}: {error}")
    assert sys.modules["distill_lib"].__file__.startswith(str(library))


def run(name: str, library: Path, place: Path) -> str:
    """What the check of a notebook finds wrong with a library, in a process and folders of their own."""
    files = (path.relative_to(ROOT) for path in (ROOT / "distill_lib").rglob("*.py") if path.parent.name != "run")
    forks = multiprocessing.get_context("forkserver")
    forks.set_forkserver_preload([".".join(file.with_suffix("").parts) for file in files if file.stem[0] != "_"])
    ours, reference = forks.Pipe(duplex=False)
    place.mkdir()
    child = forks.Process(target=run_there, args=(name, library, place, reference))
    child.start()
    reference.close()
    try:
        return ours.recv()
    finally:
        child.join(60)
        assert child.exitcode == 0


def checkout(fault: Fault, folder: Path) -> Path:
    """A copy of the library with a fault in it."""
    shutil.copytree(ROOT / "distill_lib", folder / "distill_lib", ignore=shutil.ignore_patterns("__pycache__"))
    (folder / "pretrained").symlink_to(ROOT / "pretrained")
    source = folder / "distill_lib" / fault.file
    assert fault.right in source.read_text()
    source.write_text(source.read_text().replace(fault.right, fault.wrong))
    return folder

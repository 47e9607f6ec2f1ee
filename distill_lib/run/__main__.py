"""The commands behind the Makefile: draw figures by Snakemake and papermill, verify and publish them.

python -m distill_lib.run figures  [--profile quick] [--id g-tab1] [--seed 0] [--set ws=[0.0,2.0]]
python -m distill_lib.run verify            redraw the laptop figures apart and compare with the committed ones
python -m distill_lib.run publish           put the executed laptop notebooks back into notebooks/
python -m distill_lib.run pace              keep in figures/laptop how long the last whole run took here
python -m distill_lib.run lab               open the notebooks in JupyterLab
python -m distill_lib.run exercises         run the notebooks in notebooks/exercises and keep their outputs
python -m distill_lib.run notebook NAME OUT one notebook by papermill (what the Snakefile calls)
python -m distill_lib.run plan TEACHER     what a training needs (see `plan`), before anything is loaded
python -m distill_lib.run teachers | onnx | live | true-scale | preflight | gpu-check | explore   as the Makefile says
python -m distill_lib.run readme | site | slides    as the Makefile says
"""

import argparse
import json
import sys
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from typing import Any

from distill_lib.paths import COMMITTED, ROOT, settle
from distill_lib.run import notebooks
from distill_lib.run.guard import FAILED, Failure, guarded
from distill_lib.run.settings import Settings, read_settings

_OTHERS = {
    "teachers": "distill_lib.shipped.make",
    "onnx": "distill_lib.shipped.export_onnx",
    "live": "distill_lib.shipped.live",
    "true-scale": "distill_lib.run.true_scale",
    "plan": "distill_lib.run.plan",
    "preflight": "distill_lib.run.preflight",
    "gpu-check": "distill_lib.run.gpu_check",
    "readme": "distill_lib.report.pages.write",
    "exercises": "distill_lib.run.exercises",
    "explore": "distill_lib.shipped.explore",
    "site": "distill_lib.report.site.build",
    "slides": "distill_lib.report.site.slides",
}
"""Commands that read their own arguments, and the modules whose `main` they are."""


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="distill_lib.run", description=(__doc__ or "").splitlines()[0])
    commands = parser.add_subparsers(dest="command", required=True)
    drawing = commands.add_parser("figures")
    drawing.add_argument("--id", default=None)
    notebook = commands.add_parser("notebook")
    notebook.add_argument("name")
    notebook.add_argument("out", type=Path)
    notebook.add_argument("--settings", type=Path, default=None, help="a file of parameters, instead of --set")
    for sub in (drawing, notebook):
        sub.add_argument("--profile", default="quick")
        sub.add_argument("--seed", type=int, default=None)
        sub.add_argument("--dataset", default="", help="real data, read from the folder DISTILL_FOLDER")
        sub.add_argument("--set", action="append", default=[], metavar="NAME=VALUE")
    commands.add_parser("verify")
    commands.add_parser("lab")
    commands.add_parser("publish").add_argument("--profile", default=COMMITTED)
    commands.add_parser("pace").add_argument("--profile", default="quick")
    return parser


def _settings(args: argparse.Namespace, names: list[str]) -> Settings:
    """The settings of a call; `--set seed=2` is `--seed 2`, and so with profile and dataset."""
    extra = read_settings(args.set, names)
    settings = Settings(profile=args.profile, seed=args.seed or 0, dataset=args.dataset)
    if args.seed is not None and extra.get("seed", args.seed) != args.seed:
        raise ValueError(f"seed is given twice, as {args.seed} and {extra['seed']}; keep one")
    for key, kind in (("profile", str), ("seed", int), ("dataset", str)):
        if key in extra:
            value = extra.pop(key)
            if type(value) is not kind:
                raise ValueError(f"--set {key}={str(value)[:60]} should be of type {kind.__name__}")
            settings = replace(settings, **{key: value})
    return replace(settings, extra=extra)


def _parameters(args: argparse.Namespace) -> dict[str, Any]:
    if args.settings is None:
        return _settings(args, [args.name]).parameters
    return json.loads(args.settings.read_text())["parameters"] | {"seed": args.seed or 0}


def _run(args: argparse.Namespace) -> None:
    settle()
    if args.command == "figures":
        from distill_lib.run.drawing import figures

        figures(args.id, _settings(args, notebooks.names()))
    elif args.command == "notebook":
        from distill_lib.run.executing import execute

        if args.name not in notebooks.names():
            raise ValueError(f"there is no notebook {args.name[:60]!r}; choose one of {', '.join(notebooks.names())}")
        try:
            execute(args.name, args.out.absolute(), _parameters(args))
        except Failure:
            if args.settings is None:
                raise
            raise SystemExit(FAILED) from None  # the command above says it
    elif args.command == "verify":
        from distill_lib.run.comparing import verify

        verify()
    elif args.command == "lab":
        from jupyterlab.labapp import main as lab

        quiet = ["--LabApp.news_url=None", "--LabApp.check_for_updates_class=jupyterlab.NeverCheckForUpdate"]
        sys.argv = ["jupyter-lab", *quiet, str(ROOT / "notebooks")]  # it would ask the network for both
        lab()
    elif args.command == "pace":
        from distill_lib.run.pace import publish_pace

        publish_pace(args.profile)
    else:
        from distill_lib.run.publishing import publish

        publish(args.profile)


def _other(name: str) -> None:
    settle()
    import_module(_OTHERS[name]).main()


def main() -> None:
    """Command line; what is nobody's bug ends in one sentence and status 2 (see `guard`)."""
    if len(sys.argv) > 1 and sys.argv[1] in _OTHERS:
        name = sys.argv.pop(1)
        guarded(lambda: _other(name), name)
        return
    args = _parser().parse_args()
    guarded(lambda: _run(args), args.command)


if __name__ == "__main__":
    main()

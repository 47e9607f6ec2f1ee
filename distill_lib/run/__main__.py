"""The commands behind the Makefile: draw figures by Snakemake and papermill, verify and publish them.

python -m distill_lib.run figures  [--profile quick] [--id g-tab1] [--seed 0,1] [--set ws=[0.0,2.0]]
                                   [--cluster docs/cluster/slurm] [--processes 2]
python -m distill_lib.run verify            redraw the laptop figures apart and compare with the committed ones
python -m distill_lib.run publish           put the executed laptop notebooks back into notebooks/
python -m distill_lib.run pace              keep in figures/laptop how long the last whole run took here
python -m distill_lib.run lab               open the notebooks in JupyterLab
python -m distill_lib.run exercises         run the notebooks in notebooks/exercises and keep their outputs
python -m distill_lib.run notebook NAME OUT one notebook by papermill (what the Snakefile calls)
python -m distill_lib.run train NAME        what a notebook trains, in each process of `accelerate launch` (`together`)
python -m distill_lib.run plan TEACHER     what a training needs (see `plan`), before anything is loaded
python -m distill_lib.run plans             count the trainings of the table in docs/distil-your-own.md
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
from distill_lib.run.together import read_processes, train

_OTHERS = {
    "teachers": "distill_lib.shipped.make",
    "onnx": "distill_lib.shipped.export_onnx",
    "live": "distill_lib.shipped.live",
    "true-scale": "distill_lib.run.true_scale",
    "plan": "distill_lib.run.plan",
    "plans": "distill_lib.run.plans",
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
    drawing.add_argument("--cluster", default="", help="a folder with a profile of Snakemake, as docs/cluster/slurm")
    drawing.add_argument("--processes", default="1", help="that train together what a notebook trains")
    notebook, training = commands.add_parser("notebook"), commands.add_parser("train")
    for sub in (notebook, training):
        sub.add_argument("name")
        sub.add_argument("--settings", type=Path, default=None, help="a file of parameters, instead of --set")
    notebook.add_argument("out", type=Path)
    for sub in (drawing, notebook, training):
        sub.add_argument("--profile", default="quick")
        sub.add_argument("--seed", default=None, help="a number, or several with commas between")
        sub.add_argument("--dataset", default="", help="real data, read from the folder DISTILL_FOLDER")
        sub.add_argument("--set", action="append", default=[], metavar="NAME=VALUE")
    commands.add_parser("verify")
    commands.add_parser("lab")
    commands.add_parser("publish").add_argument("--profile", default=COMMITTED)
    commands.add_parser("pace").add_argument("--profile", default="quick")
    return parser


def _seeds(text: str | None) -> list[int]:
    """The seeds of a call; 0 where none is given.

    Raises:
        ValueError: they are no whole numbers with commas between.
    """
    try:
        return [int(part) for part in text.split(",")] if text else [0]
    except ValueError:
        raise ValueError(
            f"SEED={str(text)[:60]} should be a whole number, or several with commas between, as in SEED=0,1,2"
        ) from None


def _settings(args: argparse.Namespace, names: list[str]) -> Settings:
    """The settings of a call; `--set seed=2` is `--seed 2`, and so with profile and dataset."""
    extra = read_settings(args.set, names)
    seeds = _seeds(args.seed)
    settings = Settings(profile=args.profile, seed=seeds[0], dataset=args.dataset)
    if args.seed is not None and "seed" in extra and seeds != [extra["seed"]]:
        raise ValueError(f"seed is given twice, as {','.join(map(str, seeds))} and {extra['seed']}; keep one")
    for key, kind in (("profile", str), ("seed", int), ("dataset", str)):
        if key in extra:
            value = extra.pop(key)
            if type(value) is not kind:
                raise ValueError(f"--set {key}={str(value)[:60]} should be of type {kind.__name__}")
            settings = replace(settings, **{key: value})
    return replace(settings, extra=extra)


def _planned(args: argparse.Namespace) -> tuple[dict[str, Any], int]:
    """The parameters of one notebook, and how many processes train together."""
    if args.name not in notebooks.names():
        raise ValueError(f"there is no notebook {args.name[:60]!r}; choose one of {', '.join(notebooks.names())}")
    if len(_seeds(args.seed)) > 1:
        raise ValueError(f"SEED={args.seed[:60]}: one notebook takes one seed; `figures` takes several")
    if args.settings is None:
        return _settings(args, [args.name]).parameters, 1
    plan = json.loads(args.settings.read_text())
    return plan["parameters"] | {"seed": _seeds(args.seed)[0]}, plan.get("processes", 1)


def _run(args: argparse.Namespace) -> None:
    settle()
    if args.command == "figures":
        from distill_lib.run.drawing import figures

        settings, processes = _settings(args, notebooks.names()), read_processes(args.processes)
        seeds = _seeds(args.seed) if args.seed else ()
        figures(args.id, settings, seeds, args.cluster, processes)
    elif args.command == "notebook":
        from distill_lib.run.executing import execute

        try:
            execute(args.name, args.out.absolute(), *_planned(args))
        except Failure:
            if args.settings is None:
                raise
            raise SystemExit(FAILED) from None  # the command above says it
    elif args.command == "train":
        train(args.name, _planned(args)[0])
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
        from distill_lib.run.publishing import renew_all

        publish_pace(args.profile)
        renew_all()  # the banner of each notebook says the minutes
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

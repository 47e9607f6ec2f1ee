# One rule a notebook, executed by papermill. `make figures` calls this; see distill_lib/run.py.
# A notebook is stale when it, a library file that it imports, its profile, a shipped weight or the lock changes, or a
# parameter does. Figures are not outputs here: the committed ones must never count as up to date.
import json
import shlex
import sys
from pathlib import Path

from distill_lib.reach import ROOT, notebook_files
from distill_lib.run import notebook_names

SHIPPED = sorted((ROOT / "pretrained").glob("*/made.json"))
PROFILE = ROOT / "distill_lib" / "profiles" / f"{config['profile']}.yaml"


PAPERS = sorted((ROOT / "distill_lib" / "papers").glob("*.yaml"))


def sources(name):
    notebook = ROOT / "notebooks" / f"{name}.ipynb"
    library = notebook_files(notebook)
    claims = PAPERS if any("papers" in path.parts for path in library) else []  # it shows verdicts
    return list(map(str, [notebook, *library, *claims, PROFILE, ROOT / "requirements.lock", *SHIPPED]))


def command(name, wildcards, output):
    # snakemake reads --config values as YAML: what was sent as JSON arrives as a mapping
    settings = [f"--set={key}={json.dumps(value)}" for key, value in config["extra"].items()]
    out = str(Path(output[0]).resolve())
    words = [sys.executable, "-m", "distill_lib.run", "notebook", name, out]
    return shlex.join([*words, "--profile", config["profile"], "--seed", wildcards.seed, *settings])


for number, notebook in enumerate(notebook_names()):

    rule:
        name:
            f"notebook_{notebook}"
        input:
            sources(notebook),
        output:
            f"notebooks/{{folder}}/seed{{seed}}/{notebook}.ipynb",
        params:
            command=lambda wildcards, output, name=notebook: command(name, wildcards, output),
        priority: -number  # in reading order: the first pictures are those of 00_start_here
        threads: workflow.cores
        shell:
            # not `run:`, which starts Python again by a path that it does not quote
            "{params.command}"

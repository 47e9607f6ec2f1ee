# One rule a notebook, executed by papermill. `make figures` calls this; see distill_lib/run.py.
# A notebook is stale when it, a library file that it imports, its profile, a shipped weight or the lock changes, or a
# parameter does. Figures are not outputs here: the committed ones must never count as up to date.
import json
import subprocess
import sys
from pathlib import Path

from distill_lib.reach import ROOT, notebook_files
from distill_lib.run import notebook_names

SHIPPED = sorted((ROOT / "pretrained").glob("*/made.json"))
PROFILE = ROOT / "distill_lib" / "profiles" / f"{config['profile']}.yaml"


def sources(wildcards):
    notebook = ROOT / "notebooks" / f"{wildcards.name}.ipynb"
    return list(map(str, [notebook, *notebook_files(notebook), PROFILE, ROOT / "requirements.lock", *SHIPPED]))


rule notebook:
    input:
        sources,
    output:
        "notebooks/{profile}/seed{seed}/{name}.ipynb",
    wildcard_constraints:
        name="|".join(notebook_names()),
    params:
        # snakemake reads --config values as YAML: what was sent as JSON arrives as a mapping
        extra=json.dumps(config["extra"]),
    threads: workflow.cores
    run:
        settings = [f"--set={key}={json.dumps(value)}" for key, value in json.loads(params.extra).items()]
        command = [sys.executable, "-m", "distill_lib.run", "notebook", wildcards.name, str(Path(output[0]).resolve())]
        command += ["--profile", wildcards.profile, "--seed", wildcards.seed, *settings]
        subprocess.run(command, cwd=ROOT, check=True)

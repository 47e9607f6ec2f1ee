# One rule for each notebook of a run, executed by papermill. `make figures` calls this with a plan: the notebooks that are
# stale, which it tells by content (distill_lib/run/stale.py), their order, and the threads of each (run/lanes.py).
# Nothing of a path or of a setting passes through a shell.
import json
import os
from pathlib import Path

plan = json.loads(Path(os.environ["DISTILL_PLAN"]).read_text())

for job in plan["jobs"]:

    rule:
        name:
            f"notebook_{job['name']}"
        input:
            job["after"],  # the notebooks whose rows it reads
        output:
            job["output"],
        params:
            notebook=job["name"],
            seed=plan["parameters"]["seed"],
        priority: job["priority"]
        threads: plan["threads"]  # Snakemake sets OMP_NUM_THREADS by it
        shell:
            # not `run:`, which starts Python again by a path that it does not quote
            '"$DISTILL_PYTHON" -m distill_lib.run notebook {params.notebook} "$DISTILL_RUNS/{output}"'
            ' --settings "$DISTILL_PLAN" --seed {params.seed} 2>&1'

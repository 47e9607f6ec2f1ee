# One rule for each notebook of a run, executed by papermill. `make figures` calls this with a plan: the notebooks that are
# stale, which it tells by content (distill_lib/run/stale.py), their order (run/jobs.py), and the threads of each (run/lanes.py).
# On a cluster (docs/cluster.md) each is a job; a profile gives it memory, minutes, GPUs and retries by its rule's name.
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
            job["output"],  # with {seed}
        wildcard_constraints:
            seed="[0-9]+",
        params:
            notebook=job["name"],
        priority: job["priority"]
        threads: plan["threads"]  # Snakemake sets OMP_NUM_THREADS by it
        shell:
            # not `run:`, which starts Python again by a path that it does not quote
            '"$DISTILL_PYTHON" -m distill_lib.run notebook {params.notebook} "$DISTILL_RUNS/{output}"'
            ' --settings "$DISTILL_PLAN" --seed {wildcards.seed} 2>&1'

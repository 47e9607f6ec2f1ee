# One rule a notebook, executed by papermill. `make figures` calls this with the notebooks that are stale; what is
# stale it tells itself, by content (distill_lib/run/stale.py). Nothing of a path or of a setting passes through a shell.
from distill_lib.run.notebooks import names

for number, notebook in enumerate(names()):

    rule:
        name:
            f"notebook_{notebook}"
        output:
            f"notebooks/{{place}}/seed{{seed}}/{notebook}.ipynb",
        params:
            notebook=notebook,
        priority: -number  # in reading order: the first pictures are those of 00_start_here
        threads: workflow.cores
        shell:
            # not `run:`, which starts Python again by a path that it does not quote
            '"$DISTILL_PYTHON" -m distill_lib.run notebook {params.notebook} "$DISTILL_RUNS/{output}"'
            ' --settings "$DISTILL_RUNS/notebooks/{wildcards.place}/settings.json" --seed {wildcards.seed} 2>&1'

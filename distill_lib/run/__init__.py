"""The commands behind the Makefile; `python -m distill_lib.run` lists them (see `__main__`).

Drawing by Snakemake and papermill, verifying, publishing and timing.
Rule: no other chapter imports it.
"""

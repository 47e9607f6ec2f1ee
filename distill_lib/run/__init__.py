"""The commands behind the Makefile; `python -m distill_lib.run` lists them (see `__main__`).

No module here loads torch on import: a call that finds nothing to do must not wait for it.
"""

"""The two papers as data: what each contains, what answers it here, what it claims and what it reports.

`guided.yaml` and `sdxs.yaml` are read by `manifest`; `claims` computes the verdicts from rows.
Rule: nobody types a number or a verdict.
"""

"""The two papers as data: what each contains, what answers it here, what it claims and what it reports.

`guided.yaml` (arXiv 2210.03142) and `sdxs.yaml` (arXiv 2403.16627) are read by `claims.py`, which computes verdicts.
"""

"""Meng et al. 2023 (arXiv 2210.03142): one file an algorithm, its target, loss and loop together.

Each loop trains `student.module`, on data `pictures`, by `settings`, kept in `run`, and yields its progress.
Rule: no network that measures is reached from here; `sdxs` neither.
"""

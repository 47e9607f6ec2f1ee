"""Meng et al. 2023 (arXiv 2210.03142) and a successor: one file an algorithm with target, loss, loop.

Each loop trains `student.module`, on data `pictures`, by `settings`, kept in `run`, and yields its progress.
Rule: no network that measures is reached from here; `sdxs` neither.
"""

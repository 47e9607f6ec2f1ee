"""Meng et al. 2023 (arXiv 2210.03142): one file an algorithm, its target, loss and loop together.

Each loop takes a student, its teacher, pictures, settings and a run, and yields its progress.
Rule: no network that measures is reached from here; `sdxs` neither.
"""

"""Song et al. 2024 (arXiv 2403.16627): one file a block of equations, its loss and loop together.

Data-free: loops learn of prompts, noise and what the teacher made of them (`teachers.latents.Pairs`), kept in `run`.
Rule: no network that measures is reached from here; `guided` neither.
"""

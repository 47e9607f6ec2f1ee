"""Song et al. 2024 (arXiv 2403.16627): one file a block of equations, its loss and loop together.

Data-free: what goes in is prompts, noise, and what the teacher makes of them (`teachers.latents.Pairs`).
Rule: no network that measures is reached from here; `guided` neither.
"""

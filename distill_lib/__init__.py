"""Guided distillation and one-step diffusion, as small functions that notebooks call.

Imports point up this list only, never down; chapters of one number import nothing of each other.

   0 paths.py      The folders of the project, and the variables that move them.
   1 diffusion/    What both papers take for granted: schedules, noise, guidance, samplers.
   2 engine/       How anything is trained, kept and found again.
   3 worlds/       The data: the embedded world of scenes, its captions and maps, and real pictures by the same door.
   4 networks/     Diffusers' networks behind one adapter: building, cutting, loading, adapting.
   5 teachers/     What is distilled: teachers in pixels and in latents, and the pairs and latents they make.
   6 guided/       Meng et al. 2023 (arXiv 2210.03142) and a successor: one file an algorithm with target, loss, loop.
   6 sdxs/         Song et al. 2024 (arXiv 2403.16627): one file a block of equations, its loss and loop together.
   7 measure/      What is measured, by networks that no loss sees; one tidy row a value.
   8 profiles/     Every size of every run: one validated model, one YAML file a profile.
   8 papers/       The two papers as data: what each contains, what answers it here, what it claims and what it reports.
   9 shipped/      The weights in pretrained/: their recipes, how they are made, written and loaded.
  10 experiments/  What the notebooks train, one file a notebook or a question.
  11 report/       Rows to pictures, tables and pages.
  12 run/          The commands behind the Makefile; `python -m distill_lib.run` lists them (see `__main__`).
"""

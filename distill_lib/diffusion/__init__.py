"""What both papers take for granted: schedules, noise, guidance, samplers.

Pure functions of tensors. A step, a solver or a loss evaluates a network by `denoise(z_t, t)` and knows no more of it.
Rule: imports nothing of the other chapters.
"""

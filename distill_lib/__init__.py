"""distill_lib: guided-diffusion distillation and one-step diffusion, as small functions that notebooks call."""

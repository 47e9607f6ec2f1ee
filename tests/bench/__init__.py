"""`make bench`: our loops and samplers against the plain way with diffusers and torch, all ways in turn in one run.

Plain means: float32, two calls for a guided pair, noise by torch.randn, a DataLoader with a worker, diffusers' EMAModel
and DDIMScheduler, targets computed anew at each update.

`plain`     one training step, or one sampler, as a first script would have it
`pixels`    the cases of guided distillation, on the shipped networks of the world `textured`
`latents`   the cases of SDXS, on the shipped small Stable Diffusion
`processes` one process of two threads, and two of one thread
`rates`     how a case is timed: each way in turn, in both precisions

`peak_share` is the arithmetic of our way (FLOPs counted by torch) as a share of the fastest 3 x 3 convolution that this
machine shows, forward and backward, in the better of both precisions, in the same run.
"""

"""Diffusers' networks behind one adapter: building, cutting, loading, adapting.

`adapter.Network` is what every sampler, loss and method calls, in pixels or in latents.
Rule: trains nothing; folders of other people are read part by part, and nothing unpickles.
"""

"""Losses, one file a family; each is a pure function of tensors that returns one value a sample."""

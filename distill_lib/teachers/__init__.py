"""What is distilled: teachers in pixels and in latents, and the pairs and latents they make.

Each file holds a loss and the loop that uses it; losses give one value per sample, loops yield their progress.
Rule: no network that measures is reached from here.
"""

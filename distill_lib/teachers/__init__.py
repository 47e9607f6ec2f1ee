"""What is distilled: teachers in pixels and in latents, and the pairs and latents they make.

A file holds a loss, one value per sample, and the loop that trains `net.module` by it and yields its progress.
Rule: no network that measures is reached from here.
"""

"""How anything is trained, kept and found again.

Run folders and caches keyed by content, the one training loop, files that are whole or absent.
Rule: knows no method, no network and no data; whatever trains goes through `loop`.
"""

"""What the notebooks train, one file a notebook or a question.

Each calls methods of `guided` and `sdxs` with a `seed` and sizes of a profile, `how`, and varies one thing at a time.
Rule: draws no figure.
"""

"""What the notebooks train, one file a notebook or a question.

Each calls the methods of `guided` and `sdxs` with the sizes of a profile and varies one thing at a time.
Rule: draws no figure.
"""

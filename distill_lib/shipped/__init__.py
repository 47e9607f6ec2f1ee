"""The weights in pretrained/: their recipes, how they are made, written and loaded.

`recipes.yaml` names each; `python -m distill_lib.shipped.make` (`make teachers`) trains what is missing.
Rule: the only chapter that touches pretrained/.
"""

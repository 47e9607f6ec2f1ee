"""Rows to pictures, tables and pages.

`record` writes the rows of an artefact; everything else draws from those rows alone.
Rule: trains and measures nothing.
"""

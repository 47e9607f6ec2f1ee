"""The two papers as data: what each contains, what answers it here, what it claims and what it reports.

`manifest` reads what the papers contain, `editions` their claims; `claims` computes the verdicts from rows.
Rule: nobody types a number or a verdict.
"""

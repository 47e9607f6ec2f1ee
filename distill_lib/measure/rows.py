"""Tidy rows: chosen by their columns, from at least so many seeds."""

from typing import Any

Row = dict[str, Any]
SEEDS = 3
"""Trainings that anything is told apart by, at least."""


def select(rows: list[Row], **wanted: Any) -> list[Row]:
    """Rows whose columns equal all that is wanted."""
    return [row for row in rows if all(row.get(key) == value for key, value in wanted.items())]

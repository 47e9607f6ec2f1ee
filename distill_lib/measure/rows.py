"""Tidy rows: written from the values of metrics, read from files, chosen by columns, from at least so many seeds."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

Row = dict[str, Any]
SEEDS = 3
"""The least number of trainings that distinguishes anything."""


@dataclass(frozen=True)
class Estimate:
    """A value and its standard error."""

    value: float
    error: float

    def within(self, errors: float) -> bool:
        """Whether 0 lies within so many standard errors."""
        return abs(self.value) <= errors * self.error


def tidy(values: Mapping[str, float | Estimate], **columns: Any) -> list[Row]:
    """A row for each metric of `values`, all with these columns; with its `error` where it has one."""
    return [
        columns | {"metric": metric} | (asdict(value) if isinstance(value, Estimate) else {"value": value})
        for metric, value in values.items()
    ]


def select(rows: list[Row], **wanted: Any) -> list[Row]:
    """Rows whose columns equal all that is wanted."""
    return [row for row in rows if all(row.get(key) == value for key, value in wanted.items())]


def read_rows(path: Path) -> list[Row]:
    """The rows of a file of results; none where there is no file.

    Raises:
        ValueError: the file is no JSON or has no rows.
    """
    try:
        rows = json.loads(path.read_text())["rows"]
        if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
            raise TypeError("rows are no list of mappings")
        return rows
    except FileNotFoundError:
        return []
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{path} has no readable rows: {error!r}; delete it and draw {path.stem} again") from error

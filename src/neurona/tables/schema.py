"""What the columns of a table are: inferred once, from training rows, then fixed. Plain data, for a checkpoint too."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal, NamedTuple

Kind = Literal["numeric", "boolean", "date", "categorical"]

MISSING = ("", "NA", "N/A", "n/a", "#N/A", "<NA>", "?", "NaN", "nan", "NULL", "null", "None")
DATE_PARTS = ("days", "month", "day", "weekday", "hour")
"""The numbers a date becomes: days since 1970, month 1 to 12, day 1 to 31, weekday 1 (Monday) to 7, hour 0 to 24."""


@dataclass(frozen=True)
class Rules:
    """How the texts of a table are read: missing are the words for no value; decimal and thousands the separators."""

    missing: tuple[str, ...] = MISSING
    decimal: str = "."
    thousands: str = ""


@dataclass(frozen=True)
class Column:
    """One column that is used.

    categories: of a categorical one, sorted. origin: what is subtracted from a number, or from a date's days, in
    float64: float32 would lose the digits of large values that differ little. format: of a date that is text.
    """

    name: str
    kind: Kind
    categories: tuple[str, ...] = ()
    origin: float = 0.0
    format: str = ""

    @property
    def width(self) -> int:
        """How many columns of the matrix it becomes."""
        return len(DATE_PARTS) if self.kind == "date" else 1


@dataclass(frozen=True)
class Schema:
    """The columns used, the one to predict, and the ones left out with the reason; warnings: what seems wrong."""

    columns: tuple[Column, ...]
    target: str
    dropped: dict[str, str] = field(default_factory=dict)
    rules: Rules = Rules()
    warnings: tuple[str, ...] = ()

    @property
    def names(self) -> list[str]:
        return [column.name for column in self.columns]

    @property
    def in_matrix(self) -> list[Column]:
        """The columns in the order of the matrix: the categorical ones last."""
        return sorted(self.columns, key=lambda column: column.kind == "categorical")

    def as_dict(self) -> dict[str, Any]:
        """Plain containers, for a checkpoint."""
        return asdict(self)

    @classmethod
    def from_dict(cls, stored: Mapping[str, Any]) -> Schema:
        columns = tuple(Column(**{**column, "categories": tuple(column["categories"])}) for column in stored["columns"])
        rules = Rules(**{**stored["rules"], "missing": tuple(stored["rules"]["missing"])})
        return cls(**{**stored, "columns": columns, "rules": rules, "warnings": tuple(stored["warnings"])})


class Layout(NamedTuple):
    """The matrix that ``neurona.tables.matrix.encode`` makes: ``numeric`` columns of numbers, then one column of ids
    for each of ``cardinalities``, its number of ids. names: the table's column that each of the matrix' comes from.
    """

    numeric: int
    cardinalities: tuple[int, ...]
    names: tuple[str, ...]


def layout(schema: Schema) -> Layout:
    names = tuple(column.name for column in schema.in_matrix for _ in range(column.width))
    cardinalities = tuple(len(column.categories) + 1 for column in schema.columns if column.kind == "categorical")
    return Layout(len(names) - len(cardinalities), cardinalities, names)

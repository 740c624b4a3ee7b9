"""What the columns of a table are: inferred once, from training rows, then fixed. Plain data, for a checkpoint too."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal, NamedTuple

from hydra.core.override_parser.types import Quote, QuotedString

Kind = Literal["numeric", "boolean", "date", "categorical"]
NOUNS = {"numeric": "numbers", "boolean": "yes or no", "date": "dates", "categorical": "known from training"}
"""What the values of a column of each kind are."""

MISSING = ("", "NA", "N/A", "n/a", "#N/A", "<NA>", "?", "NaN", "nan", "NULL", "null", "None")
BLANK = (
    r"(?i)^(?:[-–—]+|\.+|\*|\?|na|n/a|n\. ?a\.|#n/a|<na>|-?nan|nat|null|nil|none|missing|unknown|undefined|blank|empty"
    r"|tbd|not (?:available|applicable)|#(?:value!|div/0!|ref!|num!|name\?|null!)|-?1\.#(?:ind|qnan)"
    r"|0000-00-00(?: 00:00:00)?|00[/.]00[/.]0000)$"
)
"""Words for no value in a column of numbers, dates or booleans; in one of categories they are some."""
DATE_PARTS = ("days", "month", "day", "weekday", "hour")
"""The numbers a date becomes: days since 1970, month 1 to 12, day 1 to 31, weekday 1 (Monday) to 7, hour 0 to 24."""


@dataclass(frozen=True)
class Rules:
    """How the texts of a table are read. missing: words that stand for a missing value. decimal, thousands: marks in
    numbers; dates: pattern of dates; empty where they are found out for each column.
    """

    missing: tuple[str, ...] = MISSING
    decimal: str = ""
    thousands: str | None = None
    dates: str = ""


@dataclass(frozen=True)
class Column:
    """One column that is used.

    categories: of a categorical one, sorted. origin: what is subtracted from a number, or from a date's days, and
    scale: what the number is then multiplied with, in float64: float32 would lose the digits of large values that
    differ little, and differences that are tiny. format: of a date that is text, without the time of day. marks: of
    numbers that are text, see ``neurona.tables.marks.Marks``; empty where they are the table's.
    """

    name: str
    kind: Kind
    categories: tuple[str, ...] = ()
    origin: float = 0.0
    format: str = ""
    scale: float = 1.0
    marks: tuple[str, ...] = ()

    @property
    def width(self) -> int:
        """The number of its columns in the matrix."""
        return len(DATE_PARTS) if self.kind == "date" else 1


@dataclass(frozen=True)
class Schema:
    """The columns used, the one to predict, and the ones left out with the reason; warnings: what seems wrong.

    features: all columns of the table but the one to predict, in its order; empty where all are used.
    """

    columns: tuple[Column, ...]
    target: str
    dropped: dict[str, str] = field(default_factory=dict)
    rules: Rules = Rules()
    warnings: tuple[str, ...] = ()
    features: tuple[str, ...] = ()

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
        lists = {"categories", "marks", "missing", "warnings", "features"}  # JSON has no tuples

        def fields(part: Mapping[str, Any]) -> dict[str, Any]:
            return {name: tuple(value) if name in lists else value for name, value in part.items()}

        columns, rules = (
            tuple(Column(**fields(column)) for column in stored["columns"]),
            Rules(**fields(stored["rules"])),
        )
        return cls(**{**fields(stored), "columns": columns, "rules": rules})


def setting(key: str, name: str) -> str:
    """The setting that names a column, as typed into a shell."""
    return listed(key, [name])


def named(key: str, name: str) -> str:
    """A column's name, or the setting that names it where it needs quotes."""
    line = setting(key, name)
    return name if line == f"data.{key}=[{name}]" else line


def listed(key: str, texts: Iterable[str]) -> str:
    """The setting that lists texts, as typed into a shell."""
    is_plain = re.compile(r"(?!(null|true|false|nan|inf)$)[a-z_][a-z0-9_.-]*", re.IGNORECASE).fullmatch
    entries = [text if is_plain(text) else QuotedString(text, Quote.double).with_quotes() for text in texts]
    line = f"data.{key}=[{','.join(entries)}]"
    return line if len(entries) == 1 and '"' not in line else shlex.quote(line)


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

"""A column's values as text, numbers or points in time, read by the rules of its table; null where they are none."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import TypeVar

import numpy as np
import polars as pl
import polars.selectors as cs
from numpy.typing import NDArray

from neurona.tables.schema import Rules

LARGEST_NUMBER = 1e37  # what float32 can hold, and still multiply by 10
TIMES = ("", " %H:%M", " %H:%M:%S%.f", "T%H:%M:%S%.f", "T%H:%M:%S%.f%#z", " %H:%M:%S%.f%#z")
BLOCK_CELLS = 2**20
"""Of the columns that are read at once: so many are made text, not the whole table."""
YES, NO = ("true", "yes", "t", "y", "1", "1.0"), ("false", "no", "f", "n", "0", "0.0")

T = TypeVar("T")


def blocks(columns: Sequence[T], rows: int) -> Iterator[Sequence[T]]:
    """The columns of a table of so many rows, as many at a time as are read at once."""
    width = max(1, BLOCK_CELLS // max(1, rows))
    return (columns[start : start + width] for start in range(0, len(columns), width))


def words(column: pl.Series, rules: Rules) -> pl.Series:
    """A column as text without surrounding blanks, null where missing; 3.0 as 3."""
    return all_words(column.to_frame(), rules).to_series()


def all_words(table: pl.DataFrame, rules: Rules) -> pl.DataFrame:
    """Every column as ``words`` reads it, at once: of thousands of columns, polars' time is the number of its calls."""
    without_text = (pl.Object, pl.Binary, pl.Duration)  # of which polars makes none
    columns = [column for column in table if column.dtype.is_nested() or column.dtype in without_text]
    texts = [[None if value is None else str(value) for value in column.to_list()] for column in columns]
    table = table.with_columns(pl.Series(c.name, text, pl.String) for c, text in zip(columns, texts, strict=True))
    text = pl.all().cast(pl.String, strict=False).str.strip_chars().str.replace(r"^([+-]?\d+)\.0$", "${1}")
    return table.select(text.replace(list({"", *rules.missing}), None))


def parse(column: pl.Series, rules: Rules) -> pl.Series:
    """A column as float64, infinite and NaN too; a duration or a time of day in seconds."""
    return parse_all(column.to_frame(), rules).to_series()


def parse_all(table: pl.DataFrame, rules: Rules) -> pl.DataFrame:
    """Every column as ``parse`` reads it, at once."""
    seconds = (cs.duration().dt.total_microseconds() / 1e6, cs.time().cast(pl.Int64) / 1e9)
    texts = all_words(table.select(~(cs.numeric() | cs.boolean() | cs.duration() | cs.time())), rules)
    text = pl.all()
    if rules.thousands:
        text = text.str.replace_all(re.escape(rules.thousands) + r"(\d{3})\b", "${1}")
    if rules.decimal != ".":
        text = text.str.replace_all(".", "_", literal=True).str.replace(rules.decimal, ".", literal=True)
    read = table.with_columns(*seconds).with_columns(texts.select(text))
    return read.select(pl.all().cast(pl.Float64, strict=False))


def numbers(column: pl.Series, rules: Rules) -> pl.Series:
    """A column as float64, null where it is missing, not a number, infinite or too large."""
    return all_numbers(column.to_frame(), rules).to_series()


def all_numbers(table: pl.DataFrame, rules: Rules) -> pl.DataFrame:
    """Every column as ``numbers`` reads it, at once."""
    return parse_all(table, rules).select(pl.when(pl.all().abs() <= LARGEST_NUMBER).then(pl.all()))


def truths(column: pl.Series, rules: Rules) -> pl.Series:
    """A column as 1 for yes and 0 for no."""
    lower = words(column, rules).str.to_lowercase()
    return lower.replace_strict(YES + NO, [1.0] * len(YES) + [0.0] * len(NO), default=None)


def moments(column: pl.Series, pattern: str, rules: Rules) -> pl.Series:
    """A column as points in time, UTC where it tells the zone. pattern: of its texts, empty where it had been typed."""
    if column.dtype == pl.Date or column.dtype == pl.Datetime:
        return column.cast(pl.Datetime("us"), strict=False)
    text = words(column, rules)
    patterns = [pattern] if pattern else ["%Y-%m-%d" + time for time in TIMES]  # typed in training, text now
    readings = [
        text.str.to_datetime(each, strict=False, time_unit="us").dt.replace_time_zone(None) for each in patterns
    ]
    return pl.select(pl.coalesce(readings)).to_series()


def with_nan(values: pl.Series) -> NDArray[np.float64]:
    return values.cast(pl.Float64).to_numpy()  # polars has NaN for null

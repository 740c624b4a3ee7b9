"""A column's values as text, numbers or points in time, read by the rules of its table; null where they are none."""

from __future__ import annotations

import re

import numpy as np
import polars as pl
from numpy.typing import NDArray

from neurona.tables.schema import Rules

LARGEST_NUMBER = 1e37  # what float32 can hold, and still multiply by 10
TIMES = ("", " %H:%M", " %H:%M:%S%.f", "T%H:%M:%S%.f", "T%H:%M:%S%.f%#z", " %H:%M:%S%.f%#z")
YES, NO = ("true", "yes", "t", "y", "1", "1.0"), ("false", "no", "f", "n", "0", "0.0")


def words(column: pl.Series, rules: Rules) -> pl.Series:
    """A column as text without surrounding blanks, null where missing; 3.0 as 3."""
    if column.dtype.is_nested() or column.dtype in (pl.Object, pl.Binary, pl.Duration):  # polars knows no text for them
        column = pl.Series(column.name, [None if v is None else str(v) for v in column.to_list()], pl.String)
    text = column.cast(pl.String, strict=False).str.strip_chars().str.replace(r"^([+-]?\d+)\.0$", "${1}")
    return text.replace(list({"", *rules.missing}), None)


def parse(column: pl.Series, rules: Rules) -> pl.Series:
    """A column as float64, infinite and NaN too; a duration or a time of day in seconds."""
    if column.dtype == pl.Duration:
        column = column.dt.total_microseconds() / 1e6
    elif column.dtype == pl.Time:
        column = column.cast(pl.Int64) / 1e9
    elif not column.dtype.is_numeric() and column.dtype != pl.Boolean:
        column = words(column, rules)
        if rules.thousands:
            column = column.str.replace_all(re.escape(rules.thousands) + r"(\d{3})\b", "${1}")
        if rules.decimal != ".":
            column = column.str.replace_all(".", "_", literal=True).str.replace(rules.decimal, ".", literal=True)
    return column.cast(pl.Float64, strict=False)


def numbers(column: pl.Series, rules: Rules) -> pl.Series:
    """A column as float64, null where it is missing, not a number, infinite or too large."""
    parsed = parse(column, rules)
    return parsed.set(~(parsed.abs() <= LARGEST_NUMBER).fill_null(False), None)


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
    return values.cast(pl.Float64).fill_null(np.nan).to_numpy()

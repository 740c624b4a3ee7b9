"""A column's values as text, numbers or times, read by the rules of its table; null where they do not fit."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import TypeVar

import numpy as np
import polars as pl
import polars.selectors as cs
from numpy.typing import NDArray

from neurona.tables.marks import PLAIN, Marks
from neurona.tables.schema import BLANK, Rules

LARGEST_NUMBER = 1e37  # what float32 can hold, and still multiply by 10
_CLOCKS = [f"{gap}{time}{zone}" for time in ("%H:%M:%S%.f", "%H:%M") for zone in ("", "%#z") for gap in " T"]
TIMES = ("", *_CLOCKS, " %I:%M %p", " %I:%M:%S%.f %p")
"""What may follow a date, whatever the others of its column have."""
SHAPES = {
    **dict.fromkeys(("%y", "%M", "%S"), r"\d\d"),
    **dict.fromkeys(("%m", "%d", "%H", "%I"), r"\d{1,2}"),
    "%Y": r"\d{4}",
    "%B": "[A-Za-z]{3,9}",
    "%.f": r"(?:\.\d+)?",
    "%p": "[AaPp][Mm]",
    "%#z": r"(?:Z|[+-]\d\d(?::?\d\d)?)",
}
"""Of the parts of a date, more narrowly than polars, for which 23 is a year of four digits."""
RESPELLINGS = (
    ("^(?:Mon|Tue|Wed|Thu|Fri|Sat|Sun)[a-z]*,? ", ""),
    (r",(\s)", "$1"),
    (r"\s+", " "),
    (r"(\d) ?([AaPp])\.?[Mm]\.?$", "$1 ${2}M"),
    (r" ?(?:UTC|GMT|Z)$", "Z"),
    (r"(:\d\d(?:\.\d+)?) ([+-]\d\d:?\d\d)$", "$1$2"),
)
"""Of dates: commas, AM and zones as ``TIMES`` has them."""
BLOCK_CELLS = 2**20
"""Of the columns that are read at once: so many are made text, not the whole table."""
WHOLE = r"^([+-]?\d+)\.0$"
"""A whole number as a column of fractions prints it."""
YES, NO = ("true", "yes", "t", "y", "1", "1.0"), ("false", "no", "f", "n", "0", "0.0")

T = TypeVar("T")


def blocks(columns: Sequence[T], rows: int) -> Iterator[Sequence[T]]:
    """Ranges of columns that are read together, for a table of so many rows."""
    width = max(1, BLOCK_CELLS // max(1, rows))
    return (columns[start : start + width] for start in range(0, len(columns), width))


def words(column: pl.Series, rules: Rules) -> pl.Series:
    """A column as text without surrounding blanks, null where missing; 3.0 as 3."""
    return all_words(column.to_frame(), rules).to_series()


def all_words(table: pl.DataFrame, rules: Rules) -> pl.DataFrame:
    """Every column as ``words`` reads it, at once: of thousands of columns, polars' time is the number of its calls."""
    table = printable(table).with_columns(cs.float().fill_nan(None))
    text = pl.all().cast(pl.String, strict=False).str.strip_chars().str.replace(WHOLE, "${1}")
    return table.select(text.replace(list({"", *(re.sub(WHOLE, r"\1", word) for word in rules.missing)}), None))


def printable(table: pl.DataFrame) -> pl.DataFrame:
    """A table whose columns of objects and the like, of which polars makes no text, are text."""
    without_text = (pl.Object, pl.Binary, pl.Duration)
    columns = [column for column in table if column.dtype.is_nested() or column.dtype in without_text]
    texts = [[None if value is None else str(value) for value in column.to_list()] for column in columns]
    return table.with_columns(pl.Series(c.name, text, pl.String) for c, text in zip(columns, texts, strict=True))


def without_blanks(texts: pl.DataFrame) -> pl.DataFrame:
    """Columns of words, those for no value in a column of numbers, dates or booleans as null too."""
    return texts.select(pl.when(~pl.all().str.contains(BLANK)).then(pl.all()))


def numbers(column: pl.Series, rules: Rules, marks: Sequence[str] = ()) -> pl.Series:
    """A column as float64, null where it is missing, not a number, infinite or too large; a duration or a time of day
    in seconds. marks: of its texts, as ``Marks``; none for those of the rules.
    """
    return all_numbers(column.to_frame(), rules, {column.name: marks} if marks else None).to_series()


def all_numbers(table: pl.DataFrame, rules: Rules, marks: Mapping[str, Sequence[str]] | None = None) -> pl.DataFrame:
    """Every column as ``numbers`` reads it, at once. marks: of columns by name."""
    return parse_all(table, rules, marks).select(pl.when(pl.all().abs() <= LARGEST_NUMBER).then(pl.all()))


def parse_all(table: pl.DataFrame, rules: Rules, marks: Mapping[str, Sequence[str]] | None = None) -> pl.DataFrame:
    """Every column as float64, infinite and NaN too."""
    ways, usual = marks or {}, Marks(rules.decimal or ".", rules.thousands or "")
    seconds = (cs.duration().dt.total_microseconds() / 1e6, cs.time().cast(pl.Int64) / 1e9)
    texts = all_words(table.select(~(cs.numeric() | cs.boolean() | cs.duration() | cs.time())), rules)
    if texts.width and (ways or usual != PLAIN):
        texts = pl.DataFrame({text.name: Marks(*ways.get(text.name) or usual).plain(text) for text in texts})
    read = table.with_columns(*seconds).with_columns(texts).select(pl.all().cast(pl.Float64, strict=False))
    codes = pl.Series(rules.missing, dtype=pl.String).cast(pl.Float64, strict=False).drop_nulls().drop_nans().to_list()
    return read.select(pl.when(~pl.all().is_in(codes)).then(pl.all())) if codes else read


def truths(column: pl.Series, rules: Rules) -> pl.Series:
    """A column as 1 for yes and 0 for no."""
    lower = words(column, rules).str.to_lowercase()
    return lower.replace_strict(YES + NO, [1.0] * len(YES) + [0.0] * len(NO), default=None)


def moments(column: pl.Series, pattern: str, rules: Rules) -> pl.Series:
    """A column as points in time, UTC where it tells the zone. pattern: of the dates of its texts, whatever time
    follows them; empty where the column had been typed.
    """
    if column.dtype == pl.Date or column.dtype == pl.Datetime:
        return column.cast(pl.Datetime("us"), strict=False)
    date = re.split("[ T]%[HI]", pattern)[0] or "%Y-%m-%d"  # typed in training, text now
    rest, read = words(column, rules), pl.Series(column.name, [None] * len(column), pl.Datetime("us"))
    for respellings in ((), RESPELLINGS):
        for old, new in respellings:
            rest = rest.str.replace_all(old, new)
        for time in TIMES:
            if rest.null_count() == len(rest):
                return read
            fits = rest.str.contains(f"^{shape(date + time)}$")
            if not fits.any():
                continue
            here = pl.select(pl.when(fits).then(rest)).to_series().str
            times = here.to_datetime(date + time, strict=False, time_unit="us").dt.replace_time_zone(None)
            read, rest = read.fill_null(times), pl.select(pl.when(times.is_null()).then(rest)).to_series()
    return read


def shape(pattern: str) -> str:
    """The regular expression of the texts that a date pattern reads."""
    parts = re.findall(r"%(?:\.f|#z|[A-Za-z])|.", pattern)
    return "".join(SHAPES.get(part, r"\S+" if part[1:] else re.escape(part)) for part in parts)


def with_nan(values: pl.Series) -> NDArray[np.float64]:
    return values.cast(pl.Float64).to_numpy()  # polars has NaN for null

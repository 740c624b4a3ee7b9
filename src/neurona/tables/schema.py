"""What the columns of a table are: inferred once, from training rows, then fixed. Plain data, and no torch."""

from __future__ import annotations

import re
import shlex
from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass, field, replace
from itertools import product
from typing import Any, Literal, NamedTuple

import numpy as np
import polars as pl
from numpy.typing import NDArray

from neurona.errors import ConfigError, DataError, did_you_mean
from neurona.tables.reading import require

Kind = Literal["numeric", "boolean", "date", "categorical"]

MISSING = ("", "NA", "N/A", "n/a", "#N/A", "<NA>", "?", "NaN", "nan", "NULL", "null", "None")
PAIRS = ({"true", "false"}, {"yes", "no"}, {"t", "f"}, {"y", "n"})
YES, NO = ("true", "yes", "t", "y", "1", "1.0"), ("false", "no", "f", "n", "0", "0.0")
DATES = ("%Y-%m-%d", "%Y/%m/%d", "%d.%m.%Y", "%d/%m/%Y", "%m/%d/%Y", "%d-%m-%Y")
TIMES = ("", " %H:%M", " %H:%M:%S%.f", "T%H:%M:%S%.f", "T%H:%M:%S%.f%#z", " %H:%M:%S%.f%#z")
DATE_PARTS = ("days", "month", "day", "weekday", "hour")
"""The numbers a date becomes: days since 1970, month 1 to 12, day 1 to 31, weekday 1 (Monday) to 7, hour 0 to 24."""

LARGEST = 1e37  # what float32 can hold, and still multiply by 10
MANY_CATEGORIES = 1000
FEWEST_ROWS = 30  # to take a column for an identifier, or for the target in disguise
IDENTIFIER_NAME = re.compile(r"(^|[\W_])(id|uuid|guid|key|index)$|[a-z](Id|ID)$", re.IGNORECASE)


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

    def as_dict(self) -> dict[str, Any]:
        """Plain containers, for a checkpoint."""
        return asdict(self)

    @classmethod
    def from_dict(cls, stored: Mapping[str, Any]) -> Schema:
        columns = tuple(Column(**{**column, "categories": tuple(column["categories"])}) for column in stored["columns"])
        rules = Rules(**{**stored["rules"], "missing": tuple(stored["rules"]["missing"])})
        return cls(**{**stored, "columns": columns, "rules": rules, "warnings": tuple(stored["warnings"])})


class Layout(NamedTuple):
    """The matrix that ``encode`` makes: ``numeric`` columns of numbers, then one column of ids for each of
    ``cardinalities``, its number of ids. names: the table's column that each of the matrix' columns comes from.
    """

    numeric: int
    cardinalities: tuple[int, ...]
    names: tuple[str, ...]


def layout(schema: Schema) -> Layout:
    numbers = [c.name for c in schema.columns for _ in range(_width(c)) if c.kind != "categorical"]
    categorical = [c for c in schema.columns if c.kind == "categorical"]
    names = (*numbers, *(column.name for column in categorical))
    return Layout(len(numbers), tuple(len(column.categories) + 1 for column in categorical), names)


def infer(
    table: pl.DataFrame,
    target: str,
    rows: NDArray[np.int64],
    classes: NDArray[np.int64],
    *,
    rules: Rules = Rules(),
    categorical: Collection[str] = (),
    numeric: Collection[str] = (),
    dropped: Mapping[str, str] | None = None,
) -> Schema:
    """The schema of a table, from the given (training) rows alone; classes: the class of each of those rows.

    categorical, numeric: columns that are that, whatever they look like. dropped: columns to leave out, and why.

    Left out are columns of one value only, and identifiers: whole numbers that are unique and so dense that chance
    would not make them so, unique ones called id, and text that hardly ever comes twice. A column that tells the class
    of all but 2 % of the rows that the largest class does not explain is named in a warning. Raises ConfigError for
    names that are no columns, DataError where no column is left.
    """
    columns, left_out, warnings = [], dict(dropped or {}), list[str]()
    for key, names in (("categorical", categorical), ("numeric", numeric)):
        for name in names:
            if name == target or name in left_out or (name in categorical and name in numeric):
                raise ConfigError(f"data.{key}", name, "is a column that another setting names too; leave out one")
            if name not in table.columns:
                raise ConfigError(f"data.{key}", name, f"no such column{did_you_mean(name, table.columns)}")
    training = table[rows]
    for name in table.columns:
        if name == target or name in left_out:
            continue
        wanted: Kind | None = "categorical" if name in categorical else "numeric" if name in numeric else None
        column = _column(training[name], rules, wanted, warnings)
        if isinstance(column, str):
            left_out[name] = column
            continue
        columns.append(column)
        if _gives_away(training[name], column, rules, classes):
            warnings.append(f"column {name!r} all but gives the target away; {_setting('drop', name)} leaves it out")
    if not columns:
        reasons = "; ".join([*(f"{name!r}: {reason}" for name, reason in left_out.items()), *warnings])
        raise DataError("the table", f"no column is left to predict {target!r} from ({reasons or 'there is no other'})")
    return Schema(tuple(columns), target, left_out, rules, tuple(warnings))


def encode(table: pl.DataFrame, schema: Schema, where: object = "the table") -> NDArray[np.float32]:
    """The matrix (rows, columns) of ``layout``: numbers less their origin, NaN where missing or not finite; booleans 0
    and 1; dates as ``DATE_PARTS``; categories as ids, 0 for what is missing or was not seen in training, 1 … k.

    Takes the schema's columns, in any order among others. Raises DataError naming those that ``where`` lacks.
    """
    require(table, schema.names, where)
    ordered = sorted(schema.columns, key=lambda column: column.kind == "categorical")
    matrix = np.empty((table.height, sum(map(_width, ordered))), dtype=np.float32)
    start = 0
    for column in ordered:
        for values in _encoded(table[column.name], column, schema.rules):
            matrix[:, start] = values
            start += 1
    return matrix


def decode(rows: NDArray[np.float64], schema: Schema) -> tuple[list[str], list[list[str]]]:
    """The names of the columns and, for each row of such a matrix, their values as text, to be read by people."""
    columns, start = [], 0
    for column in sorted(schema.columns, key=lambda column: column.kind == "categorical"):
        values = rows[:, start]
        start += _width(column)
        if column.kind == "categorical":
            texts = [("other or missing", *column.categories)[int(value)] for value in values]
        elif column.kind == "date":
            texts = [str(np.datetime64(0, "D") + int(x + column.origin)) if np.isfinite(x) else "" for x in values]
        else:
            texts = [f"{x + column.origin:.6g}" if np.isfinite(x) else "" for x in values]
        columns.append((column.name, texts))
    return [name for name, _ in columns], [list(cells) for cells in zip(*(texts for _, texts in columns), strict=True)]


def unread(table: pl.DataFrame, schema: Schema, matrix: NDArray[np.float32]) -> dict[str, tuple[int, int]]:
    """Of the columns of numbers, booleans or dates, those with values that ``encode`` could not read: how many, of how
    many.
    """
    encoded, found = dict(zip(layout(schema).names, matrix.T, strict=True)), {}
    for name in schema.names:
        if name in encoded and (is_nan := np.isnan(encoded[name])).any():
            is_value = words(table[name], schema.rules).is_not_null().to_numpy()
            if lost := int((is_nan & is_value).sum()):
                found[name] = lost, int(is_value.sum())
    return found


def words(column: pl.Series, rules: Rules = Rules()) -> pl.Series:
    """A column as text without surrounding blanks, null where missing; 3.0 as 3."""
    if column.dtype.is_nested() or column.dtype in (pl.Object, pl.Binary, pl.Duration):  # polars knows no text for them
        column = pl.Series(column.name, [None if v is None else str(v) for v in column.to_list()], pl.String)
    text = column.cast(pl.String, strict=False).str.strip_chars().str.replace(r"^([+-]?\d+)\.0$", "${1}")
    return text.replace(list({"", *rules.missing}), None)


def order_of(column: pl.Series, rules: Rules = Rules()) -> pl.Series:
    """The place of each row's value among the column's distinct values, by number, time or text; null where missing."""
    text = words(column, rules)
    kind, pattern = _kind(column, text.drop_nulls(), rules, [])
    values = text
    if kind == "numeric":
        values = numbers(column, rules)
    elif kind == "date":
        values = _times(column, pattern, rules)
    return values.rank("dense")


def _width(column: Column) -> int:
    return len(DATE_PARTS) if column.kind == "date" else 1


def _encoded(values: pl.Series, column: Column, rules: Rules) -> list[NDArray[np.float64]]:
    if column.kind == "categorical":
        ids = words(values, rules).cast(pl.Enum(column.categories), strict=False).to_physical().cast(pl.Float64)
        return [(ids + 1).fill_null(0).to_numpy()]
    if column.kind == "boolean":
        lower = words(values, rules).str.to_lowercase()
        known = lower.replace_strict(YES + NO, [1.0] * len(YES) + [0.0] * len(NO), default=None)
        return [_with_nan(known)]
    if column.kind == "numeric":
        return [_with_nan(numbers(values, rules)) - column.origin]
    time = _times(values, column.format, rules)
    seconds = _with_nan(time.dt.epoch("us")) / 1e6
    parts = [_with_nan(getattr(time.dt, part)()) for part in ("month", "day", "weekday")]
    return [np.floor(seconds / 86400) - column.origin, *parts, seconds % 86400 / 3600]


def numbers(column: pl.Series, rules: Rules) -> pl.Series:
    """A column as float64, null where it is missing, not a number, infinite or too large."""
    known = _parsed(column, rules)
    return known.set(~(known.abs() <= LARGEST).fill_null(False), None)


def _parsed(column: pl.Series, rules: Rules) -> pl.Series:
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


def _times(column: pl.Series, pattern: str, rules: Rules) -> pl.Series:
    """A column as points in time (UTC where it tells the zone), null where it is missing or no such."""
    if column.dtype == pl.Date or column.dtype == pl.Datetime:
        time = column.cast(pl.Datetime("us"), strict=False)
    else:
        text = words(column, rules)
        patterns = [pattern] if pattern else ["%Y-%m-%d" + time for time in TIMES]  # typed in training, text now
        times = [
            text.str.to_datetime(each, strict=False, time_unit="us").dt.replace_time_zone(None) for each in patterns
        ]
        time = pl.select(pl.coalesce(times)).to_series()
    return time


def _with_nan(values: pl.Series) -> NDArray[np.float64]:
    return values.cast(pl.Float64).fill_null(np.nan).to_numpy()


def _column(values: pl.Series, rules: Rules, wanted: Kind | None, warnings: list[str]) -> Column | str:
    """What a column is, from its training values, or why it is left out."""
    name, dtype = values.name, values.dtype
    if dtype.is_nested() or dtype in (pl.Binary, pl.Object, pl.Unknown):
        warnings.append(f"column {name!r} holds {dtype}, which is no single value, and is left out")
        return f"holds {dtype}"
    text = words(values, rules)
    distinct, known = text.n_unique(), text.drop_nulls()
    if not len(known):
        warnings.append(f"column {name!r} has no value in any training row and is left out")
        return "all missing"
    if distinct == 1:
        return "constant"
    kind, pattern = (wanted, "") if wanted else _kind(values, known, rules, warnings)
    if kind == "boolean":
        return Column(name, kind)
    if kind == "date":
        days = np.floor(_with_nan(_times(values, pattern, rules).dt.epoch("us")) / 86.4e9)
        return Column(name, kind, origin=float(np.nanmedian(days)), format=pattern)
    if kind == "numeric":
        return _numeric(values, rules, wanted, warnings)
    unique = known.unique().sort()
    if not wanted and len(unique) > 0.9 * len(known) and len(known) >= FEWEST_ROWS:
        warnings.append(f"column {name!r} looks like an identifier ({len(unique)} texts in {len(known)} rows) and is")
        warnings[-1] += f" left out; {_setting('categorical', name)} keeps it"
        return "identifier"
    if len(unique) > MANY_CATEGORIES:
        warnings.append(f"column {name!r} has {len(unique):,} categories in {len(known):,} rows; is it one to drop?")
    return Column(name, "categorical", categories=tuple(unique))


def _numeric(values: pl.Series, rules: Rules, wanted: Kind | None, warnings: list[str]) -> Column | str:
    name, given = values.name, numbers(values, rules)
    known = given.drop_nulls().to_numpy()
    if lost := len(words(values, rules).drop_nulls()) - len(known):
        warnings.append(f"column {name!r}: {lost} values are infinite, too large or no numbers, and count as missing")
    if not len(known):
        return "all missing"
    spread = len(np.unique(known))
    if spread == 1 and len(known) == len(values):
        return "constant"
    dense = np.ptp(known) < 3 * len(known) or IDENTIFIER_NAME.search(name)
    whole = bool((known == np.round(known)).all())
    if not wanted and whole and spread == len(values) >= FEWEST_ROWS and dense:
        warnings.append(f"column {name!r} looks like an identifier (whole numbers, one for each row) and is left out;")
        warnings[-1] += f" {_setting('numeric', name)} keeps it"
        return "identifier"
    needs_origin = np.abs(known).max() > 1000 * known.std()
    return Column(name, "numeric", origin=float(np.median(known)) if needs_origin else 0.0)


def _kind(values: pl.Series, known: pl.Series, rules: Rules, warnings: list[str]) -> tuple[Kind, str]:
    """The kind of a column that is not given one, and the pattern of its dates. known: its texts that are not missing.

    Numbers that begin with 0, such as postal codes, are categories.
    """
    dtype, name = values.dtype, values.name
    if dtype == pl.Boolean:
        return "boolean", ""
    if dtype in (pl.Date, pl.Datetime):
        return "date", ""
    if dtype.is_numeric() or dtype in (pl.Duration, pl.Time):
        return "numeric", ""
    if dtype in (pl.Categorical, pl.Enum):
        return "categorical", ""
    texts = known.unique().sort()
    if any(set(texts.str.to_lowercase()) <= pair for pair in PAIRS):
        return "boolean", ""
    share = _share_of_numbers(known, rules)
    if share == 1:
        return "categorical" if texts.str.contains(r"^[+-]?0\d").any() else "numeric", ""
    patterns = [date + time for date, time in product(DATES, TIMES) if _all_dates(texts[:20], date + time)]
    patterns = [pattern for pattern in patterns if _all_dates(texts, pattern)]
    if patterns:
        if len(patterns) > 1:
            warnings.append(f"column {name!r} may be read as {' or '.join(patterns)}; the first is taken")
        return "date", patterns[0]
    for decimal, thousands in ((".", ","), (",", ""), (",", "."), (".", " "), (".", "'")):
        other = replace(rules, decimal=decimal, thousands=thousands)
        if share < 1 and _share_of_numbers(known, other) == 1:
            settings = (("decimal", decimal, rules.decimal), ("thousands", thousands, rules.thousands))
            remedy = " ".join(f"\"data.{key}='{value}'\"" for key, value, now in settings if value != now)
            warnings.append(f"column {name!r} is categorical, but would hold numbers with {remedy}")
            break
    else:
        if share >= 0.9:
            odd = next(text for text in texts if _share_of_numbers(pl.Series([text]), rules) == 0)
            problem = f"column {name!r} is numeric but for values such as {odd!r}, hence categorical;"
            warnings.append(f"{problem} {_setting('numeric', name)} takes them as missing")
    return "categorical", ""


def _setting(key: str, name: str) -> str:
    """How a column is named on the command line."""
    if re.fullmatch(r"(?!(null|true|false|nan|inf)$)[a-z_][a-z0-9_.-]*", name, re.IGNORECASE):
        return f"data.{key}=[{name}]"
    escaped = name.replace('"', r"\"")
    return shlex.quote(f'data.{key}=["{escaped}"]')


def _share_of_numbers(texts: pl.Series, rules: Rules) -> float:
    return float(_parsed(texts, rules).is_not_null().mean() or 0)  # type: ignore[arg-type]


def _all_dates(texts: pl.Series, pattern: str) -> bool:
    return bool(texts.str.to_datetime(pattern, strict=False, time_unit="us").is_not_null().all())


def _gives_away(values: pl.Series, column: Column, rules: Rules, classes: NDArray[np.int64]) -> bool:
    """Whether a column tells the classes but for 2 % of the rows that are not of the largest: by the majority of each
    of its values; or, a number of many values, by thresholds: sorted by it, the rows hardly ever change class.
    """
    encoded, most = _encoded(values, column, rules)[0], np.bincount(classes).max()
    few = 0.02 * (len(classes) - most)
    if len(classes) < FEWEST_ROWS:
        return False
    if len(np.unique(encoded)) <= len(classes) // 10:
        counts = pl.DataFrame({"value": encoded, "class": classes}).group_by("value", "class").len()
        return bool(len(classes) - counts.group_by("value").max()["len"].sum() <= few)
    changes = np.count_nonzero(np.diff(classes[np.argsort(encoded, kind="stable")]))
    return column.kind != "categorical" and bool(changes - (len(np.unique(classes)) - 1) <= few)

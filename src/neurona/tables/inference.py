"""What the columns of a table seem to be, what speaks against using one, and what its owner should look at."""

from __future__ import annotations

import re
import shlex
from collections.abc import Collection, Iterator, Mapping
from dataclasses import replace
from itertools import product
from typing import NamedTuple

import numpy as np
import polars as pl
from numpy.typing import NDArray

from neurona.errors import ConfigError, DataError, did_you_mean
from neurona.tables.matrix import encode_column
from neurona.tables.schema import Column, Kind, Rules, Schema
from neurona.tables.values import (
    LARGEST_NUMBER,
    TIMES,
    all_words,
    blocks,
    moments,
    numbers,
    parse,
    parse_all,
    with_nan,
)

PAIRS = ({"true", "false"}, {"yes", "no"}, {"t", "f"}, {"y", "n"})
DATES = ("%Y-%m-%d", "%Y/%m/%d", "%d.%m.%Y", "%d/%m/%Y", "%m/%d/%Y", "%d-%m-%Y")
SEPARATORS = ((".", ","), (",", ""), (",", "."), (".", " "), (".", "'"))  # decimal, thousands
MANY_CATEGORIES = 1000
FEWEST_ROWS = 30  # to take a column for an identifier, or for the target in disguise
IDENTIFIER_NAME = re.compile(r"(^|[\W_])(id|uuid|guid|key|index)$|[a-z](Id|ID)$", re.IGNORECASE)


class Verdict(NamedTuple):
    """What a column is, or the reason why it is left out; warnings: what its owner should know."""

    column: Column | None = None
    reason: str = ""
    warnings: tuple[str, ...] = ()


class Cells(NamedTuple):
    """A column's training rows: as the table has them, as words, and as numbers, NaN where they are none.

    are_numbers: whether all that are not missing can be parsed as numbers, infinite or not. are_codes: whether any
    begins with a 0 that numbers do not have, as postal codes do.
    """

    values: pl.Series
    text: pl.Series
    figures: NDArray[np.float64]
    are_numbers: bool
    are_codes: bool


class Guess(NamedTuple):
    """The kind of a column by its looks; pattern: of dates that are text."""

    kind: Kind
    pattern: str = ""
    warnings: tuple[str, ...] = ()


def infer(
    table: pl.DataFrame,
    target: str,
    rows: NDArray[np.int64],
    classes: NDArray[np.int64],
    *,
    rules: Rules,
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
    dropped = dict(dropped or {})
    used = set(table.columns) - dropped.keys() - {target}
    both = set(categorical) & set(numeric)
    for key, names in (("categorical", categorical), ("numeric", numeric)):
        for name in names:
            if name == target or name in dropped or name in both:
                raise ConfigError(f"data.{key}", name, "is a column that another setting names too; leave out one")
            if name not in used:
                raise ConfigError(f"data.{key}", name, f"no such column{did_you_mean(name, table.columns)}")
    overrides: dict[str, Kind] = {**dict.fromkeys(categorical, "categorical"), **dict.fromkeys(numeric, "numeric")}
    names = [name for name in table.columns if name in used]
    verdicts = {
        name: _judge(cells, rules, overrides.get(name), classes)
        for block in blocks(names, len(rows))
        for name, cells in zip(block, _read(table[block][rows], rules), strict=True)
    }
    columns = tuple(verdict.column for verdict in verdicts.values() if verdict.column)
    left_out = dropped | {name: verdict.reason for name, verdict in verdicts.items() if verdict.reason}
    warnings = tuple(warning for verdict in verdicts.values() for warning in verdict.warnings)
    if not columns:
        reasons = "; ".join([*(f"{name!r}: {reason}" for name, reason in left_out.items()), *warnings])
        raise DataError("the table", f"no column is left to predict {target!r} from ({reasons or 'there is no other'})")
    return Schema(columns, target, left_out, rules, warnings)


def order_of(column: pl.Series, rules: Rules) -> pl.Series:
    """The place of each row's value among the column's distinct values, by number, time or text; null where missing."""
    (cells,) = _read(column.to_frame(), rules)
    values, guess = cells.text, _guess(cells, rules)
    if guess.kind == "numeric":
        values = numbers(column, rules)
    elif guess.kind == "date":
        values = moments(column, guess.pattern, rules)
    return values.rank("dense")


def _read(table: pl.DataFrame, rules: Rules) -> Iterator[Cells]:
    """table: the training rows of some of its columns."""
    texts = all_words(table, rules)
    are_codes = texts.select(pl.all().str.contains(r"^[+-]?0\d").any()).row(0)
    for values, text, parsed, is_code in zip(table, texts, parse_all(table, rules), are_codes, strict=True):
        figures = with_nan(parsed)
        figures = np.where(np.abs(figures) <= LARGEST_NUMBER, figures, np.nan)
        yield Cells(values, text, figures, parsed.null_count() == text.null_count(), is_code)


def _judge(cells: Cells, rules: Rules, override: Kind | None, classes: NDArray[np.int64]) -> Verdict:
    values, text = cells.values, cells.text
    name, dtype = values.name, values.dtype
    if dtype.is_nested() or dtype in (pl.Binary, pl.Object, pl.Unknown):
        warning = f"column {name!r} holds {dtype}, which is no single value, and is left out"
        return Verdict(reason=f"holds {dtype}", warnings=(warning,))
    num_texts = len(text) - text.null_count()
    if not num_texts:
        warning = f"column {name!r} has no value in any training row and is left out"
        return Verdict(reason="all missing", warnings=(warning,))
    if text.n_unique() == 1:
        return Verdict(reason="constant")
    guess = Guess(override) if override else _guess(cells, rules)
    match guess.kind:
        case "boolean":
            verdict = Verdict(Column(name, "boolean"))
        case "date":
            days = np.floor(with_nan(moments(values, guess.pattern, rules).dt.epoch("us")) / 86.4e9)
            verdict = Verdict(Column(name, "date", origin=float(np.nanmedian(days)), format=guess.pattern))
        case "numeric":
            verdict = _judge_numbers(name, cells.figures, num_texts, may_be_identifier=not override)
        case "categorical":
            verdict = _judge_categories(name, text.drop_nulls(), may_be_identifier=not override)
    warnings = guess.warnings + verdict.warnings
    if verdict.column and _gives_away(cells, verdict.column, rules, classes):
        warnings += (f"column {name!r} all but gives the target away; {_setting('drop', name)} leaves it out",)
    return Verdict(verdict.column, verdict.reason, warnings)


def _judge_numbers(name: str, values: NDArray[np.float64], num_texts: int, *, may_be_identifier: bool) -> Verdict:
    """values: NaN where they are no numbers. num_texts: of them, those that are not missing."""
    figures = values[~np.isnan(values)]
    warnings: tuple[str, ...] = ()
    if lost := num_texts - len(figures):
        warnings = (f"column {name!r}: {lost} values are infinite, too large or no numbers, and count as missing",)
    if not len(figures):
        return Verdict(reason="all missing", warnings=warnings)
    spread = len(np.unique(figures))
    if spread == 1 and len(figures) == len(values):
        return Verdict(reason="constant", warnings=warnings)
    dense = np.ptp(figures) < 3 * len(figures) or IDENTIFIER_NAME.search(name)
    whole = bool((figures == np.round(figures)).all())
    if may_be_identifier and whole and spread == len(values) >= FEWEST_ROWS and dense:
        problem = f"column {name!r} looks like an identifier (whole numbers, one for each row) and is left out;"
        return Verdict(reason="identifier", warnings=(*warnings, f"{problem} {_setting('numeric', name)} keeps it"))
    needs_origin = np.abs(figures).max() > 1000 * figures.std()
    return Verdict(Column(name, "numeric", origin=float(np.median(figures)) if needs_origin else 0.0), "", warnings)


def _judge_categories(name: str, texts: pl.Series, *, may_be_identifier: bool) -> Verdict:
    categories = texts.unique().sort()
    if may_be_identifier and len(categories) > 0.9 * len(texts) and len(texts) >= FEWEST_ROWS:
        problem = f"column {name!r} looks like an identifier ({len(categories)} texts in {len(texts)} rows)"
        warning = f"{problem} and is left out; {_setting('categorical', name)} keeps it"
        return Verdict(reason="identifier", warnings=(warning,))
    warnings: tuple[str, ...] = ()
    if len(categories) > MANY_CATEGORIES:
        counts = f"{len(categories):,} categories in {len(texts):,} rows"
        warnings = (f"column {name!r} has {counts}; is it one to drop?",)
    return Verdict(Column(name, "categorical", categories=tuple(categories)), "", warnings)


def _guess(cells: Cells, rules: Rules) -> Guess:
    """Numbers that begin with 0, such as postal codes, are categories."""
    dtype = cells.values.dtype
    if dtype == pl.Boolean:
        return Guess("boolean")
    if dtype in (pl.Date, pl.Datetime):
        return Guess("date")
    if dtype.is_numeric() or dtype in (pl.Duration, pl.Time):
        return Guess("numeric")
    if dtype in (pl.Categorical, pl.Enum):
        return Guess("categorical")
    if cells.are_numbers:
        return Guess("categorical" if cells.are_codes else "numeric")
    texts = cells.text.drop_nulls()
    distinct = texts.unique().sort()
    if any(set(distinct.str.to_lowercase()) <= pair for pair in PAIRS):
        return Guess("boolean")
    formats = [date + time for date, time in product(DATES, TIMES)] if re.match(r"[+-]?\d", distinct[0]) else []
    patterns = [pattern for pattern in formats if _are_dates(distinct[:20], pattern)]
    patterns = [pattern for pattern in patterns if _are_dates(distinct, pattern)]
    if not patterns:
        return Guess("categorical", warnings=_almost_numbers(texts, rules))
    ambiguous = f"column {texts.name!r} may be read as {' or '.join(patterns)}; the first is taken"
    return Guess("date", patterns[0], (ambiguous,) if len(patterns) > 1 else ())


def _almost_numbers(texts: pl.Series, rules: Rules) -> tuple[str, ...]:
    """A warning if texts would be numbers with other separators, or all but a few are."""
    name, share = texts.name, _share_of_numbers(texts, rules)
    for decimal, thousands in SEPARATORS:
        if _share_of_numbers(texts, replace(rules, decimal=decimal, thousands=thousands)) == 1:
            settings = (("decimal", decimal, rules.decimal), ("thousands", thousands, rules.thousands))
            remedy = " ".join(f"\"data.{key}='{value}'\"" for key, value, now in settings if value != now)
            return (f"column {name!r} is categorical, but would hold numbers with {remedy}",)
    if share < 0.9:
        return ()
    odd = next(text for text in texts.unique().sort() if _share_of_numbers(pl.Series([text]), rules) == 0)
    problem = f"column {name!r} is numeric but for values such as {odd!r}, hence categorical;"
    return (f"{problem} {_setting('numeric', name)} takes them as missing",)


def _setting(key: str, name: str) -> str:
    """How a column is named on the command line."""
    if re.fullmatch(r"(?!(null|true|false|nan|inf)$)[a-z_][a-z0-9_.-]*", name, re.IGNORECASE):
        return f"data.{key}=[{name}]"
    escaped = name.replace('"', r"\"")
    return shlex.quote(f'data.{key}=["{escaped}"]')


def _share_of_numbers(texts: pl.Series, rules: Rules) -> float:
    return float(parse(texts, rules).is_not_null().mean() or 0)  # type: ignore[arg-type]


def _are_dates(texts: pl.Series, pattern: str) -> bool:
    return bool(texts.str.to_datetime(pattern, strict=False, time_unit="us").is_not_null().all())


def _gives_away(cells: Cells, column: Column, rules: Rules, classes: NDArray[np.int64]) -> bool:
    """Whether a column tells the classes but for 2 % of the rows that are not of the largest: by the majority of each
    of its values; or, a number of many values, by thresholds: sorted by it, the rows hardly ever change class.
    """
    if len(classes) < FEWEST_ROWS:
        return False
    figures = cells.figures if column.kind == "numeric" else encode_column(cells.values, column, rules)[0]
    most_errors = 0.02 * (len(classes) - np.bincount(classes).max())
    values, places = np.unique(figures, return_inverse=True)
    if len(values) <= len(classes) // 10:
        num_classes = classes.max() + 1
        pairs, counts = np.unique(places * num_classes + classes, return_counts=True)
        largest = np.maximum.reduceat(counts, np.flatnonzero(np.diff(pairs // num_classes, prepend=-1)))
        return bool(len(classes) - largest.sum() <= most_errors)
    changes = np.count_nonzero(np.diff(classes[np.argsort(figures, kind="stable")]))
    return column.kind != "categorical" and bool(changes - (len(np.unique(classes)) - 1) <= most_errors)

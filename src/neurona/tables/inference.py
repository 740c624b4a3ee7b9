"""What kinds the columns of a table have, which of them are left out and why, and what its owner should check."""

from __future__ import annotations

import functools
import re
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import polars as pl
from numpy.typing import NDArray

from neurona.errors import ConfigError, DataError, did_you_mean
from neurona.tables.marks import SAMPLE, readings
from neurona.tables.matrix import encode_column
from neurona.tables.schema import NOUNS, Column, Kind, Rules, Schema, listed, named, setting
from neurona.tables.unread import fold
from neurona.tables.values import (
    LARGEST_NUMBER,
    all_words,
    blocks,
    moments,
    numbers,
    parse_all,
    shape,
    with_nan,
    without_blanks,
)

PAIRS = ({"true", "false"}, {"yes", "no"}, {"t", "f"}, {"y", "n"})
DATES = (
    *("%Y-%m-%d", "%Y/%m/%d", "%d.%m.%Y", "%d/%m/%Y", "%m/%d/%Y", "%d-%m-%Y", "%m-%d-%Y", "%Y.%m.%d", "%d.%m.%y"),
    *("%d/%m/%y", "%m/%d/%y", "%d-%m-%y", "%d %B %Y", "%d-%B-%Y", "%B %d %Y", "%d-%B-%y"),
)
MAY_BE_THOUSANDS = r"^[+-]?(?:[1-9]\d{0,2}(?:\.\d{3})+|\d+)$"
NOT_FINITE = r"(?i)^[+-]?(?:inf|infinity|nan)$"
MOST_FAITHFUL = 2**53  # beyond which float64 rounds whole numbers
CERTAIN, LIKELY = 0.8, 0.2  # shares of the rows
FEW_NUMBERS = 20  # which may be categories, where others are words
MANY_CATEGORIES = 1000
FEWEST_ROWS = 30  # to take a column for an identifier, or for the target in disguise
FINEST_SPREAD = 1e-20  # which float32 holds, and its square nearly
INDEX_NAME = re.compile(r"|Unnamed: \d+|__index_level_\d+__")  # pandas' and R's
IDENTIFIER_NAME = re.compile(r"(^|[\W_])(id|uuid|guid|key|index)$|[a-z](Id|ID)$", re.IGNORECASE)


class Verdict(NamedTuple):
    """A column's kind, or the reason why it is left out; warnings: what its owner should know."""

    column: Column | None = None
    reason: str = ""
    warnings: tuple[str, ...] = ()


class Cells(NamedTuple):
    """The training rows of a column in four forms: as in the table; as words; as words, null for those that stand for a
    missing number, date or boolean; and as numbers, NaN for anything else.

    are_numbers: whether all that are known can be parsed as numbers, infinite or not. are_codes: whether any begins
    with a 0 that numbers do not have, as postal codes do. are_clear: whether not all dots may stand between thousands.
    """

    values: pl.Series
    text: pl.Series
    known: pl.Series
    figures: NDArray[np.float64]
    are_numbers: bool
    are_codes: bool
    are_clear: bool


class Guess(NamedTuple):
    """The likely kind of a column. reading: the date pattern or number marks of its texts. rival: another reading that
    fits as many texts, and the setting that chooses it.
    """

    kind: Kind
    reading: Any = ()
    rival: str = ""
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
    features = tuple(name for name in table.columns if name != target)
    used = set(table.columns) - dropped.keys() - {target}
    both = set(categorical) & set(numeric)
    for key, names in (("categorical", categorical), ("numeric", numeric)):
        for name in names:
            if name == target or name in dropped or name in both:
                raise ConfigError(f"data.{key}", name, "is named by another setting, too; name it in only one of them")
            if name not in used:
                hint = did_you_mean(name, table.columns, functools.partial(named, key))
                raise ConfigError(f"data.{key}", name, f"no such column{hint}")
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
    features = features if len(columns) < len(features) else ()
    return Schema(columns, target, left_out, rules, warnings, features)


def order_of(column: pl.Series, rules: Rules) -> pl.Series:
    """The rank of each row's value among the column's distinct numbers or times; null where missing. Raises ConfigError
    for other values, and for those that may be read in two ways.
    """
    (cells,) = _read(column.to_frame(), rules)
    values, guess = cells.text.cast(pl.Int64, strict=False), _guess(cells, rules)
    if values.null_count() > cells.text.null_count() and guess.kind == "numeric":
        values = numbers(column, rules, guess.reading)
    elif values.null_count() > cells.text.null_count() and guess.kind == "date":
        values = moments(column, guess.reading, rules)
    if odd := cells.known.filter(values.is_null() & cells.known.is_not_null()).unique().sort().to_list()[:3]:
        problem = f"needs whole numbers, or dates of one pattern, but holds {', '.join(map(repr, odd))}"
        raise ConfigError("data.order", column.name, f"{problem}; data.dates or data.missing may read them")
    if guess.rival:
        raise ConfigError("data.order", column.name, f"may be read in two ways, {guess.rival}")
    return values.rank("dense")


def weights_of(column: pl.Series, rules: Rules) -> pl.Series:
    """The numbers of a column of weights, however they are written; null for other values. Raises ConfigError where
    they may be read in two ways.
    """
    (cells,) = _read(column.to_frame(), rules)
    guess = _guess(cells, rules, "numeric")
    if guess.rival:
        raise ConfigError("data.weight", column.name, f"may be read in two ways, {guess.rival}")
    return numbers(column, rules, guess.reading)


def _read(table: pl.DataFrame, rules: Rules) -> Iterator[Cells]:
    """table: the training rows of some of its columns."""
    texts, read = all_words(table, rules), parse_all(table, rules)
    known, text = without_blanks(texts), pl.all().str
    are_codes = known.select(text.contains(r"^[+-]?0\d[\d.,]*$").any()).row(0)
    are_clear = known.select(~(text.contains(MAY_BE_THOUSANDS).all() & text.contains(".", literal=True).any())).row(0)
    for values, text, word, parsed, *looks in zip(table, texts, known, read, are_codes, are_clear, strict=True):
        figures = with_nan(parsed)
        figures = np.where(np.abs(figures) <= LARGEST_NUMBER, figures, np.nan)
        yield Cells(values, text, word, figures, parsed.null_count() == word.null_count(), *looks)


def _judge(cells: Cells, rules: Rules, override: Kind | None, classes: NDArray[np.int64]) -> Verdict:
    values, text = cells.values, cells.text
    name, dtype = values.name, values.dtype
    if dtype.is_nested() or dtype in (pl.Binary, pl.Object, pl.Unknown):
        warning = f"column {name!r} holds {dtype} instead of single values and is left out"
        return Verdict(reason=f"holds {dtype}", warnings=(warning,))
    num_texts = len(text) - text.null_count()
    if not num_texts:
        warning = f"column {name!r} has no value in any training row and is left out"
        return Verdict(reason="all missing", warnings=(warning,))
    if text.n_unique() == 1:
        return Verdict(reason="constant")
    guess = _guess(cells, rules, override)
    match guess.kind:
        case "boolean":
            verdict = Verdict(Column(name, "boolean"))
        case "date":
            days = np.floor(with_nan(moments(values, guess.reading, rules).dt.epoch("us")) / 86.4e9)
            verdict = Verdict(Column(name, "date", origin=float(np.nanmedian(days)), format=guess.reading))
        case "numeric":
            figures = with_nan(numbers(values, rules, guess.reading)) if guess.reading else cells.figures
            marks = () if np.array_equal(figures, cells.figures, equal_nan=True) else tuple(guess.reading)
            verdict = _judge_numbers(name, figures, marks, may_be_identifier=not override)
        case "categorical":
            verdict = _judge_categories(name, text.drop_nulls(), may_be_identifier=not override)
    warnings = guess.warnings + verdict.warnings
    if verdict.column and _gives_away(cells, verdict.column, rules, classes):
        warnings += (
            f"column {name!r} nearly determines the target, which may be a leak; {setting('drop', name)} leaves it out",
        )
    return Verdict(verdict.column, verdict.reason, warnings)


def _judge_numbers(
    name: str, values: NDArray[np.float64], marks: tuple[str, ...], *, may_be_identifier: bool
) -> Verdict:
    """values: NaN where they are no numbers."""
    figures = values[~np.isnan(values)]
    if not len(figures):
        return Verdict(reason="all missing")
    distinct, spread = len(np.unique(figures)), np.ptp(figures)
    if distinct == 1 and len(figures) == len(values):
        return Verdict(reason="constant")
    is_index, are_many = INDEX_NAME.fullmatch(name), len(values) >= FEWEST_ROWS
    seems_so = is_index or (are_many and (spread < 3 * len(figures) or IDENTIFIER_NAME.search(name)))
    if may_be_identifier and seems_so and distinct == len(values) and (figures == np.round(figures)).all():
        problem = f"column {name!r} looks like an identifier (whole numbers, one for each row) and is left out;"
        return Verdict(reason="identifier", warnings=(f"{problem} {setting('numeric', name)} keeps it",))
    needs_origin = np.abs(figures).max() > 1000 * figures.std() or spread < FINEST_SPREAD
    origin = float(np.median(figures)) if needs_origin else 0.0
    scale = 1 / max(float(spread), 1e-300) if 0 < spread < FINEST_SPREAD else 1.0
    return Verdict(Column(name, "numeric", origin=origin, scale=scale, marks=marks))


def _judge_categories(name: str, texts: pl.Series, *, may_be_identifier: bool) -> Verdict:
    categories = texts.unique().sort()
    if may_be_identifier and len(categories) > 0.9 * len(texts) and len(texts) >= FEWEST_ROWS:
        problem = f"column {name!r} looks like an identifier ({len(categories)} texts in {len(texts)} rows)"
        warning = f"{problem} and is left out; {setting('categorical', name)} keeps it"
        return Verdict(reason="identifier", warnings=(warning,))
    warnings: tuple[str, ...] = ()
    if len(categories) > MANY_CATEGORIES:
        counts = f"{len(categories):,} categories in {len(texts):,} rows"
        warnings = (f"column {name!r} has {counts}; {setting('drop', name)} leaves it out, if it only identifies rows",)
    spellings = Counter(map(fold, categories))
    if alike := ", ".join(repr(each) for each in categories if spellings[fold(each)] > 1):
        warnings += (f"column {name!r} has categories that differ only in their spelling: {alike[:200]}",)
    return Verdict(Column(name, "categorical", categories=tuple(categories)), "", warnings)


def _guess(cells: Cells, rules: Rules, override: Kind | None = None) -> Guess:
    """Numbers that begin with 0, such as postal codes, are categories; so are whole ones that float64 does not tell
    apart.
    """
    dtype, known = cells.values.dtype, cells.known
    if override == "categorical" or dtype in (pl.Categorical, pl.Enum) or known.null_count() == len(known):
        return Guess(override or "categorical")
    if dtype == pl.Boolean:
        return Guess(override or "boolean")
    if dtype in (pl.Date, pl.Datetime):
        return Guess(override or "date", "")
    is_of_rules = bool(rules.dates) and not override and dtype == pl.String
    if is_of_rules and moments(known, rules.dates, rules).null_count() == known.null_count():
        return Guess("date", rules.dates)  # of digits alone too
    are_typed = dtype.is_numeric() or dtype in (pl.Duration, pl.Time)
    if are_typed or (cells.are_numbers and cells.are_clear):
        are_categories = (cells.are_codes and not are_typed) or _are_rounded(cells)
        return Guess(override or ("categorical" if are_categories else "numeric"))
    known = known.drop_nulls()
    if known.n_unique() <= 8 and not override and any(set(known.str.to_lowercase()) <= pair for pair in PAIRS):
        return Guess("boolean")
    guess = _look(known.filter(~known.str.contains(NOT_FINITE)), rules)
    if override or (cells.are_codes and guess.kind == "numeric"):
        return guess if guess.kind == override else Guess(override or "categorical")
    return guess


def _look(texts: pl.Series, rules: Rules) -> Guess:
    """The kind of texts, none of them missing, by the reading that most of them have."""
    counts = texts.value_counts(name="count").sort(texts.name)
    distinct, weights = counts.to_series(), counts["count"]
    numeric = [(Guess("numeric", way), way.values(distinct)) for way in readings(distinct, rules)]
    dates = [(Guess("date", way), moments(distinct, way, rules)) for way in _patterns(distinct, rules)]
    ways = [(int(weights.filter(values.is_not_null()).sum()), guess, values) for guess, values in (*numeric, *dates)]
    most, guess, values = max(ways, key=lambda way: way[0], default=(0, Guess("categorical"), distinct))
    are_varied = values.n_unique() > min(FEW_NUMBERS, len(texts) // 2) + 1
    if most < len(texts) and not (are_varied and most >= LIKELY * len(texts)):
        return Guess("categorical")
    name, warnings = texts.name, tuple[str, ...]()
    if most < CERTAIN * len(texts):
        odd = distinct.filter(values.is_null()).to_list()[:3]
        share = f"{most / len(texts):.0%} of its values are {NOUNS[guess.kind]}"
        remedy = f"{listed('missing', [*rules.missing, *odd])} takes {', '.join(map(repr, odd))} as missing"
        return Guess("categorical", warnings=(f"column {name!r} is categorical, though {share}; {remedy}",))
    if "%y" in guess.reading:
        warnings = (f"column {name!r}: years of two digits are from 1970 to 2069",)
    for count, other, others in ways:
        if count == most and other.kind == guess.kind and not others.equals(values):
            place = (others != values).arg_true()[0]
            rival = _rival(distinct[place], (guess, values[place]), (other, others[place]))
            return guess._replace(
                rival=rival, warnings=(*warnings, f"column {name!r}: {rival}; the first reading is used")
            )
    return guess._replace(warnings=warnings)


def _rival(text: str, first: tuple[Guess, Any], second: tuple[Guess, Any]) -> str:
    """How two readings differ on a text, in words, and the setting that chooses the second."""
    (one, value), (other, another) = first, second
    if one.kind == "date":
        return f"{text!r} may be read as {one.reading} or {other.reading} (with \"data.dates='{other.reading}'\")"
    return f"{text!r} may be read as {value:.15g} or {another:.15g} (with {other.reading.settings(one.reading)})"


def _patterns(distinct: pl.Series, rules: Rules) -> Sequence[str]:
    """The date patterns that at least half of a sample of texts seem to follow: the rules', if it is one."""
    if rules.dates and 2 * moments(distinct, rules.dates, rules).count() >= len(distinct):
        return [rules.dates]
    sample = [text.replace(", ", " ") for text in distinct.gather_every(max(1, len(distinct) // SAMPLE))]
    shapes = [(pattern, re.compile(rf"(?:[A-Z][a-z]+ )?{shape(pattern)}(?:[ T].*)?$")) for pattern in DATES]
    return [name for name, found in shapes if 2 * sum(map(bool, map(found.match, sample))) >= len(sample)]


def _are_rounded(cells: Cells) -> bool:
    """Whether whole numbers are so large that some are the same as float64."""
    figures = cells.figures[~np.isnan(cells.figures)]
    if not len(figures) or np.abs(figures).max() <= MOST_FAITHFUL:
        return False
    distinct = cells.known.drop_nulls().unique()
    return bool(distinct.str.contains(r"^[+-]?\d+$").all()) and len(np.unique(figures)) < len(distinct)


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

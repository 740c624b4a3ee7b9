from __future__ import annotations

import datetime
import math
from typing import Any

import polars as pl
import pytest

from neurona.tables.schema import Rules
from neurona.tables.values import (
    all_numbers,
    all_words,
    blocks,
    moments,
    numbers,
    parse_all,
    shape,
    truths,
    without_blanks,
    words,
)

SECOND = datetime.timedelta(seconds=1)


@pytest.mark.parametrize(
    ("values", "texts"),
    [
        ([" a ", "", "NA", None, "3.0", "3.05"], ["a", None, None, None, "3", "3.05"]),
        ([1.0, -2.5, None], ["1", "-2.5", None]),
        ([True, False], ["true", "false"]),
        ([[1, 2], None], ["[1, 2]", None]),
        ([b"a", None], ["b'a'", None]),
    ],
)
def test_words(values: list[Any], texts: list[str | None]) -> None:
    assert words(pl.Series(values), Rules()).to_list() == texts


def test_nan_is_no_word_and_a_whole_number_among_the_rules_is_one_however_it_is_printed() -> None:
    rules = Rules(missing=("unknown", "-999.0"))
    assert words(pl.Series([1.5, math.nan, -999.0]), rules).to_list() == ["1.5", None, None]
    assert words(pl.Series(["-999.0", "-999", "NaN"]), rules).to_list() == [None, None, "NaN"]


def test_the_words_for_no_value_are_those_of_the_rules() -> None:
    assert words(pl.Series(["NA", "-", ""]), Rules(missing=("-",))).to_list() == ["NA", None, None]


@pytest.mark.parametrize(
    ("values", "rules", "figures"),
    [
        (["1e3", "x", "inf", "1e38", "nan", "?"], Rules(), [1000, None, None, None, None, None]),
        (["1.234,5", "1.23", "1234"], Rules(decimal=",", thousands="."), [1234.5, None, 1234]),
        (["1,234,567", "1,5"], Rules(thousands=","), [1234567, None]),
        ([True, False], Rules(), [1, 0]),
        ([1.5 * SECOND, None], Rules(), [1.5, None]),
        ([datetime.time(1, 0, 2)], Rules(), [3602]),
    ],
)
def test_numbers(values: list[Any], rules: Rules, figures: list[float | None]) -> None:
    assert numbers(pl.Series(values), rules).to_list() == figures


def test_all_columns_at_once_are_read_as_each_alone() -> None:
    table = pl.DataFrame(
        {
            "^t.*$": [" 3.0", "NA", "1e40"],  # no pattern
            "number": [3.0, float("nan"), None],
            "whole": [1, 2, 3],
            "flag": [True, None, False],
            "list": [[1], None, [2, 3]],
            "time": [datetime.time(1), None, datetime.time(2)],
            "span": [SECOND, 2 * SECOND, None],
            "day": [datetime.date(2020, 1, 1), None, datetime.date(2020, 1, 2)],
            "nothing": [None, None, None],
        }
    )
    rules = Rules(missing=("NA", "2"))
    for every, single in ((all_words, words), (all_numbers, numbers)):
        together = every(table, rules)
        assert together.equals(pl.DataFrame([single(column, rules) for column in table]))
        assert together.columns == table.columns
    assert all_words(table, rules)["^t.*$"].to_list() == ["3", None, "1e40"]
    assert all_numbers(table, rules)["^t.*$"].to_list() == [3, None, None]
    assert parse_all(table, rules)["^t.*$"].to_list() == [3, None, 1e40]
    assert all_numbers(table, rules)["whole"].to_list() == [1, None, 3]  # a number for no value is one in typed columns


@pytest.mark.parametrize(("rows", "sizes"), [(2**20 // 3, [3, 3, 1]), (2**30, [1] * 7), (10, [7]), (0, [7])])
def test_columns_are_read_as_many_at_once_as_memory_allows(rows: int, sizes: list[int]) -> None:
    parts = list(blocks("abcdefg", rows))
    assert [len(part) for part in parts] == sizes
    assert "".join(parts) == "abcdefg"


def test_truths() -> None:
    assert truths(pl.Series(["Yes", "T", "1", "no", "F", "0", "maybe", "NA"]), Rules()).to_list() == [
        *[1, 1, 1, 0, 0, 0],
        *[None, None],
    ]


@pytest.mark.parametrize(
    ("text", "pattern", "moment"),
    [
        ("29.02.2020", "%d.%m.%Y", datetime.datetime(2020, 2, 29)),
        ("2020-02-29T10:00:00+02:00", "%Y-%m-%dT%H:%M:%S%.f%#z", datetime.datetime(2020, 2, 29, 8)),
        ("2020-02-29 10:30", "", datetime.datetime(2020, 2, 29, 10, 30)),
        ("30.02.2020", "%d.%m.%Y", None),
        ("20.02.20", "%d.%m.%Y", None),
        ("20.02.20", "%d.%m.%y", datetime.datetime(2020, 2, 20)),
        ("03/15/2023 12:29 PM", "%m/%d/%Y", datetime.datetime(2023, 3, 15, 12, 29)),
        ("03/15/2023 12:29:10a.m.", "%m/%d/%Y", datetime.datetime(2023, 3, 15, 0, 29, 10)),
        ("Mar 5, 2023", "%B %d %Y", datetime.datetime(2023, 3, 5)),
        ("Sun, 5 March 2023 10:00:00 GMT", "%d %B %Y", datetime.datetime(2023, 3, 5, 10)),
        ("2020-02-29 10:00:00.25 +0200", "%Y-%m-%d", datetime.datetime(2020, 2, 29, 8, 0, 0, 250000)),
        ("NA", "", None),
    ],
)
def test_moments(text: str, pattern: str, moment: datetime.datetime | None) -> None:
    assert moments(pl.Series([text]), pattern, Rules()).to_list() == [moment]


def test_a_pattern_is_narrower_than_polars_reads_it() -> None:
    assert shape("%d.%m.%Y") == r"\d{1,2}\.\d{1,2}\.\d{4}"


def test_words_for_no_value_among_numbers() -> None:
    table = pl.DataFrame({"a": ["-", "Unknown", "1", "no"]})
    assert without_blanks(table)["a"].to_list() == [None, None, "1", "no"]

"""The matrix that rows become, against values worked out by hand."""

from __future__ import annotations

import datetime
import math

import numpy as np
import polars as pl
import pytest

from neurona.errors import DataError
from neurona.tables.matrix import decode, encode
from neurona.tables.schema import Column, Schema, layout

COLUMNS = (
    Column("kind", "categorical", ("a", "b")),
    Column("when", "date", format="%Y-%m-%d %H:%M", origin=1.0),
    Column("big", "numeric", origin=1.7e9),
    Column("flag", "boolean"),
)
SCHEMA = Schema(COLUMNS, "y")
ROWS = pl.DataFrame(
    {
        "kind": ["b", None, " a", "zzz"],
        "big": ["1700000000.25", "1700000001.5", "inf", "x"],
        "when": ["1970-01-02 06:30", "2000-02-29 00:00", "NA", "1999-13-01 00:00"],
        "flag": ["Yes", "no", "?", "maybe"],
        "extra": [1, 2, 3, 4],
    }
)


def test_the_matrix() -> None:
    matrix, nan = encode(ROWS, SCHEMA), np.nan
    assert matrix.dtype == np.float32
    expected = [
        [0, 1, 2, 5, 6.5, 0.25, 1, 2],  # the second day of 1970 was a Friday
        [11016 - 1, 2, 29, 2, 0, 1.5, 0, 0],  # a Tuesday
        [nan, nan, nan, nan, nan, nan, nan, 1],
        [nan, nan, nan, nan, nan, nan, nan, 0],
    ]
    np.testing.assert_array_equal(matrix, np.array(expected, dtype=np.float32))
    assert layout(SCHEMA) == (7, (3,), ("when",) * 5 + ("big", "flag", "kind"))
    with pytest.raises(DataError, match=r"new\.csv: has no column 'kind', 'flag'"):
        encode(ROWS.drop("flag", "kind"), SCHEMA, "new.csv")


def test_far_from_training_numbers_that_hardly_varied_is_finite() -> None:
    schema = Schema((Column("x", "numeric", scale=1e300),), "y")
    assert encode(pl.DataFrame({"x": [1.0, -1e10, 1e-300, None]}), schema)[:, 0].tolist()[:3] == pytest.approx(
        [1e37, -1e37, 1.0]
    )


def test_people_read_the_values_as_the_table_had_them() -> None:
    names, cells = decode(encode(ROWS, SCHEMA).astype(float), SCHEMA)
    assert names == ["when", "big", "flag", "kind"]
    assert cells == [
        ["1970-01-02", "1.7e+09", "1", "b"],
        ["2000-02-29", "1.7e+09", "0", "other or missing"],
        ["", "", "", "a"],
        ["", "", "", "other or missing"],
    ]


def test_numbers_are_read_by_their_marks_and_scaled_in_float64() -> None:
    columns = Column("x", "numeric", marks=(",", ".", "", "€")), Column("z", "numeric", origin=1e-40, scale=1e40)
    table = pl.DataFrame({"x": ["1.234,5 €", "(2 €)", "7"], "z": [1e-40, 2e-40, 3e-40]})
    matrix = encode(table, Schema(columns, "y"))
    np.testing.assert_allclose(matrix, [[1234.5, 0], [-2, 1], [np.nan, 2]], rtol=1e-6)
    assert decode(matrix.astype(float), Schema(columns, "y"))[1][1] == ["-2", "2e-40"]


def test_typed_columns_are_encoded_as_their_text() -> None:
    columns = (
        Column("n", "numeric"),
        Column("b", "boolean"),
        Column("d", "date", format="%Y-%m-%d"),
        Column("c", "categorical", ("1", "2")),
    )
    texts = {"n": ["1.5", None], "b": ["true", "false"], "d": ["2020-01-05", "2021-06-07"], "c": ["2", "3"]}
    days = [datetime.date(2020, 1, 5), datetime.date(2021, 6, 7)]
    typed = {"n": [1.5, math.nan], "b": [True, False], "d": days, "c": [2.0, 3.0]}
    schema = Schema(columns, "y")
    np.testing.assert_array_equal(encode(pl.DataFrame(texts), schema), encode(pl.DataFrame(typed), schema))
    texts["d"] = ["2020-01-05 00:00", "2021-06-07T00:00:00.000000+0000"]  # dates in training, text now
    later = Schema((Column("d", "date"),), "y")
    np.testing.assert_array_equal(encode(pl.DataFrame(texts), later), encode(pl.DataFrame(typed), later))
    zoned = pl.Series("d", ["2020-01-05T01:00:00+02:00"]).str.to_datetime("%Y-%m-%dT%H:%M:%S%#z")
    np.testing.assert_array_equal(encode(pl.DataFrame({"d": zoned}), Schema(columns[2:3], "y")), [[18265, 1, 4, 6, 23]])

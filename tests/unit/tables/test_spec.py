from __future__ import annotations

import json
from typing import Any

import numpy as np
import polars as pl
import pytest

from neurona.errors import DataError
from neurona.tables.schema import Column, Rules, Schema
from neurona.tables.spec import TableSpec

COLUMNS = (Column("colour", "categorical", ("blue", "red")), Column("size", "numeric"))


@pytest.fixture
def spec() -> TableSpec:
    schema = Schema(COLUMNS, "y", rules=Rules(decimal=","))
    return TableSpec(3, 2, ("false", "true"), schema=json.loads(json.dumps(schema.as_dict())))


@pytest.mark.parametrize(
    "features",
    [
        pl.DataFrame({"size": ["1,5", None], "extra": [1, 2], "colour": ["red", "green"]}),
        {"size": [1.5, None], "colour": ["red", "green"]},
        [{"colour": "red", "size": "1,5"}, {"colour": "green", "size": None}],
        np.array([["red", "1,5"], ["green", None]], dtype=object),
    ],
)
def test_rows_are_the_numbers_then_the_ids(spec: TableSpec, features: Any) -> None:
    assert spec.columns == ["colour", "size"]
    np.testing.assert_array_equal(spec.rows(features), np.array([[1.5, 2], [np.nan, 0]], dtype=np.float32))


def test_a_column_that_is_not_there_is_named(spec: TableSpec) -> None:
    with pytest.raises(DataError, match="features: has no column 'size'"):
        spec.rows({"colour": ["red"]})


@pytest.mark.parametrize("targets", [[True, False], ["true", "false"], np.array([True, False])])
def test_targets_are_names_as_the_table_holds_them(spec: TableSpec, targets: Any) -> None:
    assert spec.matches(np.array(["true", "true"]), targets).tolist() == [True, False]


def test_cells_are_for_people(spec: TableSpec) -> None:
    names, cells = spec.cells(np.array([[1.5, 2], [np.nan, 0]]))
    assert (names, cells) == (["size", "colour"], [["1.5", "red"], ["", "other or missing"]])


def test_a_damaged_schema_raises() -> None:
    with pytest.raises((KeyError, TypeError)):
        TableSpec(3, 2, ("a", "b"), schema={"columns": []})

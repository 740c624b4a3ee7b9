from __future__ import annotations

import datetime
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
    with pytest.warns(UserWarning, match="column 'colour': 1 of 2 values are not known from training, such as 'green'"):
        rows = spec.rows(features)
    np.testing.assert_array_equal(rows, np.array([[1.5, 2], [np.nan, 0]], dtype=np.float32))


def test_what_python_gives_is_told_of_where_it_is_not_read(spec: TableSpec) -> None:
    with pytest.warns(UserWarning, match="values are not") as told:
        spec.rows({"size": ["forty", "1,5", "2 kg", "unknown"], "colour": ["RED", "red", " blue", "Blue"]})
    assert sorted(str(warning.message) for warning in told) == [
        "column 'colour': 2 of 4 values are not known from training, such as 'Blue' ('blue' in training), "
        "'RED' ('red' in training); they count as other",
        "column 'size': 2 of 4 values are not numbers, such as '2 kg', 'forty'; they count as missing",
    ]


class Pandas:
    """The part of a pandas frame that is asked for."""

    def __init__(self, **columns: list[Any]) -> None:
        self.content, self.columns = columns, list(columns)

    def __getitem__(self, name: str) -> Any:
        return np.array(self.content[name], dtype=object)


class NaTType:
    """Called as pandas' own."""


def test_values_that_pandas_has_for_none_are_missing() -> None:
    schema = Schema((Column("day", "date", format="%Y-%m-%d"),), "y")
    spec = TableSpec(5, 2, ("a", "b"), schema=schema.as_dict())
    day = datetime.datetime(1970, 1, 2)
    assert spec.rows(Pandas(day=[day, NaTType()]))[:, 0].tolist() == pytest.approx([1, np.nan], nan_ok=True)


def test_a_column_twice_is_refused(spec: TableSpec) -> None:
    frame = Pandas(size=["1"], colour=["red"])
    frame.columns.append("size")
    with pytest.raises(DataError, match="features: has more than one column of the name 'size'"):
        spec.rows(frame)


def test_an_array_may_have_the_tables_columns_or_those_used() -> None:
    schema = Schema(COLUMNS[1:], "y", {"c": "constant"}, features=("c", "size"))
    spec = TableSpec(1, 2, ("a", "b"), schema=json.loads(json.dumps(schema.as_dict())))
    for array in (np.array([[7.0, 1.5]]), np.array([[1.5]])):
        assert spec.rows(array).tolist() == [[1.5]]
    with pytest.raises(DataError, match=r"the shape \(1, 3\); the run was trained with the 1 columns size"):
        spec.rows(np.zeros((1, 3)))


def test_a_column_that_is_not_there_is_named(spec: TableSpec) -> None:
    with pytest.raises(DataError, match="features: has no column 'size'"):
        spec.rows({"colour": ["red"]})


@pytest.mark.parametrize(
    ("targets", "right"),
    [
        ([["true"], ["false"]], [True, False]),
        (pl.DataFrame({"y": [True, False]}), [True, False]),
        (["true", None], [True]),
    ],
)
def test_targets_may_be_a_column_and_lack_labels(spec: TableSpec, targets: Any, right: list[bool]) -> None:
    assert spec.matches(np.array(["true", "true"]), targets).tolist() == right


@pytest.mark.parametrize(
    ("targets", "problem"),
    [
        (["ja", "true"], "targets: hold 'ja'; the classes are 'false', 'true'"),
        (["true"], r"have the shape \(1,\); \(2,\) or \(rows, 1\) is needed"),
        ([["true", "true"]] * 2, r"have the shape \(2, 2\)"),
        ([None, None], "hold no label"),
    ],
)
def test_other_targets_are_refused(spec: TableSpec, targets: Any, problem: str) -> None:
    with pytest.raises(DataError, match=problem):
        spec.matches(np.array(["true", "true"]), targets)


@pytest.mark.parametrize("targets", [[True, False], ["true", "false"], np.array([True, False])])
def test_targets_are_names_as_the_table_holds_them(spec: TableSpec, targets: Any) -> None:
    assert spec.matches(np.array(["true", "true"]), targets).tolist() == [True, False]


def test_cells_are_for_people(spec: TableSpec) -> None:
    names, cells = spec.cells(np.array([[1.5, 2], [np.nan, 0]]))
    assert (names, cells) == (["size", "colour"], [["1.5", "red"], ["", "other or missing"]])


def test_a_damaged_schema_raises() -> None:
    with pytest.raises((KeyError, TypeError)):
        TableSpec(3, 2, ("a", "b"), schema={"columns": []})

from __future__ import annotations

import json
from typing import Any

import numpy as np
import polars as pl
import pytest

from neurona.tables.data_card import card, text
from neurona.tables.schema import Column, Schema

TABLE = pl.DataFrame(
    {
        "size": ["1", "NA", "4", "7", "999"],
        "colour": ["red", "blue", "red", None, "green"],
        "y": ["no", "no", "yes", "yes", "NA"],
    }
)
SCHEMA = Schema(
    (Column("size", "numeric"), Column("colour", "categorical", ("blue", "red"))),
    "y",
    {"id": "identifier"},
    warnings=("w",),
)
TARGETS = np.array([0, 0, 1, 1, -1])
PARTS = {"train": np.array([0, 1, 2]), "val": np.array([3]), "test": np.array([], dtype=np.int64)}


@pytest.fixture
def contents() -> dict[str, Any]:
    return card(TABLE, SCHEMA, ("no", "yes"), TARGETS, PARTS)


def test_columns_are_counted_on_the_training_rows(contents: dict[str, Any]) -> None:
    assert contents["columns"] == [
        {"name": "size", "kind": "numeric", "missing": 1, "min": 1.0, "median": 2.5, "max": 4.0},
        {"name": "colour", "kind": "categorical", "missing": 0, "distinct": 2, "most_frequent": {"red": 2, "blue": 1}},
    ]
    assert contents["rows"] == {"train": 3, "val": 1, "test": 0, "without_label": 1}
    assert contents["classes"] == {"no": {"train": 2, "val": 0, "test": 0}, "yes": {"train": 1, "val": 1, "test": 0}}
    assert contents["left_out"] == {"id": "identifier"}
    assert json.loads(json.dumps(contents)) == contents


def test_what_is_odd_about_the_labels_is_named(contents: dict[str, Any]) -> None:
    assert contents["warnings"] == [
        "rows without a label, which are left out: 1 (data.missing has 'NA')",
        "the val part has no row of class 'no'",
        "w",
    ]


def test_the_text(contents: dict[str, Any]) -> None:
    assert text(contents).splitlines() == [
        "column  kind         missing  values in training",
        "size    numeric        33.3%  1 to 4, median 2.5",
        "colour  categorical        -  2: red, blue",
        "id      left out: identifier",
        "target 'y': no 66.7%, yes 33.3% of the training rows",
        "rows: 3 train, 1 val, 1 without label",
    ]
    assert "… and 1 more in data_card.txt" in text(contents, most_columns=1)

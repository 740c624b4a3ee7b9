"""Rows, class names and cells as people and Python see them."""

from __future__ import annotations

import numpy as np
import pytest

from neurona.data.spec import DataSpec
from neurona.errors import DataError

SPEC = DataSpec(4, 3, ("rose", "lily", "7"), image_shape=(2, 2))


@pytest.mark.parametrize("features", [[[1, 2, 3, 4.5]], [[[1, 2], [3, 4.5]]], np.array([[1, 2, 3, 4.5]])], ids=type)
def test_rows_are_float32_whatever_holds_them(features: object) -> None:
    rows = SPEC.rows(features)
    assert rows.dtype == np.float32
    assert rows.flags.c_contiguous
    np.testing.assert_array_equal(rows, [[1, 2, 3, 4.5]])


def test_bytes_stay_bytes() -> None:
    rows = SPEC.rows(np.array([[[0, 255], [7, 1]]], np.uint8))
    assert rows.dtype == np.uint8
    np.testing.assert_array_equal(rows, [[0, 255, 7, 1]])


@pytest.mark.parametrize(
    ("features", "problem"),
    [
        ([[1, 2, 3]], r"have the shape \(1, 3\); the run was trained with \(rows, 4\)"),
        ([1, 2, 3, 4], r"have the shape \(4,\)"),
        ([["a", "b", "c", "d"]], "must be numbers"),
    ],
)
def test_other_features_are_refused(features: object, problem: str) -> None:
    with pytest.raises(DataError, match=problem):
        SPEC.rows(features)


def test_classes_are_matched_by_name_or_by_their_index() -> None:
    predicted = np.array(["rose", "7", "lily"])
    assert SPEC.matches(predicted, ["rose", "7", "rose"]).tolist() == [True, True, False]
    assert SPEC.matches(predicted, [0, 2, 0]).tolist() == [True, True, False]


def test_cells_are_numbered_columns_and_short_numbers() -> None:
    assert SPEC.cells(np.array([[0.5, 16.0], [1e-7, 2.0]])) == (
        ["feature 0", "feature 1"],
        [["0.5", "16"], ["1e-07", "2"]],
    )
    assert SPEC.columns == []

from __future__ import annotations

import re
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch

from neurona.errors import ConfigError, DataError
from neurona.tables.arrays import ArrayImages, ArrayTable, frame

ROWS = np.random.default_rng(0).normal(size=(40, 3))
LABELS = np.repeat(["no", "yes"], 20)


def table(X: Any, y: Any, **arrays: Any) -> ArrayTable:
    settings = {name: arrays.pop(name) for name in ("target", "val_path", "test_fraction") if name in arrays}
    data = ArrayTable(arrays={"X": X, "y": y, **arrays}, **settings)
    data.setup()
    return data


@pytest.mark.parametrize(
    "X",
    [
        ROWS,
        ROWS.tolist(),
        torch.tensor(ROWS),
        ROWS.astype(object),
        pl.DataFrame(ROWS, schema=["x0", "x1", "x2"]),
        pl.LazyFrame(ROWS, schema=["x0", "x1", "x2"]),
        {f"x{i}": ROWS[:, i] for i in range(3)},
        [{f"x{i}": value for i, value in enumerate(row)} for row in ROWS.tolist()],
    ],
)
@pytest.mark.parametrize("y", [LABELS, LABELS.tolist(), LABELS[:, None], pl.Series("z", LABELS), LABELS.astype(object)])
def test_rows_of_every_kind_are_the_same_table(X: Any, y: Any) -> None:
    data = table(X, y)
    np.testing.assert_array_equal(data.features.numpy(), ROWS.astype(np.float32))
    assert data.spec.class_names == ("no", "yes")
    assert data.targets.tolist() == [0] * 20 + [1] * 20
    assert data.fingerprint == table(ROWS, LABELS).fingerprint
    assert data.fingerprint != table(-ROWS, LABELS).fingerprint


@pytest.mark.parametrize(
    ("y", "names"),
    [
        (torch.arange(40) % 11 - 1, tuple(map(str, range(-1, 10)))),  # as numbers, not as words
        (np.arange(40.0) % 2, ("0", "1")),
        (np.arange(40) % 2 == 0, ("false", "true")),
    ],
)
def test_labels_are_any(y: Any, names: tuple[str, ...]) -> None:
    assert table(ROWS, y).spec.class_names == names


def test_columns_have_their_kinds_and_missing_values_are_told() -> None:
    values = {
        "number": [1.5, None, np.inf, *range(37)],
        "word": [*"abc", None] * 10,
        "yes": [True, False] * 20,
        "code": pl.Series([1, 2] * 20).cast(pl.String).cast(pl.Categorical),
    }
    data = table(values, LABELS)
    assert data.schema is not None
    kinds = {column.name: column.kind for column in data.schema.columns}
    assert kinds == {"number": "numeric", "word": "categorical", "yes": "boolean", "code": "categorical"}
    assert data.card is not None
    assert any("values are not numbers, such as 'inf'; they count as missing" in line for line in data.card["warnings"])
    assert int(data.features[:, 0].isnan().sum()) == 2


def test_pandas_own_categories_stay_categories() -> None:
    pandas = pytest.importorskip("pandas")
    data = table(pandas.DataFrame({"a": pandas.Categorical([1, 2] * 20), "b": ROWS[:, 0]}), pandas.Series(LABELS))
    assert data.schema is not None
    assert [(column.name, column.kind) for column in data.schema.columns] == [("a", "categorical"), ("b", "numeric")]
    data = table(pandas.DataFrame({"a": pandas.cut(ROWS[:, 0], 3), "b": ROWS[:, 0]}), pandas.Series(LABELS))
    assert data.schema is not None
    assert [len(column.categories) for column in data.schema.columns] == [3, 0]


def test_rows_of_ones_own_validate() -> None:
    data = table(ROWS, LABELS, X_val=ROWS[:5] + 1, y_val=["no", "yes", None, "no", "yes"], test_fraction=0.2)
    assert data.val_rows.tolist() == [40, 41, 43, 44]
    assert len(data.train_rows) == 32
    assert data.has_validation


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"y": LABELS[:-1]}, "y: has 39 for the 40 rows of X; give one for each"),
        ({"X": ROWS[:0], "y": LABELS[:0]}, "X: has no rows"),
        ({"X": ROWS[:, 0]}, r"X: has the shape \(40,\); a table needs \(rows, columns\)"),
        ({"X": None}, r"X: has the shape \(\)"),
        ({"X": [[1, 2], [3]]}, "X: cannot be made an array"),
        ({"X": ROWS[:, :0]}, "no column is left to predict 'y' from"),
        ({"y": np.eye(2)[np.arange(40) % 2]}, r"y: has the shape \(40, 2\); .* of one-hot rows give y.argmax\(1\)"),
        ({"y": np.zeros(40)}, "column 'y' has only one class, '0'"),
        ({"y": ROWS[:, 0]}, "probably regression"),
        ({"X_val": ROWS[:5]}, "y_val: is missing; give one for each row"),
        ({"X_val": ROWS[:5], "y_val": LABELS[:4]}, "y_val: has 4 for the 5 rows of X_val"),
        ({"X_val": ROWS[:5, :2], "y_val": LABELS[:5]}, "X_val: has no column 'x2'"),
        ({"X_val": ROWS[:5], "y_val": ["maybe"] * 5}, "X_val: labels 'maybe' in column 'y'"),
    ],
)
def test_mistakes(arrays: dict[str, Any], message: str) -> None:
    with pytest.raises(DataError, match=message):
        table(**{"X": ROWS, "y": LABELS, **arrays})


def test_a_sparse_matrix_is_refused_by_name() -> None:
    sparse = pytest.importorskip("scipy.sparse")
    with pytest.raises(DataError, match=r"X: is sparse, a csr_array; give X.toarray\(\)"):
        table(sparse.csr_array(ROWS), LABELS)


def test_names_that_are_taken() -> None:
    columns = {"y": ROWS[:, 0], "z": ROWS[:, 1]}
    with pytest.raises(ConfigError, match=r"data.target=y: is a column of X too; .* data.target=label"):
        table(columns, LABELS)
    assert table(columns, LABELS, target="label").spec.columns == ["y", "z"]
    with pytest.raises(ConfigError, match="does not go with X_val"):
        table(ROWS, LABELS, X_val=ROWS, y_val=LABELS, val_path="val.csv")


IMAGES = np.random.default_rng(0).integers(0, 256, (40, 3, 2), dtype=np.uint8)


def images(X: Any, y: Any, **arrays: Any) -> ArrayImages:
    data = ArrayImages(arrays={"X": X, "y": y, **arrays})
    data.setup()
    return data


@pytest.mark.parametrize("X", [IMAGES, torch.tensor(IMAGES)])
def test_images_stay_bytes(X: Any) -> None:
    data = images(X, LABELS)
    np.testing.assert_array_equal(data.features.numpy(), IMAGES.reshape(40, 6))
    assert (data.spec.image_shape, data.spec.class_names) == ((3, 2), ("no", "yes"))
    assert (len(data.train_rows), len(data.val_rows), len(data.test_rows)) == (28, 4, 8)


def test_images_of_other_numbers_and_ones_own_validation() -> None:
    data = images(IMAGES / 2, LABELS, X_val=IMAGES[:4] / 2, y_val=LABELS[:4])
    assert data.features.dtype == torch.float32
    assert data.val_rows.tolist() == [40, 41, 42, 43]
    assert len(data.train_rows) == 32


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"X": IMAGES[:0]}, r"X: has the shape \(0, 3, 2\); that of images is \(rows, height, width\)"),
        ({"X": IMAGES.astype(str).astype(object) + "a"}, "X: must be numbers"),
        ({"y": LABELS[:-1]}, "y: has 39 for the 40 rows of X"),
        ({"y": [None, *LABELS[1:]]}, "y: has 39 for the 40 rows of X"),
        ({"X_val": IMAGES[:4] / 2, "y_val": LABELS[:4]}, r"X_val: holds images \(3, 2\) of float32, and X .* of uint8"),
        ({"X_val": IMAGES[:4], "y_val": ["maybe"] * 4}, "y_val: labels 'maybe'"),
        ({"X_val": IMAGES[:4, None], "y_val": LABELS[:4]}, r"without their one channel: X_val\.squeeze\(1\)"),
    ],
)
def test_mistakes_with_images(arrays: dict[str, Any], message: str) -> None:
    with pytest.raises(DataError, match=message):
        images(**{"X": IMAGES, "y": LABELS, **arrays})


@pytest.mark.parametrize(
    ("X", "shape"), [(IMAGES[:, None], (40, 3, 2)), (IMAGES[..., None], (40, 3, 2)), (np.zeros((9, 3, 4, 5)), (9, 60))]
)
@pytest.mark.parametrize("kind", [np.asarray, torch.tensor])
def test_arrays_of_four_dimensions_get_two_or_three_as_the_message_says(X: Any, shape: Any, kind: Any) -> None:
    with pytest.raises(DataError) as raised:
        frame(kind(X), "X")
    (remedy,) = re.findall(r"X\.\w+\(.*\d\)", str(raised.value))
    assert tuple(eval(remedy, {"X": kind(X)}).shape) == shape

"""Rows that Python holds: a table of columns or of numbers, or images, with a label for each row."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import polars as pl
import torch
from numpy.typing import NDArray

from neurona.data.base import InMemoryData, Table
from neurona.data.preprocessing import Scaling
from neurona.errors import ConfigError, DataError
from neurona.tables import reading
from neurona.tables.labels import Labels, codes
from neurona.tables.schema import Rules
from neurona.tables.table import TableData

Arrays = Mapping[str, Any]
"""X and y; X_val and y_val, a published validation part, where there is one."""


@dataclass(kw_only=True, eq=False, repr=False)
class ArrayTable(TableData):
    """A table in memory. arrays: X, a polars or pandas frame, a mapping of columns, a list of mappings, or what
    ``numpy.asarray`` makes (rows, columns) of, then called x0, x1 …; y, one label a row, called ``target``; and X_val
    and y_val. path: a file in their place, for a network that is trained. The other parameters are ``TableData``'s.
    """

    takes_arrays: ClassVar[bool] = True

    path: str | None = None  # type: ignore[assignment]
    target: str | int = "y"
    arrays: Arrays | None = None

    def __post_init__(self) -> None:
        if has_part(self.arrays, "val"):
            if self.val_path is not None:
                raise ConfigError("data.val_path", self.val_path, "does not go with X_val, which validates")
            self.val_path = "X_val"
        self.path = self.path or "X"
        super().__post_init__()

    def table(self, path: str) -> pl.DataFrame:
        if self.arrays is None or path not in self.arrays:
            return super().table(path)
        return frame(self.arrays, path, self._target)


@dataclass(kw_only=True, eq=False, repr=False)
class ArrayImages(InMemoryData):
    """Images in memory. arrays: X, (rows, height, width), bytes or other numbers; y, one label a row; X_val and y_val.
    The other parameters are ``InMemoryData``'s.
    """

    takes_arrays: ClassVar[bool] = True

    batch_size: int = 128
    scaling: Scaling = "unit"
    arrays: Arrays | None = None

    @property
    def has_validation(self) -> bool:
        return has_part(self.arrays, "val") or super().has_validation

    def read(self) -> Table:
        assert self.arrays is not None
        names = [name for name in ("X", "X_val") if self.arrays.get(name) is not None]
        images = [_images(self.arrays[name], name) for name in names]
        if len({(part.shape[1:], part.dtype) for part in images}) > 1:
            raise DataError("X_val", f"holds images {_kind(images[1])}, and X {_kind(images[0])}; give the same")
        reader = Labels("y", Rules())
        labels = [reader.read(labels_of(self.arrays, name, "y").to_frame()) for name in names]
        class_names = reader.class_names(labels[0], "y")
        for name, part, column in zip(names, images, labels, strict=True):
            if len(part) != len(column) or column.null_count():
                raise _unlabelled(name, len(part), len(column) - column.null_count())
            reader.check(column, class_names, name.replace("X", "y"))
        targets = torch.from_numpy(np.concatenate([codes(column, class_names) for column in labels]))
        num_val = len(images[1]) if len(images) > 1 else 0
        features = torch.from_numpy(np.concatenate(images)).flatten(1)
        parts = self.split(targets, class_names, 0, num_val=num_val)
        return Table(features, targets, class_names, tuple(images[0].shape[1:]), parts=parts)


def has_part(arrays: Arrays | None, part: str) -> bool:
    return arrays is not None and arrays.get(f"X_{part}") is not None


def frame(arrays: Arrays, name: str, target: str) -> pl.DataFrame:
    """The columns of X or X_val with the labels as another one. Raises DataError naming what is wrong."""
    features, columns = on_cpu(arrays[name], name), list[str]()
    if isinstance(features, np.ndarray):
        if features.ndim != 2:
            problem = f"has the shape {features.shape}; a table's is (rows, columns), that of images an array's (rows,"
            raise DataError(name, f"{problem} height, width); {name}.reshape(len({name}), -1) makes columns of others")
        columns = [f"x{column}" for column in range(features.shape[1])]
    table = reading.from_python(features, [columns], name)
    types = {str(column): str(features[column].dtype) for column in getattr(features, "columns", ())}
    categories = [column for column, kind in types.items() if kind == "category"]  # pandas'
    table = table.with_columns(pl.col(categories).cast(pl.String).cast(pl.Categorical))
    labels = labels_of(arrays, name, target)
    if len(labels) != table.height or not table.height:
        raise _unlabelled(name, table.height, len(labels))
    if target in table.columns:
        raise ConfigError(
            "data.target", target, f"is a column of {name} too; call y otherwise, as in data.target=label"
        )
    return table.with_columns(labels)


def labels_of(arrays: Arrays, name: str, target: str) -> pl.Series:
    """y or y_val as a column called ``target``."""
    name = name.replace("X", "y")
    if arrays.get(name) is None:
        raise DataError(name, "is missing; give one label a row")
    values = np.asarray(on_cpu(arrays[name], name))
    values = values[:, 0] if values.ndim == 2 and values.shape[1] == 1 else values
    if values.ndim != 1:
        problem = f"has the shape {values.shape}; one label a row is needed: of one-hot rows give {name}.argmax(1)"
        raise DataError(name, problem)
    return reading.from_python({target: values.tolist()}, (), name).to_series()


def on_cpu(values: Any, name: str) -> Any:
    """An array of whatever is one; frames, mappings and lists of mappings as they are. Raises DataError for what cannot
    be made an array.
    """
    if isinstance(values, torch.Tensor):
        return values.detach().cpu().numpy()
    if isinstance(values, pl.LazyFrame):
        return values.collect()
    if hasattr(values, "tocsr"):
        raise DataError(name, f"is sparse, a {type(values).__name__}; give {name}.toarray()")
    is_list_of_mappings = isinstance(values, list) and values and isinstance(values[0], Mapping)
    if hasattr(values, "columns") or isinstance(values, Mapping) or is_list_of_mappings:
        return values
    try:
        return np.asarray(values)
    except ValueError as error:
        raise DataError(name, f"is no array: {error}") from error


def _images(values: Any, name: str) -> NDArray[Any]:
    images = np.ascontiguousarray(on_cpu(values, name))
    if images.ndim != 3 or not images.size:
        raise DataError(name, f"has the shape {images.shape}; that of images is (rows, height, width)")
    try:
        return images if images.dtype == np.uint8 else images.astype(np.float32)
    except (TypeError, ValueError) as error:
        raise DataError(name, f"must be numbers: {error}") from error


def _kind(images: NDArray[Any]) -> str:
    return f"{images.shape[1:]} of {images.dtype}"


def _unlabelled(name: str, rows: int, labels: int) -> DataError:
    if not rows:
        return DataError(name, "has no rows")
    return DataError(name.replace("X", "y"), f"holds {labels} labels for the {rows} rows of {name}; give one for each")

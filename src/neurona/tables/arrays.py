"""Rows that Python holds: a table of columns or of numbers, or images, with a label for each row."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
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
from neurona.tables.values import printable

Arrays = Mapping[str, Any]
"""X and y; X_val and y_val, a published validation part, and sample_weight, or None."""

WEIGHT = "sample_weight"


@dataclass(kw_only=True, eq=False, repr=False)
class ArrayTable(TableData):
    """A table in memory.

    arrays: X is a polars or pandas frame, a mapping of columns, a list of mappings, or an array (rows, columns), whose
    columns are then called x0, x1 …; y has a label for each row and is called ``target``; X_val and y_val validate;
    sample_weight takes the place of a column ``weight``; classes names the classes where y holds indices of them.
    path: a file instead of the arrays, for a network that is trained already. The other parameters are ``TableData``'s.
    """

    takes_arrays: ClassVar[bool] = True

    path: str | None = None  # type: ignore[assignment]
    target: str | int = "y"
    arrays: Arrays | None = None

    def __post_init__(self) -> None:
        for name, key, value in (("X_val", "val_path", "X_val"), (WEIGHT, "weight", WEIGHT)):
            if not has(self.arrays, name):
                continue
            if getattr(self, key) is not None:
                raise ConfigError(f"data.{key}", getattr(self, key), f"does not go with {name}; give one of them")
            setattr(self, key, value)
        self.path = self.path or "X"
        self.numeric = self.numeric or self._numbers()
        super().__post_init__()

    def _numbers(self) -> list[str]:
        """The columns of an array of numbers, which are no identifiers, whatever they look like."""
        values = None if self.arrays is None else _on_cpu(self.arrays["X"], "X")
        if not isinstance(values, np.ndarray) or values.ndim != 2 or values.dtype.kind not in "biuf":
            return []
        apart = {*map(str, (*self.categorical, *self.drop, self.group, self.order, self.weight))}
        return [name for name in _names(values) if name not in apart]

    def table(self, path: str) -> pl.DataFrame:
        if self.arrays is None or path not in self.arrays:
            return super().table(path)
        table, labels = frame(self.arrays[path], path), path.replace("X", "y")
        table = _beside(table, path, column(self.arrays.get(labels), labels, self._target), labels)
        if path == "X" and has(self.arrays, WEIGHT):
            table = _beside(table, path, column(self.arrays[WEIGHT], WEIGHT, WEIGHT), WEIGHT)
        return table

    def _classify(
        self, table: pl.DataFrame, paths: Sequence[str], sizes: Sequence[int]
    ) -> tuple[tuple[str, ...], torch.Tensor]:
        if self.arrays is None or not has(self.arrays, "classes"):
            return super()._classify(table, paths, sizes)
        return tuple(self.arrays["classes"]), torch.as_tensor(self.arrays["y"], dtype=torch.int64)


@dataclass(kw_only=True, eq=False, repr=False)
class ArrayImages(InMemoryData):
    """Images in memory. arrays: X, (rows, height, width), bytes or other numbers; y, a label a row; X_val and y_val.
    The other parameters are ``InMemoryData``'s.
    """

    takes_arrays: ClassVar[bool] = True

    batch_size: int = 128
    scaling: Scaling = "unit"
    arrays: Arrays | None = None

    @property
    def has_validation(self) -> bool:
        return has(self.arrays, "X_val") or super().has_validation

    def read(self) -> Table:
        assert self.arrays is not None
        if has(self.arrays, WEIGHT):
            raise DataError(
                WEIGHT, "works with tables, not with images; X.reshape(len(X), -1) turns images into a table"
            )
        images, labels, reader = [], [], Labels("y", Rules())
        for name, of_rows in (("X", "y"), ("X_val", "y_val")):
            if has(self.arrays, name):
                images.append(_images(self.arrays[name], name))
                labels.append(reader.read(column(self.arrays.get(of_rows), of_rows, "y").to_frame()).drop_nulls())
                _require_one_each(name, len(images[-1]), of_rows, len(labels[-1]))
        if len({(part.shape[1:], part.dtype) for part in images}) > 1:
            kinds = [f"{part.shape[1:]} of {part.dtype}" for part in images]
            raise DataError("X_val", f"holds images {kinds[1]}, and X {kinds[0]}; give the same")
        class_names = reader.class_names(labels[0], "y")
        for part in labels[1:]:
            reader.check(part, class_names, "y_val")
        targets = torch.from_numpy(np.concatenate([codes(part, class_names) for part in labels]))
        parts = self.split(targets, class_names, 0, num_val=len(targets) - len(labels[0]))
        features = torch.from_numpy(np.concatenate(images)).flatten(1)
        return Table(features, targets, class_names, tuple(images[0].shape[1:]), parts=parts)


def has(arrays: Arrays | None, name: str) -> bool:
    return arrays is not None and arrays.get(name) is not None


def frame(values: Any, name: str) -> pl.DataFrame:
    """The columns of a table, which messages call ``name``. Raises DataError if it is not a table."""
    values, columns = _on_cpu(values, name), list[str]()
    if isinstance(values, np.ndarray):
        if values.ndim != 2:
            problem = f"has the shape {values.shape}; a table needs (rows, columns), images (rows, height, width)"
            remedy = f"; {name}.reshape(len({name}), -1) is a table with a row for each entry" if values.ndim else ""
            raise DataError(name, problem + (_squeezed(values.shape, name) or remedy))
        columns = _names(values)
    table = reading.from_python(values, [columns], name)
    types = {str(title): str(values[title].dtype) for title in getattr(values, "columns", ())}
    categories = [title for title, kind in types.items() if kind == "category"]  # pandas'
    return table.with_columns(*printable(table.select(categories)).cast(pl.String).cast(pl.Categorical))


def _squeezed(shape: tuple[int, ...], name: str) -> str:
    """What to do with images of one channel, in words; nothing for other shapes."""
    if len(shape) != 4 or 1 not in (shape[1], shape[3]):
        return ""
    return f"; give the images without their one channel: {name}.squeeze({1 if shape[1] == 1 else 3})"


def _names(values: NDArray[Any]) -> list[str]:
    return [f"x{place}" for place in range(values.shape[1])]


def column(values: Any, name: str, title: str) -> pl.Series:
    """A number or label for each row, as a column with a title. Raises DataError naming ``name``."""
    if values is None:
        raise DataError(name, "is missing; give one for each row")
    values = np.asarray(_on_cpu(values, name))
    values = values[:, 0] if values.ndim == 2 and values.shape[1] == 1 else values
    if values.ndim != 1:
        remedy = f": of one-hot rows give {name}.argmax(1)" if name != WEIGHT else ""
        raise DataError(name, f"has the shape {values.shape}; one for each row is needed{remedy}")
    return reading.from_python({title: values.tolist()}, (), name).to_series()


def _beside(table: pl.DataFrame, name: str, values: pl.Series, other: str) -> pl.DataFrame:
    """A table, called ``name``, with another column, which was called ``other``."""
    _require_one_each(name, table.height, other, len(values))
    if values.name in table.columns:
        remedy = f"rename it, or call {other} otherwise, as in data.target=label" if other != WEIGHT else "rename it"
        raise ConfigError(
            "data.target" if other != WEIGHT else WEIGHT, values.name, f"is a column of {name} too; {remedy}"
        )
    return table.with_columns(values)


def _require_one_each(name: str, rows: int, other: str, count: int) -> None:
    if not rows:
        raise DataError(name, "has no rows")
    if count != rows:
        raise DataError(other, f"has {count} for the {rows} rows of {name}; give one for each")


def _images(values: Any, name: str) -> NDArray[Any]:
    images = np.ascontiguousarray(_on_cpu(values, name))
    if images.ndim != 3 or not images.size:
        problem = f"has the shape {images.shape}; that of images is (rows, height, width)"
        raise DataError(name, problem + _squeezed(images.shape, name))
    try:
        return images if images.dtype == np.uint8 else images.astype(np.float32)
    except (TypeError, ValueError) as error:
        raise DataError(name, f"must be numbers: {error}") from error


def _on_cpu(values: Any, name: str) -> Any:
    """Values as an array; frames, mappings and lists of mappings stay as they are. Raises DataError for what cannot
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
        raise DataError(name, f"cannot be made an array: {error}") from error

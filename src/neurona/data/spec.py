"""What a network needs to know about the data, and how people and Python see their rows. Imports no torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from neurona.errors import DataError


@dataclass(frozen=True)
class DataSpec:
    """Sizes and names of a data set: class_names[i] is what class i is called, image_shape the (height, width).

    num_features: what the network is given, after the preprocessing. schema: of a table, as plain data; its spec is a
    ``TableSpec``, which reads rows by it.
    """

    num_features: int
    num_classes: int
    class_names: tuple[str, ...]
    image_shape: tuple[int, ...] | None = None
    schema: dict[str, Any] | None = None

    @property
    def columns(self) -> list[str]:
        """The names of the columns that rows are read from; none where they are known by their place alone."""
        return []

    def rows(self, features: Any) -> NDArray[Any]:
        """Rows as Python holds them → (rows, num_features) uint8 or float32, as the classifier takes them.

        features: what ``numpy.asarray`` makes numbers of, (rows, num_features) or, images, (rows, height, width).
        Raises DataError for others.
        """
        values = np.asarray(features)
        rows = values.reshape(len(values), -1) if values.ndim > 1 else values
        if rows.ndim != 2 or rows.shape[1] != self.num_features:
            expected = f"the run was trained with (rows, {self.num_features})"
            raise DataError("features", f"have the shape {values.shape}; {expected}")
        try:
            return np.ascontiguousarray(rows, dtype=np.uint8 if rows.dtype == np.uint8 else np.float32)
        except (TypeError, ValueError) as error:
            raise DataError("features", f"must be numbers: {error}") from error

    def matches(self, predicted: NDArray[Any], targets: ArrayLike) -> NDArray[np.bool_]:
        """Which predicted class names, (rows,), are right. targets: class names, or the index of each class."""
        names = np.asarray(targets)
        if np.issubdtype(names.dtype, np.integer):
            names = np.array(self.class_names)[names]
        return predicted.astype(str) == names.astype(str)

    def cells(self, rows: NDArray[np.float64]) -> tuple[list[str], list[list[str]]]:
        """Names of the columns of (rows, columns) raw features, and the cells of each row as text."""
        return [f"feature {index}" for index in range(rows.shape[1])], [[f"{x:g}" for x in row] for row in rows]

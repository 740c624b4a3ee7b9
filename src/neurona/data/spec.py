"""What a network needs to know about the data, and how people and Python see their rows. Imports no torch."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from neurona.errors import DataError


def is_whole(name: str) -> bool:
    """Whether a class name is a whole number as Python writes it, of at most 18 digits."""
    return re.fullmatch(r"0|-?[1-9]\d{,17}", name) is not None


def alone(row: Any) -> str:
    """How to give a single row, in words."""
    return f"; a single one, x, is given as {'x[None]' if hasattr(row, 'shape') else '[x]'}"


@dataclass(frozen=True)
class DataSpec:
    """Sizes and names of a data set: class_names[i] is what class i is called, image_shape the (height, width).

    num_features: what the network is given, after the preprocessing. schema: of a table, as plain data; its spec is a
    ``TableSpec``, which reads rows by it. num_rows: of the training part, where networks may choose their size by it.
    """

    num_features: int
    num_classes: int
    class_names: tuple[str, ...]
    image_shape: tuple[int, ...] | None = None
    schema: dict[str, Any] | None = None
    num_rows: int | None = field(default=None, repr=False)  # no part of a fingerprint

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
            shapes = [(self.num_features,), *([self.image_shape] if self.image_shape else [])]
            expected = " or ".join(f"(rows, {', '.join(map(str, shape))})" for shape in shapes)
            remedy = alone(features) if values.shape in shapes else ""
            raise DataError("features", f"have the shape {values.shape}; the run was trained with {expected}{remedy}")
        try:  # writable, as torch warns of others
            numbers = np.require(rows, np.uint8 if rows.dtype == np.uint8 else np.float32, ["C", "W"])
        except (TypeError, ValueError) as error:
            raise DataError("features", f"must be numbers: {error}") from error
        if not (are_finite := np.isfinite(numbers).all(axis=1)).all():
            raise DataError("features", f"must be finite numbers: row {are_finite.argmin()} holds others")
        return numbers

    def labels(self, targets: ArrayLike) -> list[str | None]:
        """The class name of each target, (rows,), None for no label. targets: class names, or, where these are not
        whole numbers themselves, the index of each class.
        """
        wanted = np.asarray(targets)
        if np.issubdtype(wanted.dtype, np.floating) and (wanted % 1 == 0).all():
            wanted = wanted.astype(np.int64)
        if np.issubdtype(wanted.dtype, np.integer) and not all(map(is_whole, self.class_names)):
            return [self.class_names[index] if 0 <= index < self.num_classes else str(index) for index in wanted]
        return wanted.astype(str).tolist()

    def matches(self, predicted: NDArray[Any], targets: ArrayLike) -> NDArray[np.bool_]:
        """Which predicted class names, (rows,), are right, of the rows that have a label. targets: (rows,) or
        (rows, 1), as ``labels`` takes them. Raises DataError for other shapes, labels that are no class, and for none.
        """
        wanted = np.asarray(targets)
        wanted = wanted[:, 0] if wanted.ndim == 2 and wanted.shape[1] == 1 else wanted
        if wanted.shape != predicted.shape:
            raise DataError("targets", f"have the shape {wanted.shape}; {predicted.shape} or (rows, 1) is needed")
        names = self.labels(wanted)
        if unknown := sorted({name for name in names if name is not None} - set(self.class_names)):
            classes = ", ".join(map(repr, self.class_names[:10]))
            raise DataError("targets", f"hold {', '.join(map(repr, unknown[:5]))}; the classes are {classes}")
        pairs = [(name, text) for name, text in zip(names, predicted.astype(str), strict=True) if name is not None]
        if not pairs:
            raise DataError("targets", "hold no label")
        return np.array([name == text for name, text in pairs])

    def cells(self, rows: NDArray[np.float64]) -> tuple[list[str], list[list[str]]]:
        """Names of the columns of (rows, columns) raw features, and the cells of each row as text."""
        return [f"feature {index}" for index in range(rows.shape[1])], [[f"{x:g}" for x in row] for row in rows]

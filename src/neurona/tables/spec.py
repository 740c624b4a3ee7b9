"""What a network needs to know about a table, and how its rows are read by the schema of its columns."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import ArrayLike, NDArray

from neurona.data.spec import DataSpec
from neurona.tables import reading
from neurona.tables.matrix import decode, encode
from neurona.tables.schema import Schema
from neurona.tables.unread import Tally
from neurona.tables.values import words


@dataclass(frozen=True)
class TableSpec(DataSpec):
    """Raises what ``Schema.from_dict`` does where the schema is damaged."""

    def __post_init__(self) -> None:
        self.table  # noqa: B018

    @cached_property
    def table(self) -> Schema:
        """The schema."""
        assert self.schema is not None
        return Schema.from_dict(self.schema)

    @property
    def columns(self) -> list[str]:
        return self.table.names

    def rows(self, features: Any) -> NDArray[np.float32]:
        """features: a polars or pandas frame, a mapping of columns, or a list of mappings, with these columns in any
        order among others; or an array (rows, columns) of the columns used.
        """
        table = reading.from_python(features, [self.columns, self.table.features])
        matrix, tally = encode(table, self.table, "features"), Tally(self.table)
        tally.add(table, matrix)
        for message in tally.messages():
            warnings.warn(message, stacklevel=4)  # of whoever has called the Predictor's predict
        return matrix

    def labels(self, targets: ArrayLike) -> list[str | None]:
        """targets: class names as the table holds them, numbers and booleans too; None or NaN for no label."""
        wanted = np.asarray(targets)
        texts = words(pl.Series(wanted.tolist(), strict=False), self.table.rules)
        if wanted.dtype == bool:  # True in a frame may have been True or true in the file
            texts = texts.replace({name.lower(): name for name in self.class_names})
        return texts.to_list()

    def cells(self, rows: NDArray[np.float64]) -> tuple[list[str], list[list[str]]]:
        return decode(rows, self.table)

"""Rows of a table as a matrix of numbers, made by its schema, and that matrix as text for people."""

from __future__ import annotations

import numpy as np
import polars as pl
from numpy.typing import NDArray

from neurona.tables.reading import require
from neurona.tables.schema import Column, Rules, Schema
from neurona.tables.values import LARGEST_NUMBER, all_numbers, blocks, moments, truths, with_nan, words


def encode(table: pl.DataFrame, schema: Schema, where: object = "the table") -> NDArray[np.float32]:
    """The matrix (rows, columns) of ``layout``: numbers less their origin, NaN where missing or not finite; booleans 0
    and 1; dates as ``DATE_PARTS``; categories as ids, 0 for what is missing or was not seen in training, 1 … k.

    Takes the schema's columns, in any order among others. Raises DataError naming those that ``where`` lacks.
    """
    require(table, schema.names, where)
    matrix = np.empty((table.height, sum(column.width for column in schema.columns)), dtype=np.float32)
    start = 0
    for columns in blocks(schema.in_matrix, table.height):
        marks = {column.name: column.marks for column in columns if column.marks}
        names = [column.name for column in columns if column.kind == "numeric"]
        figures = all_numbers(table[names], schema.rules, marks)
        for column in columns:
            values = (figures if column.kind == "numeric" else table)[column.name]
            for part in encode_column(values, column, schema.rules):
                matrix[:, start] = part
                start += 1
    return matrix


def encode_column(values: pl.Series, column: Column, rules: Rules) -> list[NDArray[np.float64]]:
    """The columns of the matrix that come from one of the table; values: if numeric, as ``numbers`` reads them."""
    match column.kind:
        case "categorical":
            ids = words(values, rules).cast(pl.Enum(column.categories), strict=False).to_physical().cast(pl.Float64)
            return [(ids + 1).fill_null(0).to_numpy()]
        case "boolean":
            return [with_nan(truths(values, rules))]
        case "numeric":
            with np.errstate(over="ignore"):  # of a value far outside of a training part that hardly varied
                scaled = (with_nan(values) - column.origin) * column.scale
            return [np.clip(scaled, -LARGEST_NUMBER, LARGEST_NUMBER)]
        case "date":
            time = moments(values, column.format, rules)
            seconds = with_nan(time.dt.epoch("us")) / 1e6
            parts = [with_nan(getattr(time.dt, part)()) for part in ("month", "day", "weekday")]
            return [np.floor(seconds / 86400) - column.origin, *parts, seconds % 86400 / 3600]


def decode(rows: NDArray[np.float64], schema: Schema) -> tuple[list[str], list[list[str]]]:
    """The names of the columns and, for each row of such a matrix, their values as text."""
    columns, start = [], 0
    for column in schema.in_matrix:
        values = rows[:, start]
        start += column.width
        if column.kind == "categorical":
            texts = [("other or missing", *column.categories)[int(value)] for value in values]
        elif column.kind == "date":
            texts = [str(np.datetime64(0, "D") + int(x + column.origin)) if np.isfinite(x) else "" for x in values]
        else:
            texts = [f"{x / column.scale + column.origin:.6g}" if np.isfinite(x) else "" for x in values]
        columns.append(texts)
    return [column.name for column in schema.in_matrix], [list(cells) for cells in zip(*columns, strict=True)]

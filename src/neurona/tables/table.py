"""A table of one's own: CSV, Parquet, Arrow or npz, raw as it is."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import polars as pl
import torch
from numpy.typing import NDArray
from torch import Tensor

from neurona.data.base import InMemoryData, Table
from neurona.data.batches import Batch, BatchLoader
from neurona.data.preprocessing import Scaling
from neurona.data.spec import DataSpec
from neurona.errors import ConfigError, DataError, check_range, did_you_mean
from neurona.tables import data_card, encoding, reading
from neurona.tables.encoding import Numeric
from neurona.tables.schema import MISSING, Rules, Schema, encode, infer, layout, order_of, unread, words
from neurona.tables.spec import TableSpec

log = logging.getLogger(__name__)

MOST_FRACTIONS = 20
MOST_CLASSES = 100
REGRESSION = ": probably regression, and this is for classes; make bins of them, such as low and high"
STREAM_ROWS = 2**15


@dataclass(kw_only=True, eq=False, repr=False)
class TableData(InMemoryData):
    """A table whose column ``target`` is to be predicted from the others.

    path: a file, or a pattern of files. val_path, test_path: published validation and test parts; without, they are
    drawn from path. separator, decimal, thousands, missing: how texts are read, see ``neurona.tables.schema.Rules``.
    categorical, numeric, drop: columns that are that, or are left out; what the others are is inferred from the
    training rows, see ``neurona.tables.schema.infer``, and stored with the run. labels: characters to strip off the
    labels' ends, or a mapping of labels to class names. group: column of which no value may occur in two parts. order:
    column by which the last rows test, and those before them validate. numeric_encoding, max_pieces, max_one_hot: see
    ``neurona.tables.encoding.Encoding``. batch_size: None goes by the training rows, see ``batch_size_for``. The other
    parameters are ``InMemoryData``'s.

    Rows without a label are in no part. Raises ConfigError and DataError for what is wrong with the table.
    """

    path: str
    target: str | int
    test_path: str | None = None
    val_path: str | None = None
    separator: str | None = None
    decimal: str = "."
    thousands: str = ""
    missing: Sequence[str | int | float] = MISSING
    categorical: Sequence[str | int] = ()
    numeric: Sequence[str | int] = ()
    drop: Sequence[str | int] = ()
    labels: str | dict[str, str | int] | None = None
    group: str | int | None = None
    order: str | int | None = None
    numeric_encoding: Numeric = "standard"
    max_pieces: int = 32
    max_one_hot: int = 256
    batch_size: int | None = None  # type: ignore[assignment]
    val_fraction: float = 0.15
    scaling: Scaling = field(default="none", init=False)

    def __post_init__(self) -> None:
        super().__post_init__()
        self.has_batch_size, self.batch_size = self.batch_size is not None, self.batch_size or 1
        separator = self.separator
        if separator is not None and (len(separator) != 1 or not separator.isascii() or separator in '"\r\n'):
            raise ConfigError("data.separator", separator, "must be one character, such as ; or null to find it out")
        if len(self.decimal) != 1 or len(self.thousands) > 1 or self.decimal == self.thousands:
            raise ConfigError("data.decimal", self.decimal, "must be one character, and another than data.thousands")
        if self.group is not None and self.order is not None:
            raise ConfigError("data.order", self.order, "does not go with data.group: a split is by group or by order")
        if self.folds is not None and (self.val_path is not None or self.order is not None):
            other = "data.val_path" if self.val_path is not None else "data.order"
            raise ConfigError("data.folds", self.folds, f"does not go with {other}, which tells what validates")
        check_range("data.max_pieces", self.max_pieces, least=1, most=encoding.MOST_PIECES)
        check_range("data.max_one_hot", self.max_one_hot, least=0)
        self._target = str(self.target)
        self._group, self._order = (None if name is None else str(name) for name in (self.group, self.order))
        self.rules = Rules(tuple(map(str, self.missing)), self.decimal, self.thousands)
        self.dropped = dict.fromkeys(map(str, self.drop), "as asked")
        self.dropped |= {n: r for n, r in ((self._group, "the group"), (self._order, "the order")) if n is not None}
        if self._target in self.dropped:
            raise ConfigError("data.target", self._target, "is not to be left out, nor the group or the order")
        self.schema: Schema | None = None
        self.card: dict[str, Any] | None = None
        """What ``neurona.tables.data_card.card`` tells, after setup for a fit."""
        self._trained: DataSpec | None = None
        self._is_new = False
        self._told = set[str]()

    @property
    def has_validation(self) -> bool:
        return self.val_path is not None or super().has_validation

    # The rows of a run.

    def read(self) -> Table:
        named = [("data.path", self.path), ("data.val_path", self.val_path), ("data.test_path", self.test_path)]
        tables = [(path, reading.read(path, self.separator)) for _, path in named if path is not None]
        first = tables[0][1]
        for key, name in (("target", self._target), ("group", self._group), ("order", self._order)):
            _require_column(f"data.{key}", name, first)
        for name in self.dropped:
            _require_column("data.drop", name, first)
        groups, order = self._ranks(first, "group", self._group), self._ranks(first, "order", self._order)
        kept = first.drop([name for name in self.dropped if name != self._target])
        table = reading.concatenate([(self.path, kept), *tables[1:]])
        sizes = [len(part) for _, part in tables]
        labels = self._labels(table)
        names = self._trained.class_names if self._trained else self._class_names(labels[: sizes[0]])
        for (path, _), end, size in zip(tables, np.cumsum(sizes), sizes, strict=True):
            self._refuse_unknown(labels[int(end) - size : int(end)], names, path)
        targets = _codes(labels, names)

        labelled = np.flatnonzero(targets >= 0)
        ends = np.cumsum([0, sizes[0], sizes[1] if self.val_path else 0, sizes[-1] if self.test_path else 0])
        pool, num_val, num_test = np.diff(np.searchsorted(labelled, ends)).tolist()
        of_pool = torch.from_numpy(labelled[:pool])
        parts = self.split(
            torch.from_numpy(targets[labelled]),
            names,
            num_test,
            num_val=num_val,
            groups=None if groups is None else groups[of_pool],
            order=None if order is None else order[of_pool],
        )
        rows = {part: labelled[getattr(parts, part).numpy()] for part in ("train", "val", "test")}
        if self.schema is None:
            self.schema = self._infer(table, rows["train"], targets)
            self.card = data_card.card(table, self.schema, names, targets, rows)
        features = torch.from_numpy(encode(table, self.schema, self.path))
        own = type(parts)(*(torch.from_numpy(rows[part]) for part in ("train", "val", "test")))
        return Table(features, torch.from_numpy(targets.clip(0)), names, parts=own)

    def describe(self, table: Table) -> DataSpec:
        if self._trained is not None:
            return self._trained
        assert self.schema is not None
        fitted = encoding.fit(
            table.features,
            self.train_rows,
            layout(self.schema).cardinalities,
            numeric=self.numeric_encoding,
            max_pieces=self.max_pieces,
            max_one_hot=self.max_one_hot,
        )
        self.preprocessing = fitted
        if not self.has_batch_size:
            self.batch_size = batch_size_for(len(self.train_rows))
        names = table.class_names
        return TableSpec(fitted.num_outputs, len(names), names, schema=self.schema.as_dict())

    def _infer(self, table: pl.DataFrame, rows: NDArray[np.int64], targets: NDArray[np.int64]) -> Schema:
        given: dict[str, Any] = {key: [*map(str, getattr(self, key))] for key in ("categorical", "numeric")}
        return infer(table, self._target, rows, targets[rows], rules=self.rules, dropped=self.dropped, **given)

    # Rows that a trained network is given.

    def follow(self, trained: DataSpec, *, is_new: bool) -> None:
        """The schema and the classes are those of the run. is_new: all rows of ``path`` test, or are predicted; the
        latter without holding them in memory, and without need of a target.
        """
        if isinstance(trained, TableSpec):
            self._trained, self._is_new = trained, is_new
            self.schema = trained.table

    def card_text(self, most_columns: int | None = None) -> str:
        """The data card as a table to read; most_columns: how many of the columns to show."""
        assert self.card is not None
        return data_card.text(self.card, most_columns)

    def setup(self, stage: str | None = None) -> None:
        if not self._is_new:
            super().setup(stage)
        elif self._spec is None:
            assert self.schema is not None
            for file in reading.files(self.path):
                first = next(reading.batches(str(file), self.separator, 1), None)
                if first is None:
                    raise DataError(file, "has no rows")
                reading.require(first, self.schema.names, file)
            self._spec = self._trained

    def test_dataloader(self) -> BatchLoader:
        if not self._is_new:
            return super().test_dataloader()
        table = reading.read(self.path, self.separator)
        _require_column("data.target", self._target, table)
        labels, names = self._labels(table), self.spec.class_names
        self._refuse_unknown(labels, names, self.path)
        targets = torch.from_numpy(_codes(labels, names))
        features = self._encoded(table)
        rows = (targets >= 0).nonzero().flatten()
        if not len(rows):
            raise DataError(self.path, f"no row has a label in column {self._target!r}; stage=predict needs none")
        return BatchLoader(features, targets, rows, self.eval_batch_size, trainer=self.trainer)

    def predict_dataloader(self) -> Any:
        return self._stream() if self._is_new else super().predict_dataloader()

    def _stream(self) -> Iterator[Batch]:
        """All rows of ``path`` in their order; targets: -1 where there is no label of the run's."""
        for table in reading.batches(self.path, self.separator, STREAM_ROWS):
            features = self._encoded(table)
            targets = torch.full((len(features),), -1)
            if self._target in table.columns:
                targets = torch.from_numpy(_codes(self._labels(table), self.spec.class_names))
            for start in range(0, len(features), self.eval_batch_size):
                part = slice(start, start + self.eval_batch_size)
                yield Batch(features[part], targets[part])

    def _encoded(self, table: pl.DataFrame) -> Tensor:
        """New rows; tells, once a column, what cannot be read."""
        assert self.schema is not None
        matrix = encode(table, self.schema, self.path)
        for name, (lost, known) in unread(table, self.schema, matrix).items():
            if name not in self._told:
                problem = f"no value of column {name!r} reads as in training"
                if lost < known:
                    problem = f"{lost} of {known} values of column {name!r} do not read as in training"
                log.warning("%s: %s; they count as missing", self.path, problem)
                self._told.add(name)
        return torch.from_numpy(matrix)

    # Labels, groups and order.

    def _labels(self, table: pl.DataFrame) -> pl.Series:
        """The labels as text, null where missing."""
        labels = words(table[self._target], self.rules)
        if isinstance(self.labels, str):
            return labels.str.strip_chars(self.labels)
        if self.labels is not None:
            return labels.replace({str(old): str(new) for old, new in self.labels.items()})
        return labels

    def _class_names(self, labels: pl.Series) -> tuple[str, ...]:
        """Sorted, as numbers where all are. Raises DataError where there is nothing to classify."""
        names = labels.drop_nulls().unique().sort().to_list()
        if len(names) < 2:
            found = f"one class only, {names[0]!r}" if names else "no label"
            if lost := labels.null_count():
                found += f" ({lost} rows hold no value, as data.missing has it)"
            raise DataError(self.path, f"column {self._target!r} has {found}; data.target names the one to predict")
        values = pl.Series(names).cast(pl.Float64, strict=False)
        if values.is_nan().any() or values.is_null().any():
            self._refuse_too_many(names, labels, "; is it the column to predict?")
            return tuple(names)
        if (values % 1 != 0).any() and len(names) > MOST_FRACTIONS:
            problem = f"column {self._target!r} has {len(names)} values such as {names[len(names) // 2]}"
            raise DataError(self.path, problem + REGRESSION)
        self._refuse_too_many(names, labels, REGRESSION)
        return tuple(name for _, name in sorted(zip(values, names, strict=True)))

    def _refuse_too_many(self, names: list[str], labels: pl.Series, remedy: str) -> None:
        if len(names) > min(max(MOST_CLASSES, len(labels) // 10), len(labels) // 2):
            problem = f"column {self._target!r} has {len(names)} classes in {len(labels)} rows{remedy}"
            raise DataError(self.path, problem)

    def _refuse_unknown(self, labels: pl.Series, names: tuple[str, ...], path: str) -> None:
        unknown = labels.filter(labels.is_not_null() & ~labels.is_in(list(names))).unique().sort().to_list()
        if not unknown:
            return
        remedy = "data.labels maps labels to the names of classes"
        for mark in {word[-1] for word in unknown} - {name[-1] for name in names}:
            if {word.strip(mark) for word in unknown} <= set(names):
                remedy = f"data.labels='{mark}' strips what makes the difference"
        found = ", ".join(map(repr, unknown[:5])) + " …" * (len(unknown) > 5)
        known = ", ".join(map(repr, names[:10])) + " …" * (len(names) > 10)
        raise DataError(path, f"labels {found} in column {self._target!r}, where training has {known}; {remedy}")

    def _ranks(self, table: pl.DataFrame, key: str, name: str | None) -> Tensor | None:
        if name is None:
            return None
        ranks = order_of(table[name], self.rules)
        if missing := ranks.null_count():
            raise ConfigError(f"data.{key}", name, f"the column has no value in {missing} rows; each needs one")
        return torch.from_numpy(ranks.cast(pl.Int64).to_numpy(writable=True))


def batch_size_for(rows: int) -> int:
    """A 64th of the training rows, as a power of two from 16 to 256."""
    return min(256, max(16, 2 ** round(math.log2(max(rows, 1) / 64))))


def _require_column(key: str, name: str | None, table: pl.DataFrame) -> None:
    if name is not None and name not in table.columns:
        hint = did_you_mean(name, table.columns) or f"; there are {', '.join(table.columns[:30])}"
        only = " (only one column: is data.separator right?)" * (table.width == 1)
        raise ConfigError(key, name, f"no such column{hint}{only}")


def _codes(labels: pl.Series, names: tuple[str, ...]) -> NDArray[np.int64]:
    """The index of each label in the names, -1 for none."""
    indices = labels.cast(pl.Enum(names), strict=False).to_physical().cast(pl.Int64)
    return indices.fill_null(-1).to_numpy(writable=True)

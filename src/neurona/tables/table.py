"""A table of your own in a file: CSV, Parquet, Arrow or npz."""

from __future__ import annotations

import logging
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import torch
from numpy.typing import NDArray
from torch import Tensor

from neurona.config.overrides import in_shell
from neurona.data.base import InMemoryData, Table
from neurona.data.batches import Batch, BatchLoader
from neurona.data.preprocessing import Scaling
from neurona.data.spec import DataSpec
from neurona.data.split import Split
from neurona.errors import ConfigError, DataError, check_range, did_you_mean
from neurona.tables import data_card, encoding, reading
from neurona.tables.encoding import Numeric
from neurona.tables.faults import command
from neurona.tables.inference import infer, order_of, weights_of
from neurona.tables.labels import Labels, codes
from neurona.tables.marks import read_by
from neurona.tables.matrix import encode
from neurona.tables.schema import MISSING, Rules, Schema, layout, named, setting
from neurona.tables.spec import TableSpec
from neurona.tables.unread import Tally, merge
from neurona.tables.values import all_words, with_nan, words

log = logging.getLogger(__name__)

STREAM_ROWS = 2**15

OF_NEW_ROWS = ("separator", "decimal", "thousands", "missing")
"""Settings that another file than the run's may have others for, once the network is trained."""

OF_OWN_ROWS = (
    *("val_path", "test_path", "group", "order", "folds", "fold"),
    *("val_fraction", "test_fraction", "split_seed"),
)
"""Settings of the split, of which all rows of another file have none."""


@dataclass(kw_only=True, eq=False, repr=False)
class TableData(InMemoryData):
    """A table. Its column ``target`` is predicted from the others.

    path: a file, or a pattern of files. val_path, test_path: published validation and test parts; without, they are
    drawn from path. separator, decimal, thousands, dates, missing: how texts are read, see
    ``neurona.tables.schema.Rules``. max_unread: share of the rows whose value may be none of its column's kind, such as
    a word among numbers.
    categorical, numeric, drop: columns that are that, or are left out; what the others are is inferred from the
    training rows, see ``neurona.tables.inference.infer``, and stored with the run. labels: signs to strip off the
    labels' ends, or a mapping of labels to class names. group: column of which no value may occur in two parts. order:
    column by which the last rows test, and those before them validate. weight: column of what the loss of each training
    row is multiplied with, once their mean is 1; validation and test count every row once. numeric_encoding,
    max_pieces, max_one_hot: see ``neurona.tables.encoding.Encoding``; max_pieces: None goes by the training rows, see
    ``neurona.tables.encoding.suited``. batch_size: None goes by them too, see ``batch_size_for``. The other parameters
    are ``InMemoryData``'s.

    Rows without a label are left out. Raises ConfigError and DataError for what is wrong with the table.
    """

    path: str
    target: str | int
    test_path: str | None = None
    val_path: str | None = None
    separator: str | None = None
    decimal: str | None = None
    thousands: str | None = None
    dates: str | None = None
    max_unread: float = 0.05
    missing: Sequence[str | int | float] = MISSING
    categorical: Sequence[str | int] = ()
    numeric: Sequence[str | int] = ()
    drop: Sequence[str | int] = ()
    labels: str | dict[str, str | int] | None = None
    group: str | int | None = None
    order: str | int | None = None
    weight: str | int | None = None
    numeric_encoding: Numeric = "standard_piecewise"
    max_pieces: int | None = None
    max_one_hot: int = 256
    batch_size: int | None = None  # type: ignore[assignment]
    val_fraction: float = 0.15
    scaling: Scaling = field(default="none", init=False)

    def __post_init__(self) -> None:
        super().__post_init__()
        self.has_batch_size, self.batch_size = self.batch_size is not None, self.batch_size or 1
        self._check_settings()
        self._target = str(self.target)
        named = (self.group, self.order, self.weight)
        self._group, self._order, self._weight = (None if name is None else str(name) for name in named)
        self.rules = Rules(tuple(map(str, self.missing)), self.decimal or "", self.thousands, self.dates or "")
        self.dropped = dict.fromkeys(map(str, self.drop), "as asked")
        apart = ((self._group, "the group"), (self._order, "the order"), (self._weight, "the weight"))
        self.dropped |= {name: role for name, role in apart if name is not None}
        if self._target in self.dropped:
            raise ConfigError(
                "data.target", self._target, "cannot be left out, and neither can the column of group, order or weight"
            )
        self._labels = Labels(self._target, self.rules, self.labels)
        self.schema: Schema | None = None
        self.card: dict[str, Any] | None = None
        """What ``neurona.tables.data_card.card`` tells, after setup for a fit."""
        self._run_spec: DataSpec | None = None
        self._is_new = False

    def _check_settings(self) -> None:
        separator = self.separator
        if separator is not None and (len(separator) != 1 or not separator.isascii() or separator in '"\r\n'):
            raise ConfigError(
                "data.separator", separator, "must be one character, as in \"data.separator=';'\"; null finds it out"
            )
        if self.decimal is not None and (len(self.decimal) != 1 or self.decimal == self.thousands):
            raise ConfigError("data.decimal", self.decimal, "must be one character, and differ from data.thousands")
        if len(self.thousands or "") > 1 or (self.thousands == "." and self.decimal is None):
            problem = "must be one character or none; where it is a dot, data.decimal must be set too"
            raise ConfigError("data.thousands", self.thousands, problem)
        check_range("data.max_unread", self.max_unread, least=0, most=1)
        if self.group is not None and self.order is not None:
            raise ConfigError("data.order", self.order, "cannot be used together with data.group: split by one of them")
        if self.folds is not None and (self.val_path is not None or self.order is not None):
            other = "data.val_path" if self.val_path is not None else "data.order"
            raise ConfigError(
                "data.folds", self.folds, f"cannot be used together with {other}, which already decides what validates"
            )
        check_range("data.max_pieces", self.max_pieces, least=1, most=encoding.MOST_PIECES)
        check_range("data.max_one_hot", self.max_one_hot, least=0)

    @property
    def has_validation(self) -> bool:
        return self.val_path is not None or super().has_validation

    # The rows of a run.

    def read(self) -> Table:
        paths = [path for path in (self.path, self.val_path, self.test_path) if path is not None]
        frames = [self.table(path) for path in paths]
        first = frames[0]
        named = (("target", self._target), ("group", self._group), ("order", self._order), ("weight", self._weight))
        for key, name in (*named, *(("drop", name) for name in self.dropped)):
            _require_column(f"data.{key}", name, first, self.path)
        ranks = {"groups": self._ranks(first, "group", self._group), "order": self._ranks(first, "order", self._order)}
        weights = self._weights(first, sum(frame.height for frame in frames))
        frames[0] = first.drop(list(self.dropped))
        table = reading.concatenate(list(zip(paths, frames, strict=True)))
        sizes = [frame.height for frame in frames]
        names, targets = self._classify(table, paths, sizes)
        parts = self._parts(targets, names, sizes, ranks)
        if self.schema is not None:
            features = encode(table, self.schema, self.path)
            return Table(torch.from_numpy(features), targets.clip(0), names, parts=parts, weights=weights)
        rows = {part: getattr(parts, part).numpy() for part in ("train", "val", "test")}
        self.schema = self._infer(table, rows["train"], targets.numpy())
        features = encode(table, self.schema, self.path)
        tallies = {part: Tally(self.schema) for part in rows}
        for part, tally in tallies.items():
            tally.add(table[rows[part]], features[rows[part]])
        self._check_unread(tallies)
        self.card = data_card.card(table, self.schema, names, targets.numpy(), rows, tallies)
        self.card["warnings"][:0] = () if self.takes_arrays else _about_header(first, self.path)
        return Table(torch.from_numpy(features), targets.clip(0), names, parts=parts, weights=weights)

    def table(self, path: str) -> pl.DataFrame:
        """The rows in a file."""
        return reading.read(path, self.separator)

    def _check_unread(self, tallies: Mapping[str, Tally]) -> None:
        """Raises DataError where more than the share allowed is not read, of a published part or of the others."""
        published = {"val": self.val_path, "test": self.test_path}
        drawn = [tally for part, tally in tallies.items() if not published.get(part)]
        groups = [(self.path, drawn), *((path, [tallies[part]]) for part, path in published.items() if path)]
        for path, group in groups:
            for unread, rows in merge(group):
                name, kind, share = unread.column.name, unread.column.kind, unread.mistakes / rows
                if share <= self.max_unread or name in map(str, self.numeric):
                    continue
                remedies = [f"data.max_unread={math.ceil(100 * share) / 100} accepts that"]
                if kind != "categorical":
                    remedies.insert(0, f"{setting('categorical', name)} reads all of them as categories")
                if kind == "numeric":
                    remedies.insert(0, f"{setting('numeric', name)} keeps only the numbers")
                raise DataError(path, f"{unread.message(rows)}; {', '.join(remedies)}")

    def _classify(
        self, table: pl.DataFrame, paths: Sequence[str], sizes: Sequence[int]
    ) -> tuple[tuple[str, ...], Tensor]:
        """The names of the classes and the class of each row, negative without a label. paths, sizes: of the files."""
        if self._run_spec is None:
            self._labels.require_used(table)
        labels = self._labels.read(table)
        starts = np.cumsum([0, *sizes[:-1]]).tolist()
        of_files = [labels[start : start + size] for start, size in zip(starts, sizes, strict=True)]
        names = self._run_spec.class_names if self._run_spec else self._labels.class_names(of_files[0], self.path)
        for part, path in zip(of_files, paths, strict=True):
            self._labels.check(part, names, path)
        return names, torch.from_numpy(codes(labels, names))

    def _parts(
        self, targets: Tensor, names: tuple[str, ...], sizes: Sequence[int], ranks: Mapping[str, Tensor | None]
    ) -> Split:
        """The rows of each part; those without a label are in none. ranks: of the rows of ``path``."""
        labelled = (targets >= 0).nonzero().flatten()
        published = (sizes[1] if self.val_path else 0, sizes[-1] if self.test_path else 0)
        ends = torch.tensor([0, sizes[0], *published]).cumsum(0)
        pool, num_val, num_test = torch.searchsorted(labelled, ends).diff().tolist()
        of_pool = {key: values[labelled[:pool]] for key, values in ranks.items() if values is not None}
        if self._group is not None:
            self._check_groups(len(of_pool["groups"].unique()))
        parts = self.split(targets[labelled], names, num_test, num_val=num_val, **of_pool)
        return Split(labelled[parts.train], labelled[parts.val], labelled[parts.test])

    def _check_groups(self, count: int) -> None:
        draws_test = self.test_path is None and self.test_fraction > 0
        draws_val = self.val_path is None and self.has_validation
        needed = draws_test + (self.folds or 1 + draws_val)
        if count < needed:
            problem = f"has {count} values, and each of {needed} parts needs one of its own"
            remedy = (
                "use fewer data.folds" if self.folds else "data.test_fraction=0 or data.val_fraction=0 leaves one out"
            )
            raise ConfigError("data.group", self._group, f"{problem}; {remedy}")

    def describe(self, table: Table) -> DataSpec:
        if not self.has_batch_size:
            self.batch_size = batch_size_for(len(self.train_rows))
        if self._run_spec is not None:
            return self._run_spec
        assert self.schema is not None
        numeric, pieces = encoding.suited(self.numeric_encoding, len(self.train_rows), self.max_pieces)
        self.preprocessing = preprocessing = encoding.fit(
            table.features,
            self.train_rows,
            layout(self.schema).cardinalities,
            numeric=numeric,
            max_pieces=pieces,
            max_one_hot=self.max_one_hot,
        )
        names = table.class_names
        sizes = preprocessing.num_outputs, len(names), names
        return TableSpec(*sizes, schema=self.schema.as_dict(), num_rows=len(self.train_rows))

    def _infer(self, table: pl.DataFrame, rows: NDArray[np.int64], targets: NDArray[np.int64]) -> Schema:
        kinds: dict[str, Any] = {key: [*map(str, getattr(self, key))] for key in ("categorical", "numeric")}
        return infer(table, self._target, rows, targets[rows], rules=self.rules, dropped=self.dropped, **kinds)

    def _ranks(self, table: pl.DataFrame, key: str, name: str | None) -> Tensor | None:
        """The rank of each row: of its group, or in the order."""
        if name is None:
            return None
        ranks = order_of(table[name], self.rules) if key == "order" else words(table[name], self.rules).rank("dense")
        if missing := ranks.null_count():
            raise ConfigError(f"data.{key}", name, f"has no value in {missing} rows; every row needs one")
        return torch.from_numpy(ranks.cast(pl.Int64).to_numpy(writable=True))

    def _weights(self, table: pl.DataFrame, rows: int) -> Tensor | None:
        """Of the rows of ``path``, then those of published parts, which need none."""
        if self._weight is None:
            return None
        values = with_nan(weights_of(table[self._weight], self.rules)).astype(np.float32)
        if not (values >= 0).all() or not values.any():
            odd = table[self._weight].gather((~(values >= 0)).nonzero()[0][:3]).to_list() or [0]
            problem = f"needs a number of 0 or more in every row, not all 0, but holds {', '.join(map(repr, odd))}"
            raise ConfigError("data.weight", self._weight, problem)
        return torch.cat([torch.from_numpy(values), torch.ones(rows - len(values))])

    # Rows that a trained network is given.

    @classmethod
    def unused(cls, *, is_new: bool) -> dict[str, str]:
        of_encoding = ("numeric_encoding", "max_pieces", "max_one_hot")
        fixed = ("categorical", "numeric", "dates", "max_unread", "drop", "weight", *of_encoding)
        unused = super().unused(is_new=is_new)
        unused |= dict.fromkeys(fixed, "is fixed by the training of the run; leave it out")
        if is_new:
            return unused | dict.fromkeys(OF_OWN_ROWS, "splits the run's own rows, not another file's; leave it out")
        return unused | dict.fromkeys(OF_NEW_ROWS, "describes another file than the run's: give data.path too")

    def follow(self, trained: DataSpec, *, is_new: bool) -> None:
        """The schema and the classes are those of the run. is_new: all rows of ``path`` test, or are predicted, read by
        the rules of this table; the latter without holding them in memory, and without need of a target.
        """
        if isinstance(trained, TableSpec):
            self._run_spec, self._is_new = trained, is_new
            self.schema = read_by(trained.table, self.rules) if is_new else trained.table

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
                if self._target != self.schema.target:
                    _require_column("data.target", self._target, first, str(file))
            self._spec = self._run_spec

    def test_dataloader(self) -> BatchLoader:
        if not self._is_new:
            return super().test_dataloader()
        assert self.schema is not None
        table = reading.read(self.path, self.separator)
        _require_column("data.target", self._target, table, self.path)
        labels, names = self._labels.read(table), self.spec.class_names
        self._labels.check(labels, names, self.path)
        targets = torch.from_numpy(codes(labels, names))
        tally = Tally(self.schema)
        features = self._encode(table, tally)
        self._warn(tally)
        rows = (targets >= 0).nonzero().flatten()
        if not len(rows):
            raise DataError(self.path, f"no row has a label in column {self._target!r}; stage=predict needs none")
        return BatchLoader(features, targets, rows, self.eval_batch_size, trainer=self.trainer)

    def predict_dataloader(self) -> Any:
        return self._stream() if self._is_new else super().predict_dataloader()

    def _stream(self) -> Iterator[Batch]:
        """All rows of ``path`` in their order; targets: -1 where there is no label of the run's."""
        assert self.schema is not None
        tally = Tally(self.schema)
        for table in reading.batches(self.path, self.separator, STREAM_ROWS):
            features = self._encode(table, tally)
            targets = torch.full((len(features),), -1)
            if self._target in table.columns:
                targets = torch.from_numpy(codes(self._labels.read(table), self.spec.class_names))
            for start in range(0, len(features), self.eval_batch_size):
                part = slice(start, start + self.eval_batch_size)
                yield Batch(features[part], targets[part])
        self._warn(tally)

    def _encode(self, table: pl.DataFrame, tally: Tally) -> Tensor:
        """New rows."""
        assert self.schema is not None
        matrix = encode(table, self.schema, self.path)
        tally.add(table, matrix)
        return torch.from_numpy(matrix)

    def _warn(self, tally: Tally) -> None:
        for message in tally.messages():
            log.warning("%s: %s", self.path, message)


def batch_size_for(rows: int) -> int:
    """A 64th of the training rows, as a power of two from 16 to 256."""
    return min(256, max(16, 2 ** round(math.log2(max(rows, 1) / 64))))


def _require_column(key: str, name: str | None, table: pl.DataFrame, path: str) -> None:
    if name is None or name in table.columns:
        return
    hint = did_you_mean(name, table.columns, lambda known: _written(key, known)) if table.width > 1 else ""
    hint = hint or f"; there are {', '.join(table.columns[:30])}"
    if {f"{name}0", f"{name}1"} <= set(table.columns):
        hint = f"; it is an array of several columns, {name}0, {name}1 …; of one-hot labels, save {name}.argmax(1)"
    if table.width == 1:
        hint += " (only one column: is data.separator right?)"
        if len(table.columns[0].split()) > 1:
            repair = command("sed 's/^ *//;s/ *$//;s/  */,/g'", Path(path))
            hint += f"; where blanks separate them, {repair} puts commas there"
    raise ConfigError(key, name, f"no such column{hint}")


def _written(key: str, name: str) -> str:
    """A column's name, or the setting that gives it where it needs quotes."""
    if key == "data.drop":
        return named("drop", name)
    line = in_shell(key, name)
    return name if line == f"{key}={name}" else line


def _about_header(table: pl.DataFrame, path: str) -> tuple[str, ...]:
    """A warning if most column names also occur as values of their column, or are decimal numbers."""
    head = all_words(table.head(1000), Rules())
    are_values = [bool((column == column.name).any()) or re.fullmatch(r"-?\d+\.\d+", column.name) for column in head]
    if 2 * sum(map(bool, are_values)) <= len(are_values):
        return ()
    names = ", ".join(head.columns[:4])
    remedy = "if it is one, put a line with the names of the columns before it"
    return (f"{path}: its first line, {names} …, looks like a row of values; {remedy}",)

"""The network of a table: several members where its rows are few, else one perceptron."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from torch import nn

from neurona.errors import ConfigError
from neurona.models.mlp import MLP
from neurona.models.tabm import TabM


class Size(NamedTuple):
    """Of the network for a table of fewer training rows than ``rows`` and at most so many ``classes``; None: any."""

    members: int
    hidden: Sequence[int] | int
    dropout: float
    rows: int | None = None
    classes: int | None = None

    def is_for(self, rows: float, classes: int) -> bool:
        return (self.rows is None or rows < self.rows) and (self.classes is None or classes <= self.classes)


FORMER = (
    {"rows": 1500, "members": 8, "hidden": [64, 64], "dropout": 0.1},
    {"members": 1, "hidden": [256, 256], "dropout": 0.2},
)
"""Of runs that began before their settings had ``sizes``."""


FIELDS = (
    "each needs members (a whole number), hidden (widths) and dropout (a number), and may have rows and classes: it is"
    " for tables of fewer training rows, and at most so many classes"
)


def network(
    num_features: int,
    num_classes: int,
    num_rows: int | None = None,
    *,
    hidden: Sequence[int] | int | None = None,
    activation: str = "relu",
    dropout: float | None = None,
    members: int | None = None,
    sizes: Sequence[Mapping[str, Any]] = FORMER,
    ensemble_classes: int = 0,
) -> nn.Module:
    """A TabM, or an MLP where ``members`` is 1.

    hidden, dropout, members: None takes that of the first of ``sizes``, each with the fields of a ``Size``, that is for
    so many training rows and classes. num_rows: None where the data do not tell, which counts as many.
    ensemble_classes: of runs that began when only tables of so many classes had members above 1,500 rows, or none where
    it is 0. What the sizes of ``configs/model/tabular.yaml`` rest on is in ``docs/tables.md``.

    Raises ConfigError as MLP and TabM do, and for ``model.sizes`` that are none, or whose last is not for any table.
    """
    try:
        known = [Size(**size) for size in sizes]
    except TypeError as error:
        raise ConfigError("model.sizes", sizes, FIELDS) from error
    if not all(map(_is_typed, known)):
        raise ConfigError("model.sizes", sizes, FIELDS)
    if not known or (known[-1].rows, known[-1].classes) != (None, None):
        raise ConfigError("model.sizes", sizes, "the last must be for any table, so it has neither rows nor classes")
    known.insert(-1, Size(4, [128, 128], 0.1, rows=50_000, classes=ensemble_classes))
    rows = math.inf if num_rows is None else num_rows
    size = next(size for size in known if size.is_for(rows, num_classes))
    hidden = hidden if hidden is not None else size.hidden
    dropout = dropout if dropout is not None else size.dropout
    members = members if members is not None else size.members
    if members == 1:
        return MLP(num_features, num_classes, hidden=hidden, activation=activation, dropout=dropout)
    return TabM(num_features, num_classes, hidden=hidden, activation=activation, dropout=dropout, members=members)


def _is_typed(size: Size) -> bool:
    widths = size.hidden if isinstance(size.hidden, Sequence) else [size.hidden]
    limits = [limit for limit in (size.rows, size.classes) if limit is not None]
    are_whole = all(type(number) is int for number in (size.members, *widths, *limits))
    return are_whole and type(size.dropout) in (int, float)

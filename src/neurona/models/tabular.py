"""The network of a table: several members where its rows or classes are few, else a wide perceptron."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

from torch import nn

from neurona.errors import check_range
from neurona.models.mlp import MLP
from neurona.models.tabm import TabM

FEW_ROWS, MANY_ROWS = 1500, 50_000
"""Training rows below which there are several members; from the second number on there never are, as they take time."""


class Size(NamedTuple):
    hidden: Sequence[int]
    dropout: float
    members: int


FEW, FEW_CLASSES, MANY = Size([64, 64], 0.1, 8), Size([128, 128], 0.1, 4), Size([256, 256], 0.2, 1)


def network(
    num_features: int,
    num_classes: int,
    num_rows: int | None = None,
    *,
    hidden: Sequence[int] | int | None = None,
    activation: str = "relu",
    dropout: float | None = None,
    members: int | None = None,
    ensemble_classes: int = 0,
) -> nn.Module:
    """A TabM, or an MLP where ``members`` is 1, whose size goes by rows and classes wherever it is None.

    Below 1,500 rows: 8 members of [64, 64] with dropout 0.1. From there to 50,000, with ``ensemble_classes`` classes or
    fewer: 4 of [128, 128] with dropout 0.1. Else 1 of [256, 256] with dropout 0.2. num_rows: None where the data do not
    tell, which counts as many. What it rests on is in ``docs/tables.md``.

    Raises ConfigError as MLP and TabM do, and for ``ensemble_classes`` below 0.
    """
    check_range("model.ensemble_classes", ensemble_classes, least=0)
    rows = math.inf if num_rows is None else num_rows
    size = FEW if rows < FEW_ROWS else FEW_CLASSES if num_classes <= ensemble_classes and rows < MANY_ROWS else MANY
    hidden = hidden if hidden is not None else size.hidden
    dropout = dropout if dropout is not None else size.dropout
    members = members if members is not None else size.members
    if members == 1:
        return MLP(num_features, num_classes, hidden=hidden, activation=activation, dropout=dropout)
    sizes = num_features, num_classes
    return TabM(*sizes, hidden=hidden, activation=activation, dropout=dropout, members=members)

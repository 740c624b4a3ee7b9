"""The network of a table: several members where its rows are few, a wide perceptron where they are many."""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn

from neurona.models.mlp import MLP
from neurona.models.tabm import TabM

FEW_ROWS = 1500
"""Training rows below which there are several members."""


def network(
    num_features: int,
    num_classes: int,
    num_rows: int | None = None,
    *,
    hidden: Sequence[int] | int | None = None,
    activation: str = "relu",
    dropout: float | None = None,
    members: int | None = None,
) -> nn.Module:
    """A TabM, or an MLP where ``members`` is 1, whose size goes by the number of training rows wherever it is None.

    Below 1,500 rows: 8 members of [64, 64] with dropout 0.1. From there on: 1 of [256, 256] with dropout 0.2. num_rows:
    None where the data do not tell, which counts as many. What it rests on is in ``docs/tables.md``.

    Raises ConfigError as MLP and TabM do.
    """
    are_few = num_rows is not None and num_rows < FEW_ROWS
    hidden = hidden if hidden is not None else [64, 64] if are_few else [256, 256]
    dropout = dropout if dropout is not None else 0.1 if are_few else 0.2
    members = members if members is not None else 8 if are_few else 1
    if members == 1:
        return MLP(num_features, num_classes, hidden=hidden, activation=activation, dropout=dropout)
    sizes = num_features, num_classes
    return TabM(*sizes, hidden=hidden, activation=activation, dropout=dropout, members=members)

"""Small real data sets that ship with the package; SOURCES.md states where each comes from and its licence."""

from __future__ import annotations

import bz2
from importlib import resources

import numpy as np
import torch
from torch import Tensor


def read(name: str) -> tuple[Tensor, Tensor]:
    """Features (N, num_features) float32 and targets (N,) int64, the last column, of <name>.csv.bz2."""
    with (resources.files(__name__) / f"{name}.csv.bz2").open("rb") as packed, bz2.open(packed, "rt") as lines:
        table = np.loadtxt(lines, delimiter=",")
    return torch.tensor(table[:, :-1], dtype=torch.float32), torch.tensor(table[:, -1], dtype=torch.int64)

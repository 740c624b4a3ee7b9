"""Scaling of the features: fitted on the training rows, applied inside the classifier, stored with its weights."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

from neurona.errors import DataError

Scaling = Literal["standard", "unit", "none"]
_BLOCK_ELEMENTS = 2**18  # of float64: 2 MiB, which stays in the processor's cache


class Standardize(nn.Module):
    """features * scale + shift, per column; the identity until fitted.

    Takes (batch, num_features) uint8 or float32, returns the dtype of its buffers shift and scale, (num_features,):
    float32 unless the Trainer computes in another precision.
    """

    compilable = True

    shift: Tensor
    scale: Tensor

    def __init__(self, num_features: int) -> None:
        super().__init__()
        self.register_buffer("shift", torch.zeros(num_features))
        self.register_buffer("scale", torch.ones(num_features))

    def forward(self, features: Tensor) -> Tensor:
        return torch.addcmul(self.shift, features.to(self.scale.dtype), self.scale)


def fit(features: Tensor, rows: Tensor, scaling: Scaling) -> Standardize:
    """The scaling computed from the given rows of features (N, num_features), uint8 or float32.

    standard: mean 0 and variance 1 (the population's, 1/n, as scikit-learn's StandardScaler); a constant column is only
    centred. unit: uint8 / 255; other columns from their [min, max] to [0, 1] (MinMaxScaler), a constant one to 0.
    none: unchanged. Accumulates in float64, block by block; DataError where a column holds NaN or infinity.
    """
    standardize = Standardize(features.shape[1])
    if scaling == "unit" and features.dtype == torch.uint8:
        standardize.scale.fill_(1 / 255)
    elif scaling != "none":
        mean, variance, low, high = _moments(features, rows)
        if broken := (~mean.isfinite()).nonzero().flatten().tolist():
            columns = ", ".join(map(str, broken[:10])) + " …" * (len(broken) > 10)
            problem = f"missing (NaN) or infinite values in column {columns} (counted from 0)"
            raise DataError("features", f"{problem}: fill or remove those rows")
        origin, spread = (mean, variance.sqrt()) if scaling == "standard" else (low, high - low)
        standardize.scale.copy_(torch.where(high > low, 1 / spread, 1.0))
        # From the rounded scale, so that the origin is mapped to 0 as exactly as float32 can.
        standardize.shift.copy_(-origin * standardize.scale.double())
    return standardize


def _moments(features: Tensor, rows: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Mean, population variance, minimum and maximum of the columns, float64.

    Blocks are merged as in Chan, Golub and LeVeque, "Updating formulae and a pairwise algorithm for computing sample
    variances" (1979), eq. 2.1: nothing cancels, whatever the mean.
    """
    count, mean = 0, torch.zeros(features.shape[1], dtype=torch.float64)
    squares = torch.zeros_like(mean)
    low, high = torch.full_like(mean, torch.inf), torch.full_like(mean, -torch.inf)
    for block_rows in rows.split(max(1, _BLOCK_ELEMENTS // len(mean))):
        block = features.index_select(0, block_rows).double()
        size, block_mean = len(block), block.mean(0)
        low, high = torch.minimum(low, block.amin(0)), torch.maximum(high, block.amax(0))
        squares += block.sub_(block_mean).square_().sum(0)
        delta = block_mean - mean
        squares += delta.square() * (count * size / (count + size))
        count += size
        mean += delta * (size / count)
    return mean, squares / count, low, high

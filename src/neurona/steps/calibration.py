"""Temperature scaling: one number by which logits are divided, so that their probabilities are right on average."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

LARGEST = 20.0
"""Temperatures are from its inverse to this."""
HALVINGS = 30


def temperature(logits: Tensor, targets: Tensor, total: Callable[[Tensor], Any] = lambda sums: sums) -> float:
    """The temperature with the least cross-entropy of softmax(logits / temperature), from 1/20 to 20.

    logits: (rows, num_classes). targets: (rows,) int64. total: sums a tensor over all processes. Source: Guo et al.
    2017, arXiv:1706.04599, section 4.2. As the loss is convex in the inverse of the temperature, its derivative there
    has one zero, which is found by halving, in the logarithm. 1 where there is no row or a logit is not finite.
    """
    logits = logits.double()
    of_targets = logits.gather(1, targets.unsqueeze(1)).sum()

    def slope(inverse: float) -> float:
        expected = (torch.softmax(logits * inverse, dim=1) * logits).sum()
        return float(total(expected - of_targets))

    if not math.isfinite(slope(1.0)) or not float(total(logits.new_tensor(float(len(targets))))):
        return 1.0
    low, high = -math.log(LARGEST), math.log(LARGEST)  # of the logarithm of the inverse
    for _ in range(HALVINGS):
        middle = (low + high) / 2
        low, high = (low, middle) if slope(math.exp(middle)) > 0 else (middle, high)
    return math.exp(-(low + high) / 2)

"""Temperature scaling: one number by which logits are divided, so that their probabilities are right on average."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

LARGEST = 20.0
"""Temperatures are from its inverse to this."""
SPREAD = 0.5
"""Standard deviation of what the logarithm of a temperature is expected to be, around 0."""
HALVINGS = 30


def temperature(logits: Tensor, targets: Tensor, total: Callable[[Tensor], Any] = lambda sums: sums) -> float:
    """The temperature t with the least summed cross-entropy of softmax(logits / t), plus (log t)² / (2 · SPREAD²).

    logits: (rows, num_classes). targets: (rows,) int64. total: sums a tensor over all processes. Source: Guo et al.
    2017, arXiv:1706.04599, section 4.2, to which the second term adds a normal prior; without it, a few rows, if all
    are classified correctly, would make t as small as possible, and a later mistake costly. Bisection finds the zero of
    the derivative with respect to -log t. Returns 1 if there is no row or a logit is not finite.
    """
    logits = logits.double()
    of_targets = logits.gather(1, targets.unsqueeze(1)).sum()

    def slope(exponent: float) -> float:
        inverse = math.exp(exponent)
        expected = (torch.softmax(logits * inverse, dim=1) * logits).sum()
        return inverse * float(total(expected - of_targets)) + exponent / SPREAD**2

    if not math.isfinite(slope(0.0)):
        return 1.0
    low, high = -math.log(LARGEST), math.log(LARGEST)
    for _ in range(HALVINGS):
        middle = (low + high) / 2
        low, high = (low, middle) if slope(middle) > 0 else (middle, high)
    return math.exp(-(low + high) / 2)

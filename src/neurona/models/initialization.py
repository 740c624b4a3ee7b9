"""Initial weights of a linear layer, by name of the scheme."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Literal

import torch
from torch import Tensor, nn

Scheme = Literal[
    "auto",
    "he_normal",
    "he_uniform",
    "glorot_normal",
    "glorot_uniform",
    "lecun_normal",
    "lecun_uniform",
    "orthogonal",
    "torch",
]

# He et al. 2015 (arXiv:1502.01852): variance 2 / fan_in. Glorot & Bengio 2010 (AISTATS), eqs. 12 and 16:
# 2 / (fan_in + fan_out). LeCun et al. 1998 (Efficient BackProp), eq. 16: 1 / fan_in. Uniform draws are limited to
# ±√(3 · variance), as Keras' are; normal draws are torch's, not truncated as Keras' are.
_SCHEMES: dict[str, Callable[[Tensor], Tensor]] = {
    "he_normal": partial(nn.init.kaiming_normal_, nonlinearity="relu"),
    "he_uniform": partial(nn.init.kaiming_uniform_, nonlinearity="relu"),
    "glorot_normal": nn.init.xavier_normal_,
    "glorot_uniform": nn.init.xavier_uniform_,
    "lecun_normal": partial(nn.init.kaiming_normal_, nonlinearity="linear"),
    "lecun_uniform": partial(nn.init.kaiming_uniform_, nonlinearity="linear"),
}


@torch.no_grad()
def initialize(
    linear: nn.Linear, scheme: Scheme, *, scale: float | None = None, gated: bool = False, damping: float = 1.0
) -> None:
    """Draws the weights from torch's global generator, so that equal seeds give equal weights; biases become 0.

    scheme: one of ``_SCHEMES``, or
        auto: normal with variance scale / fan_in, times damping²; ``glorot_uniform`` where scale is None;
        orthogonal: Saxe et al. 2014 (arXiv:1312.6120), with gain √scale, 1 where scale is None;
        torch: what ``nn.Linear`` itself drew, biases included.
    scale: of the activation that follows, see ``Activation``.
    gated: value and gate are two matrices, each with a fan_out of its own.
    """
    if scheme == "torch":
        return
    if linear.bias is not None:
        nn.init.zeros_(linear.bias)
    for weight in linear.weight.chunk(2 if gated else 1):
        if scheme == "orthogonal":
            nn.init.orthogonal_(weight, gain=math.sqrt(scale or 1.0))
        elif scheme != "auto":
            _SCHEMES[scheme](weight)
        elif scale is None:
            nn.init.xavier_uniform_(weight, gain=damping)
        else:
            nn.init.normal_(weight, std=damping * math.sqrt(scale / linear.in_features))

"""Learned embeddings of category ids and of numbers, before any network that has something to embed."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import accumulate
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn.functional import embedding

from neurona.errors import ConfigError


class Embedding(nn.Module):
    """(batch, num_features) preprocessed → (batch, num_outputs): numbers, what is passed on, embeddings of the ids.

    num_numbers: how many of the first columns are a number each. cardinalities: how many ids each of the last columns
    has, 0 … cardinality - 1. Code provides these.

    dimension: length of a category's vector, drawn from N(0, 1) / √dimension; that of id 0, which training may never
    see, starts as 0. numbers: "none" passes them on; "periodic" makes ReLU(W [sin v, cos v] + b) of each number x,
    of length dimension, with v = 2π (c₁ x, …, c_k x), k learned frequencies c drawn from N(0, sigma²) (Gorishniy et al.
    2022, arXiv:2203.05556, section 3.3). Raises ConfigError (embedding.…).
    """

    compilable = True

    starts: Tensor

    def __init__(
        self,
        num_features: int,
        num_numbers: int,
        cardinalities: Sequence[int],
        *,
        dimension: int = 8,
        numbers: Literal["none", "periodic"] = "none",
        frequencies: int = 16,
        sigma: float = 0.1,
    ) -> None:
        super().__init__()
        for name, size in (("dimension", dimension), ("frequencies", frequencies)):
            if not 1 <= size < 2**16:
                raise ConfigError(f"embedding.{name}", size, "must be at least 1, and below 65536")
        if not 0 < sigma < math.inf:
            raise ConfigError("embedding.sigma", sigma, "must be above 0, and finite")
        if numbers == "periodic" and not num_numbers:
            problem = "embeds single numbers, of which there are none; use data.numeric_encoding=quantile, or standard"
            raise ConfigError("embedding.numbers", numbers, problem)
        self.num_numbers = num_numbers if numbers == "periodic" else 0
        self.num_passed = num_features - self.num_numbers - len(cardinalities)
        self.num_outputs = self.num_passed + dimension * (self.num_numbers + len(cardinalities))
        if self.num_numbers:
            self.frequencies = nn.Parameter(torch.randn(num_numbers, frequencies) * sigma)
            bound = 1 / math.sqrt(2 * frequencies)  # as nn.Linear
            self.weight = nn.Parameter(torch.empty(num_numbers, 2 * frequencies, dimension).uniform_(-bound, bound))
            self.bias = nn.Parameter(torch.zeros(num_numbers, dimension))
        if cardinalities:
            self.categories = nn.Parameter(torch.randn(sum(cardinalities), dimension) / math.sqrt(dimension))
            starts = torch.tensor([0, *accumulate(cardinalities)][:-1])
            self.register_buffer("starts", starts, persistent=False)
            with torch.no_grad():
                self.categories[starts] = 0.0

    def forward(self, features: Tensor) -> Tensor:
        ends = [self.num_numbers, self.num_numbers + self.num_passed]
        numbers, passed, ids = features.tensor_split(ends, dim=1)
        parts = [passed]
        if self.num_numbers:
            angles = 2 * math.pi * self.frequencies * numbers.unsqueeze(2)
            waves = torch.cat([angles.sin(), angles.cos()], dim=2)
            parts.insert(0, (torch.einsum("bnk,nkd->bnd", waves, self.weight) + self.bias).relu().flatten(1))
        if ids.shape[1]:
            parts.append(embedding(ids.long() + self.starts, self.categories).flatten(1))
        return torch.cat(parts, dim=1)

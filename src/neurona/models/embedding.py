"""Learned embeddings of category ids and of numbers, before any network that has something to embed."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import accumulate
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn.functional import embedding

from neurona.errors import ConfigError, check_range

MOST_EMBEDDED = 256
"""Numbers of a row that "auto" embeds."""


class Embedding(nn.Module):
    """(batch, num_features) preprocessed → (batch, num_outputs): numbers, what is passed on, embeddings of the ids.

    num_numbers: how many of the first columns are a number each. cardinalities: how many ids each of the last columns
    has, 0 … cardinality - 1. Code provides these.

    dimension: length of a category's vector, drawn from N(0, 1) / √dimension; that of id 0, which training may never
    see, starts as 0. numbers: what becomes of each number x, with v = 2π (c₁ x, …, c_k x), k learned frequencies c
    drawn from N(0, sigma²):

        none: it is passed on.
        periodic: ReLU(W [sin v, cos v] + b), of length number_dimension (Gorishniy et al. 2022, arXiv:2203.05556,
            section 3.3).
        pbld: W cos(v + φ) + b and x itself, of length number_dimension together, with learned phases φ, at the start
            even from -π to π (Holzmüller et al. 2024, arXiv:2407.04491, section 3.1).
        auto: pbld of 1 to 256 numbers, which is neither without effect nor too wide.

    number_dimension: None means dimension. Raises ConfigError (embedding.…).
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
        numbers: Literal["none", "periodic", "pbld", "auto"] = "none",
        number_dimension: int | None = None,
        frequencies: int = 16,
        sigma: float = 0.1,
    ) -> None:
        super().__init__()
        length = dimension if number_dimension is None else number_dimension
        kind = numbers if numbers != "auto" else ("pbld" if 1 <= num_numbers <= MOST_EMBEDDED else "none")
        least = 2 if numbers in ("pbld", "auto") else 1
        least_dimension = least if number_dimension is None else 1
        check_range("embedding.dimension", dimension, least=least_dimension, below=2**16)
        check_range("embedding.number_dimension", number_dimension, least=least, below=2**16)
        check_range("embedding.frequencies", frequencies, least=1, below=2**16)
        check_range("embedding.sigma", sigma, above=0)
        if numbers in ("periodic", "pbld") and not num_numbers:
            makes = (
                "data.numeric_encoding=quantile or standard makes them of a table's, embedding.numbers=none embeds none"
            )
            raise ConfigError("embedding.numbers", numbers, f"embeds single numbers, of which there are none; {makes}")
        self.num_numbers = num_numbers if kind != "none" else 0
        self.num_passed = num_features - self.num_numbers - len(cardinalities)
        self.num_outputs = self.num_passed + length * self.num_numbers + dimension * len(cardinalities)
        self.is_periodic = kind == "periodic"
        if self.num_numbers:
            self._embed_numbers(num_numbers, frequencies, length, sigma)
        if cardinalities:
            self.categories = nn.Parameter(torch.randn(sum(cardinalities), dimension) / math.sqrt(dimension))
            starts = torch.tensor([0, *accumulate(cardinalities)][:-1])
            self.register_buffer("starts", starts, persistent=False)
            with torch.no_grad():
                self.categories[starts] = 0.0

    def _embed_numbers(self, count: int, frequencies: int, length: int, sigma: float) -> None:
        self.frequencies = nn.Parameter(torch.randn(count, frequencies) * sigma)
        waves, outputs = (2 * frequencies, length) if self.is_periodic else (frequencies, length - 1)
        bound = 1 / math.sqrt(waves)  # as nn.Linear
        self.weight = nn.Parameter(torch.empty(count, waves, outputs).uniform_(-bound, bound))
        self.bias = nn.Parameter(torch.zeros(count, outputs))
        if not self.is_periodic:
            self.phases = nn.Parameter(torch.empty(count, frequencies).uniform_(-math.pi, math.pi))

    def forward(self, features: Tensor) -> Tensor:
        ends = [self.num_numbers, self.num_numbers + self.num_passed]
        numbers, passed, ids = features.tensor_split(ends, dim=1)
        parts = [passed]
        if self.num_numbers:
            angles = 2 * math.pi * self.frequencies * numbers.unsqueeze(2)
            is_periodic = self.is_periodic
            waves = torch.cat([angles.sin(), angles.cos()], dim=2) if is_periodic else (angles + self.phases).cos()
            outputs = torch.einsum("bnk,nkd->bnd", waves, self.weight) + self.bias
            parts.insert(0, outputs.relu().flatten(1) if is_periodic else outputs.flatten(1))
            if not is_periodic:
                parts.insert(1, numbers)
        if ids.shape[1]:
            parts.append(embedding(ids.long() + self.starts, self.categories).flatten(1))
        return torch.cat(parts, dim=1)

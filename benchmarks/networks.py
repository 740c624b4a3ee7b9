"""The networks that are trained, and how neurona is told to train them. Imports neither torch nor TensorFlow."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal


@dataclass(frozen=True)
class Network:
    """An MLP with ReLU and ten classes, and the data it is trained on.

    num_samples: rows in all; 70 % of them train, 10 % validate, 20 % test. dtype: as neurona holds them; the other
    contenders are handed scaled float32. epochs: timed ones in a repeat. dropout: of neurona's network alone.
    """

    num_features: int
    hidden: Sequence[int]
    batch_size: int
    num_samples: int
    dtype: Literal["float32", "uint8"]
    epochs: int
    dropout: float = 0.0

    @property
    def widths(self) -> tuple[int, ...]:
        return (self.num_features, *self.hidden, 10)

    @property
    def num_parameters(self) -> int:
        return sum((before + 1) * after for before, after in pairwise(self.widths))

    @property
    def flops_per_step(self) -> float:
        """6 for each parameter and sample: forward 2, backward 4."""
        return 6.0 * self.num_parameters * self.batch_size

    @property
    def products_per_step(self) -> float:
        """Operations of the matrix products that a step needs, none for the gradient of the features; the mean over an
        epoch, whose last mini-batch is smaller.
        """
        weights = [before * after for before, after in pairwise(self.widths)]
        return (6.0 * sum(weights) - 2.0 * weights[0]) * self.num_train / self.steps_per_epoch

    @property
    def num_train(self) -> int:
        return self.num_samples - round(0.1 * self.num_samples) - round(0.2 * self.num_samples)

    @property
    def steps_per_epoch(self) -> int:
        return math.ceil(self.num_train / self.batch_size)

    @property
    def overrides(self) -> list[str]:
        """The network and its data, for ``neurona.run``; the classes of this folder are allowed."""
        data = [] if self.is_lesson else self._synthetic
        return [
            "data=lesson",
            *data,
            f"data.num_samples={self.num_samples}",
            f"data.batch_size={self.batch_size}",
            f"model.hidden={list(self.hidden)}",
            f"model.dropout={self.dropout}",
            "allow=[synthetic,callbacks]",
        ]

    @property
    def _synthetic(self) -> list[str]:
        return [
            "data._target_=synthetic.Synthetic",
            "~data.noise",
            f"+data.num_features={self.num_features}",
            f"+data.dtype={self.dtype}",
            f"data.scaling={self.scaling}",
        ]

    @property
    def scaling(self) -> Literal["unit", "standard"]:
        return "unit" if self.dtype == "uint8" else "standard"

    @property
    def is_lesson(self) -> bool:
        return self.num_features == 100 and self.dtype == "float32"


NETWORKS = {
    "lesson": Network(100, (64, 64), 32, 10_000, "float32", epochs=10),
    "medium": Network(784, (256, 256), 128, 80_000, "uint8", epochs=2),
    "wide": Network(784, (2048, 2048), 1024, 40_000, "uint8", epochs=3),
}

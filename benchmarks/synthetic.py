"""Data of any shape: ten classes, a random mean for each and noise around it."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from networks import Network

from neurona.data.base import InMemoryData, Table
from neurona.data.lesson import Lesson
from neurona.data.preprocessing import Scaling

NUM_CLASSES = 10
SEPARATION = 1.5
"""Of a class from the centre, in standard deviations of the noise: neither loss nor gradients vanish."""
NOISE = 192  # grey levels, uniform


class Synthetic(InMemoryData):
    """num_samples rows of num_features columns, float32 around 0 or uint8 "pixels" around grey; as many of each class.

    The other parameters are ``InMemoryData``'s.
    """

    def __init__(
        self,
        *,
        num_samples: int = 10_000,
        num_features: int = 784,
        dtype: Literal["float32", "uint8"] = "float32",
        seed: int = 0,
        batch_size: int = 32,
        eval_batch_size: int = 4096,
        val_fraction: float = 0.1,
        test_fraction: float = 0.2,
        folds: int | None = None,
        fold: int | None = None,
        split_seed: int = 0,
        shuffle_seed: int = 0,
        scaling: Scaling = "standard",
    ) -> None:
        super().__init__(
            batch_size=batch_size,
            eval_batch_size=eval_batch_size,
            val_fraction=val_fraction,
            test_fraction=test_fraction,
            folds=folds,
            fold=fold,
            split_seed=split_seed,
            shuffle_seed=shuffle_seed,
            scaling=scaling,
        )
        self.num_samples, self.num_features, self.dtype, self.seed = num_samples, num_features, dtype, seed

    def read(self) -> Table:
        generator = torch.Generator().manual_seed(self.seed)
        shape = (self.num_samples, self.num_features)
        if self.dtype == "uint8":
            features = torch.empty(shape, dtype=torch.uint8).random_(0, NOISE, generator=generator)
            levels = min(255 - NOISE, round(NOISE * SEPARATION / self.num_features**0.5))
            means = torch.randint(levels + 1, (NUM_CLASSES, self.num_features), generator=generator, dtype=torch.uint8)
        else:
            features = torch.empty(shape).normal_(generator=generator)
            means = torch.randn(NUM_CLASSES, self.num_features, generator=generator)
            means *= SEPARATION / self.num_features**0.5
        for index, mean in enumerate(means):
            features[index::NUM_CLASSES] += mean  # in place: no second copy of the data
        return Table(features, torch.arange(self.num_samples) % NUM_CLASSES, tuple(map(str, range(NUM_CLASSES))))


def write_training_rows(network: Network, folder: Path) -> None:
    """Writes the rows that neurona trains on, scaled: ``features.npy`` (n, num_features) float32, ``targets.npy``."""
    data = (
        Lesson(num_samples=network.num_samples)
        if network.is_lesson
        else Synthetic(
            num_samples=network.num_samples,
            num_features=network.num_features,
            dtype=network.dtype,
            scaling=network.scaling,
        )
    )
    data.setup()
    np.save(folder / "features.npy", data.preprocessing(data.features[data.train_rows]).numpy())
    np.save(folder / "targets.npy", data.targets[data.train_rows].numpy())


if __name__ == "__main__":
    write_training_rows(Network(**json.loads(sys.argv[1])), Path(sys.argv[2]))

"""Writes any number of predictions to a CSV file, batch by batch."""

from __future__ import annotations

import csv
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer

from neurona.errors import ConfigError


class AsGiven:
    """A loader that Lightning takes as it is: it would make a DataLoader anew, which fails on positional arguments."""

    def __init__(self, loader: Any) -> None:
        self.loader = loader

    def __iter__(self) -> Iterator[Any]:
        return iter(self.loader)

    def __len__(self) -> int:
        return len(self.loader)


class CsvPredictions(Callback):
    """One line per row: its index, target, predicted class (id and name) and a probability per class.

    rows: the index of each row in its data set, in the order of prediction; None numbers them from 0. A negative target
    is one that is not known, and left empty. The file appears under its name once it is complete.
    """

    def __init__(self, path: Path, class_names: Sequence[str], rows: torch.Tensor | None = None) -> None:
        self.path = path
        self.class_names = class_names
        self.rows = rows
        self._temporary = path.with_suffix(".tmp")

    def on_predict_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        if batch_idx:
            return
        self._file = self._temporary.open("w", newline="", encoding="utf-8")
        self._writer = csv.writer(self._file)
        self._writer.writerow(["row", "target", "prediction", "class", *(f"p({name})" for name in self.class_names)])
        self._count = 0

    def on_predict_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, *args: Any, **kwargs: Any
    ) -> None:
        match outputs:
            case [torch.Tensor(ndim=2) as probabilities, torch.Tensor() as targets] if probabilities.shape == (
                len(targets),
                len(self.class_names),
            ):
                probabilities, targets = probabilities.cpu(), targets.cpu()
            case _:
                problem = "its predict_step must return two tensors: the probabilities (batch, num_classes) and the"
                problem += " targets (batch,), as super().predict_step(batch, batch_idx) does"
                raise ConfigError("classifier", type(pl_module).__qualname__, problem)
        predictions = probabilities.argmax(1).tolist()
        indices = range(self._count, self._count + len(targets))
        rows = indices if self.rows is None else self.rows[indices.start : indices.stop].tolist()
        for row, target, prediction, shares in zip(
            rows, targets.tolist(), predictions, probabilities.tolist(), strict=True
        ):
            shown = target if target >= 0 else ""
            self._writer.writerow([row, shown, prediction, self.class_names[prediction], *shares])
        self._count = indices.stop

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        self._temporary.unlink(missing_ok=True)

    def on_predict_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._file.close()
        os.replace(self._temporary, self.path)

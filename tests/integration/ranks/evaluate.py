"""Run as several ranks: validates a fixed network on each of the numbers of rows given; rank 0 writes the figures."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import torch
from lightning.pytorch import LightningDataModule, Trainer

from neurona.classifier import Classifier
from neurona.data.batches import BatchLoader
from neurona.data.preprocessing import Standardize
from neurona.data.spec import DataSpec
from neurona.devices import distributed
from neurona.models.mlp import MLP
from neurona.stages import console

FEATURES, CLASSES, BATCH = 6, 3, 16
ROWS = 40


class Rows(LightningDataModule):
    def __init__(self, number: int) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(1)
        self.features = torch.randn(ROWS, FEATURES, generator=generator)
        self.targets = torch.randint(0, CLASSES, (ROWS,), generator=generator)
        self.rows = torch.arange(number)

    def val_dataloader(self) -> BatchLoader:
        return BatchLoader(self.features, self.targets, self.rows, BATCH, trainer=self.trainer)


def main(file: Path, numbers: list[int]) -> None:
    torch.set_num_threads(1)
    torch.manual_seed(0)
    console.quieten(True)
    network = MLP(FEATURES, CLASSES, hidden=[16], normalization="batch")
    classifier = Classifier(Standardize(FEATURES), network, DataSpec(FEATURES, CLASSES, tuple("abc")))
    figures = []
    for number in numbers:
        trainer = Trainer(
            accelerator="cpu",
            devices=distributed.local_world_size(),
            strategy=distributed.DataParallel() if distributed.world_size() > 1 else "auto",
            plugins=[distributed.environment()],
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
        )
        trainer.validate(classifier, Rows(number), verbose=False)
        scalars = {name: value.item() for name, value in trainer.callback_metrics.items()}
        figures.append({"rows": number, "confusion": classifier.confusion_matrix, **scalars})
    if distributed.rank() == 0:
        file.write_text(json.dumps(figures), encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]), [int(number) for number in sys.argv[2:]])

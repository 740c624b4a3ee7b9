"""The loss curve of a fixed small fit: python tests/golden/make.py writes it anew to digits.json.

Do so only for a change that is meant to alter what training computes, and say in its commit why.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback, Trainer

from neurona import schedule
from neurona.classifier import Classifier
from neurona.data.digits import Digits
from neurona.models.mlp import MLP
from neurona.optimizer import Optimization

FILE = Path(__file__).with_name("digits.json")
FIGURES = ("train/loss", "val/loss")


class Curve(Callback):
    """Collects the losses of every epoch."""

    def __init__(self) -> None:
        self.figures: dict[str, list[float]] = {name: [] for name in FIGURES}

    def on_validation_end(self, trainer: Trainer, pl_module: Any) -> None:
        self.figures["val/loss"].append(trainer.callback_metrics["val/loss"].item())

    def on_train_epoch_end(self, trainer: Trainer, pl_module: Any) -> None:
        self.figures["train/loss"].append(pl_module.epoch_means()[0])


def loss_curve() -> dict[str, list[float]]:
    """Five epochs of 128-64 ReLU on the digits: Adam, batches of 32, a cosine; the losses of every epoch.

    No dropout: torch draws its masks with MKL where there is one, and otherwise on other machines.
    """
    torch.manual_seed(0)
    data = Digits(batch_size=32)
    network = MLP(data.spec.num_features, data.spec.num_classes, hidden=[128, 64])
    optimization = Optimization.of(torch.optim.Adam, lr=1e-3, schedule=schedule.cosine())
    curve = Curve()
    trainer = Trainer(
        accelerator="cpu",
        max_epochs=5,
        callbacks=[curve],
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
    )
    trainer.fit(Classifier(data.preprocessing, network, data.spec, optimization), data)
    return curve.figures


if __name__ == "__main__":
    torch.set_num_threads(1)
    FILE.write_text(json.dumps(loss_curve(), indent=2) + "\n", encoding="utf-8")

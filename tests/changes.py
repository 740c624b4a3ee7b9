"""What tests of steps that are recorded share: changes in mid-fit, and networks that do more than compute."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

from lightning.pytorch import Callback
from torch import Tensor

from neurona.models.mlp import MLP


class Changes(Callback):
    """Changes something between the first and the second epoch."""

    def __init__(self, change: Callable[[Any], Any]) -> None:
        self.change = change

    def on_train_epoch_start(self, trainer: Any, pl_module: Any) -> None:
        if trainer.current_epoch == 1:
            self.change(pl_module)


def freeze(classifier: Any) -> None:
    classifier.network.linear1.requires_grad_(False)


def replace(classifier: Any) -> None:
    classifier.network.head.weight.data = classifier.network.head.weight.data.clone() * 0.5


def relabel(classifier: Any) -> None:
    loader = classifier.trainer.train_dataloader
    loader.targets = loader.targets.flip(0)


def smooth(classifier: Any) -> None:
    classifier.label_smoothing = 0.5


def drop(classifier: Any) -> None:
    classifier.network.dropout1.p = 0.9


def evaluate(classifier: Any) -> None:
    classifier.network.dropout1.eval()


class Annealed(MLP):
    """A network that changes a number of its own in every step."""

    compilable = True
    scale = 1.0

    def forward(self, features: Tensor) -> Tensor:
        self.scale = self.scale * 0.99
        return super().forward(features) * self.scale


class Drops(MLP):
    """A network that leaves its hidden layer out now and then (Huang et al. 2016)."""

    compilable = True

    def forward(self, features: Tensor) -> Tensor:
        return super().forward(features) if random.random() < 0.5 else self.head.bias.expand(len(features), -1)

"""What tests of the arithmetic of a fit share: a data module of random numbers, and a look at how steps were taken."""

from __future__ import annotations

from typing import Any

import torch
from lightning.pytorch import Callback, LightningDataModule
from torch import Tensor

from neurona.classifier import Classifier
from neurona.data.batches import BatchLoader


class Noise(LightningDataModule):
    """Features (rows, features) from N(0, 1), targets drawn evenly; training shuffles, the first 100 rows validate.

    on: cpu or gpu, where they are.
    """

    chunk_aware = True

    def __init__(self, rows: int, features: int, classes: int, *, batch_size: int = 16, on: str = "cpu") -> None:
        super().__init__()
        device = "cuda" if on == "gpu" else on
        generator = torch.Generator().manual_seed(0)
        self.features = torch.randn(rows, features, generator=generator).to(device)
        self.targets = torch.randint(0, classes, (rows,), generator=generator).to(device)
        self.class_counts = self.targets.bincount(minlength=classes)
        self.batch_size = batch_size

    def train_dataloader(self) -> BatchLoader:
        rows = torch.arange(len(self.targets))
        return BatchLoader(self.features, self.targets, rows, self.batch_size, shuffle_seed=0, trainer=self.trainer)

    def val_dataloader(self) -> BatchLoader:
        return BatchLoader(self.features, self.targets, torch.arange(100), 64)


def messages(caplog: Any, text: str) -> int:
    """How many say this; pytest may be handed one twice, by a logger and by its parent."""
    return len({id(record) for record in caplog.records if text in record.getMessage()})


def tensors(classifier: Classifier) -> dict[str, Tensor]:
    """Weights, buffers and the optimiser's state, by name."""
    states = classifier.trainer.optimizers[0].state.values()
    found = {f"{index}.{name}": tensor for index, state in enumerate(states) for name, tensor in state.items()}
    return {**classifier.state_dict(), **{name: t for name, t in found.items() if isinstance(t, Tensor)}}


def assert_same(one: Classifier, other: Classifier) -> None:
    """Two fits have come to the same bits."""
    assert (first := tensors(one)).keys() == (second := tensors(other)).keys()
    assert not [name for name in first if not torch.equal(first[name].cpu(), second[name].cpu())]


class KeepsSteps(Callback):
    """Keeps how the steps of a fit were taken, which the classifier gives up when the fit ends."""

    steps: Any = None
    graph: Any = None
    """Of those launched as a CUDA graph."""

    def on_train_end(self, trainer: Any, pl_module: Any) -> None:
        self.steps = pl_module.fast_way.steps if pl_module.fast_way is not None else None
        self.graph = getattr(self.steps, "_graph", None)


class Logs(Classifier):
    """Says wrongly that its loss but computes with tensors: it logs."""

    compilable = True

    def loss(self, features: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        loss, logits = super().loss(features, targets)
        self.log("mine", loss.detach())
        return loss, logits


class Anneals(Classifier):
    """Says wrongly that its loss but computes with tensors: it reads the step."""

    compilable = True

    def loss(self, features: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        loss, logits = super().loss(features, targets)
        return loss / (1 + self.global_step), logits


ASKING = {"logs": Logs, "reads the Trainer's global_step": Anneals}
"""By what the refusal of a recorded step says of them."""

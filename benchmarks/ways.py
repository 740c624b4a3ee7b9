"""Lightning's own way beside plain Lightning: ``python benchmarks/ways.py [--repeats 5]``.

The lesson's network (100 → 64 → 64 → 10, Adam, mini-batches of 32) over the same mini-batches in memory, on one thread,
with a callback that asks for every mini-batch. Neither validates, logs to files or saves. Prints the microseconds of a
step in the fastest epoch of each, and the project's as a ratio to a module that does nothing but return its loss, and
to one that also has Lightning average its loss for the epoch, as the project does for loss and accuracy.
"""

from __future__ import annotations

import argparse
import logging
import statistics
import time
import warnings
from typing import Any

import torch
from lightning.pytorch import Callback, LightningDataModule, LightningModule, Trainer
from torch import Tensor, nn
from torch.utils.data import DataLoader

from neurona.classifier import Classifier
from neurona.data.preprocessing import Standardize
from neurona.data.spec import DataSpec
from neurona.models.mlp import MLP
from neurona.optimizer import Optimization

STEPS, BATCH, FEATURES, CLASSES, EPOCHS = 219, 32, 100, 10, 6


class InMemory(LightningDataModule):
    """Mini-batches that are made already."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.batches = [(torch.randn(BATCH, FEATURES), torch.randint(CLASSES, (BATCH,))) for _ in range(STEPS)]

    def train_dataloader(self) -> DataLoader[Any]:
        return DataLoader(self.batches, batch_size=None)  # type: ignore[arg-type]


class Plain(LightningModule):
    """What Lightning's documentation begins with. logs: whether Lightning averages its loss for the epoch."""

    def __init__(self, *, logs: bool) -> None:
        super().__init__()
        self.logs = logs
        self.network = nn.Sequential(
            nn.Linear(FEATURES, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, CLASSES)
        )

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        features, targets = batch
        loss = nn.functional.cross_entropy(self.network(features), targets)
        if self.logs:
            self.log("train/loss", loss, on_step=False, on_epoch=True)
        return loss

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.Adam(self.parameters())


class Watch(Callback):
    """Asks for every mini-batch, and times the epochs."""

    def __init__(self) -> None:
        self.seconds: list[float] = []

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.started = time.perf_counter()

    def on_train_batch_end(self, *args: Any, **kwargs: Any) -> None:
        pass

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.seconds.append(time.perf_counter() - self.started)


def step_microseconds(module: LightningModule, data: InMemory) -> float:
    watch = Watch()
    trainer = Trainer(
        accelerator="cpu", devices=1, max_epochs=EPOCHS, callbacks=[watch], logger=False, enable_checkpointing=False,
        enable_progress_bar=False, enable_model_summary=False,
    )  # fmt: skip
    trainer.fit(module, data)
    if trainer.global_step != EPOCHS * STEPS or getattr(module, "is_fast", False):
        raise RuntimeError("these are not Lightning's own steps")
    return 1e6 * min(watch.seconds) / STEPS


def classifier() -> Classifier:
    network = MLP(FEATURES, CLASSES, hidden=[64, 64], activation="relu")
    spec = DataSpec(FEATURES, CLASSES, tuple("abcdefghij"))
    return Classifier(Standardize(FEATURES), network, spec, Optimization.of(torch.optim.Adam, lr=1e-3))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--repeats", type=int, default=5, help="rounds")
    repeats = parser.parse_args().repeats
    warnings.filterwarnings("ignore")
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    torch.set_num_threads(1)
    data = InMemory()
    makers = {
        "plain": lambda: Plain(logs=False),
        "plain, loss averaged": lambda: Plain(logs=True),
        "neurona, Lightning's way": classifier,
    }
    rounds = [{name: step_microseconds(make(), data) for name, make in makers.items()} for _ in range(repeats)]
    print("contender                 µs per step  to plain  to plain, loss averaged")
    for name in makers:
        columns = [
            statistics.median(one[name] / one[other] for one in rounds) for other in ("plain", "plain, loss averaged")
        ]
        microseconds = statistics.median(one[name] for one in rounds)
        print(f"{name:<26}{microseconds:11.0f}{columns[0]:10.2f}{columns[1]:25.2f}")


if __name__ == "__main__":
    main()

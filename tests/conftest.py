"""What all tests share: one thread, a silent Trainer, and two tensors as a data module."""

from __future__ import annotations

import logging
import math
import signal
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import LightningDataModule, Trainer
from torch import Tensor, nn

from neurona.classifier import Classifier
from neurona.data.batches import BatchLoader
from neurona.data.spec import DataSpec
from neurona.optimizer import Optimization


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    if not torch.cuda.is_available():
        for item in items:
            if item.get_closest_marker("gpu"):
                item.add_marker(pytest.mark.skip(reason="no GPU"))


@pytest.fixture(scope="session", autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="session", autouse=True)
def _heard_signals() -> None:
    """A shell's background job ignores Ctrl-C, one under nohup a closed terminal, and so would every process that a
    test starts and interrupts.
    """
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGHUP, signal.SIG_DFL)


@pytest.fixture(autouse=True)
def _logger_as_ever() -> Iterator[None]:
    """A run in this process takes the project's messages to a console of its own, and so from ``caplog``; Hydra may
    disable all loggers that there are, and have the root take errors only.
    """
    level = logging.root.level
    yield
    logging.root.setLevel(level)
    logger = logging.getLogger("neurona")
    logger.handlers.clear()
    logger.propagate = True
    logger.setLevel(logging.NOTSET)
    for name, one in logging.root.manager.loggerDict.items():
        if name.startswith("neurona") and isinstance(one, logging.Logger):
            one.disabled = False


@pytest.fixture(autouse=True)
def _seeded() -> None:
    """Every test draws the same numbers, whichever tests run before it."""
    torch.manual_seed(0)


@pytest.fixture
def _every_epoch(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every epoch has its checkpoint, however short it is."""
    monkeypatch.setattr("neurona.callbacks.save_timer.PAUSE_SECONDS", 0.0)
    monkeypatch.setattr("neurona.callbacks.save_timer.SHARE_OF_TIME", math.inf)


class Rows(LightningDataModule):
    """Two tensors: all rows train, in their order unless there is a seed; all of them validate, test and predict."""

    chunk_aware = True

    def __init__(
        self,
        features: Tensor,
        targets: Tensor,
        batch_size: int,
        *,
        shuffle_seed: int | None = None,
    ) -> None:
        super().__init__()
        self.features, self.targets, self.batch_size = features, targets, batch_size
        self.shuffle_seed = shuffle_seed

    @property
    def class_counts(self) -> Tensor:
        return self.targets.bincount()

    def _in_order(self) -> BatchLoader:
        return BatchLoader(self.features, self.targets, torch.arange(len(self.targets)), 64)

    def train_dataloader(self) -> BatchLoader:
        rows = torch.arange(len(self.targets))
        return BatchLoader(
            self.features, self.targets, rows, self.batch_size, shuffle_seed=self.shuffle_seed, trainer=self.trainer
        )

    def val_dataloader(self) -> BatchLoader:
        return self._in_order()

    def test_dataloader(self) -> BatchLoader:
        return self._in_order()

    def predict_dataloader(self) -> BatchLoader:
        return self._in_order()


@pytest.fixture
def rows() -> type[Rows]:
    return Rows


@pytest.fixture
def make_trainer(tmp_path: Path) -> Callable[..., Trainer]:
    """A Trainer of one epoch without validation that prints and writes nothing; callbacks and any argument on top."""

    def make(*callbacks: Any, **arguments: Any) -> Trainer:
        silent: dict[str, Any] = {
            "accelerator": "cpu",
            "max_epochs": 1,
            "limit_val_batches": 0,
            "logger": False,
            "enable_checkpointing": False,
            "enable_progress_bar": False,
            "enable_model_summary": False,
            "num_sanity_val_steps": 0,
            "default_root_dir": tmp_path,
        }
        return Trainer(callbacks=list(callbacks), **silent | arguments)

    return make


@pytest.fixture
def make_classifier() -> Callable[..., Classifier]:
    """A classifier on features as they are; SGD at a constant rate of 0.1 unless told otherwise."""

    def make(
        network: nn.Module,
        num_features: int,
        num_classes: int,
        optimization: Optimization | None = None,
        *,
        kind: type[Classifier] = Classifier,
        **arguments: Any,
    ) -> Classifier:
        spec = DataSpec(num_features, num_classes, tuple(f"class {index}" for index in range(num_classes)))
        optimization = optimization or Optimization.of(torch.optim.SGD, lr=0.1)
        return kind(nn.Identity(), network, spec, optimization, **arguments)

    return make


@pytest.fixture
def with_val_losses() -> Callable[[Sequence[float]], type[Classifier]]:
    """A classifier whose validations report these values as val/loss, one after the other."""

    def make(values: Sequence[float]) -> type[Classifier]:
        following = iter(values)

        class Scripted(Classifier):
            def report(self, figures: dict[str, float]) -> None:
                super().report({**figures, "val/loss": next(following)} if "val/loss" in figures else figures)

        return Scripted

    return make

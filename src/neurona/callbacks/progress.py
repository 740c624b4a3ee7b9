"""Progress of a fit: a bar with epoch, optimiser steps, speed, loss and accuracy, and one line per epoch."""

from __future__ import annotations

import logging
import math
import sys
import time
from collections.abc import Iterable, Iterator
from typing import Any, TypeVar

from lightning.pytorch import Callback, Trainer
from tqdm import tqdm

from neurona.classifier import Classifier
from neurona.errors import ConfigError

log = logging.getLogger(__name__)

T = TypeVar("T")


MOST_LINES = 30
"""Of a history: of a longer fit, every so many epochs have one."""


class Progress(Callback):
    """A bar over the steps of the fit, on a terminal, and lines that stay.

    history: a line an epoch, some thirty lines of a longer fit. every_seconds: without a terminal or a history, an
    epoch that ends so long after the last line has one.
    """

    chunk_aware = True

    def __init__(self, *, every_seconds: float = 10.0, history: bool = True) -> None:
        if not every_seconds >= 0:
            raise ConfigError("trainer.callbacks.progress.every_seconds", every_seconds, "must be 0 or more")
        self.every_seconds, self.history = every_seconds, history
        self._bar: Any = None
        self._last_line = 0.0

    def on_train_start(self, trainer: Trainer, pl_module: Classifier) -> None:  # type: ignore[override]
        self._last_line = time.monotonic()
        total = pl_module.total_steps()
        self._bar = _bar(
            total=None if math.isinf(total) else int(total),
            initial=trainer.global_step,
            unit="step",
        )

    def on_train_batch_end(self, trainer: Trainer, pl_module: Classifier, *_: Any) -> None:  # type: ignore[override]
        if not self._bar.disable and self._bar.update(trainer.global_step - self._bar.n):
            self._show(trainer, pl_module)

    def _show(self, trainer: Trainer, pl_module: Classifier) -> None:
        figures = _training(pl_module) | _validation(trainer)
        figures = {name.removeprefix("train/").replace("accuracy", "acc"): value for name, value in figures.items()}
        self._bar.set_description(f"epoch {trainer.current_epoch + 1}/{trainer.max_epochs}", refresh=False)
        self._bar.set_postfix({name: f"{value:.4f}" for name, value in figures.items()})

    def on_train_epoch_end(self, trainer: Trainer, pl_module: Classifier) -> None:  # type: ignore[override]
        epoch, epochs, now = trainer.current_epoch + 1, trainer.max_epochs, time.monotonic()
        is_late = self._bar.disable and now - self._last_line >= self.every_seconds
        is_listed = self.history and epochs not in (None, -1) and epoch % math.ceil(epochs / MOST_LINES) == 0
        if not (is_late or is_listed):
            return
        self._last_line = now
        # Lightning calls this before the module has reported its epoch.
        figures = _training(pl_module) | _validation(trainer)
        shown = "  ".join(f"{name} {value:.4f}" for name, value in figures.items())
        with self._bar.external_write_mode():
            log.info("epoch %d/%s  step %d  %s", epoch, epochs, trainer.global_step, shown)

    def on_train_end(self, *_: Any) -> None:
        self._bar.close()

    def on_exception(self, *_: Any) -> None:
        if self._bar is not None:
            self._bar.close()


def followed(items: Iterable[T], total: int, name: str, unit: str, *, every_seconds: float = 10.0) -> Iterator[T]:
    """The same items, so many; a bar over them on a terminal, elsewhere a line every so many seconds."""
    last_line = time.monotonic()
    with _bar(desc=name, total=total, unit=unit) as bar:
        for number, item in enumerate(items, start=1):
            yield item
            bar.update()
            if bar.disable and time.monotonic() - last_line >= every_seconds:
                last_line = time.monotonic()
                log.info("%s  %s %d/%d", name, unit, number, total)


def _bar(**arguments: Any) -> Any:
    return tqdm(
        leave=False,
        dynamic_ncols=True,
        bar_format="{desc} {n_fmt}/{total_fmt} [{elapsed}<{remaining}, {rate_fmt}{postfix}]",
        disable=not (sys.stderr.isatty() and log.isEnabledFor(logging.INFO)),
        **arguments,
    )


TRAINING_FIGURES = ("train/loss", "train/accuracy")
VALIDATION_FIGURES = ("val/loss", "val/accuracy")


def _training(pl_module: Classifier) -> dict[str, float]:
    """The epoch's figures so far, without those that a training step of one's own does not tell; a loss that is NaN
    ends a run before.
    """
    figures = dict(zip(TRAINING_FIGURES, pl_module.epoch_means(), strict=True))
    return {name: value for name, value in figures.items() if not math.isnan(value)}


def _validation(trainer: Trainer) -> dict[str, float]:
    """The figures of the last validation, none before the first."""
    return {
        name: trainer.callback_metrics[name].item() for name in VALIDATION_FIGURES if name in trainer.callback_metrics
    }

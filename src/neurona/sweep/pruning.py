"""Ends a run of a search that promises less than the runs before it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer

from neurona.sweep.study import reporter


class Pruning(Callback):
    """Reports a search's objective after each epoch with a validation, and ends the fit where the search's pruner says
    so; the first process decides for all.

    Does nothing in a run that no search waits for. folder: the run's.
    """

    chunk_aware = True

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.has_pruned = False
        self._reporter: Any = None
        self._is_validated = False

    @property
    def ended_fit(self) -> tuple[str, str] | None:
        """``stopped_by`` and a word for it, if this has ended the fit."""
        return ("pruning", "pruned") if self.has_pruned else None

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.is_global_zero:
            self._reporter = reporter(self.folder)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._is_validated = not trainer.sanity_checking

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if not self._is_validated:
            return
        self._is_validated = False
        if self._reporter is not None:
            value = trainer.callback_metrics[self._reporter.metric].item()
            self.has_pruned = self._reporter.is_hopeless(value, trainer.current_epoch)
        self.has_pruned = trainer.strategy.broadcast(self.has_pruned)
        trainer.should_stop |= self.has_pruned

"""Ends a run of a search that promises less than the runs before it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from omegaconf import OmegaConf


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

    @classmethod
    def of(cls, folder: Path) -> list[Callback]:
        """The callback for a run, if it lies in the folder of a search with a pruner."""
        settings = folder.parent / "search.yaml"
        is_trial = folder.name.isdecimal() and settings.is_file()
        return [cls(folder)] if is_trial and OmegaConf.load(settings).pruner != "none" else []

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.is_global_zero:
            from neurona.sweep.study import reporter

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

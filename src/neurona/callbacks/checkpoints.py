"""Keeps two checkpoints of a run: the best by a validation figure, and the last."""

from __future__ import annotations

import math
import os
from pathlib import Path
from typing import Any, Literal

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Checkpoint

from neurona import chunking
from neurona.config import ConfigError


class BestAndLast(Checkpoint):
    """Writes ``best.ckpt`` when a validation improves on ``monitor`` and ``last.ckpt`` after every epoch.

    Without a validation part the best is the last. every_n_steps: also ``last.ckpt`` after so many optimiser steps.
    folder: where both go. A run killed at any moment has a best that is at least as new as what its last remembers.
    """

    chunk_aware = True

    def __init__(
        self,
        folder: str,
        *,
        monitor: str = "val/loss",
        mode: Literal["min", "max"] = "min",
        every_n_steps: int | None = None,
    ) -> None:
        if every_n_steps is not None and every_n_steps < 1:
            raise ConfigError(
                "trainer.callbacks.checkpoints.every_n_steps", every_n_steps, "must be 1 or more, or null"
            )
        self.best_path = Path(folder) / "best.ckpt"
        self.last_path = Path(folder) / "last.ckpt"
        self.monitor = monitor
        self.sign = 1 if mode == "min" else -1
        self._every_n_train_steps = every_n_steps or 0
        self.best: dict[str, Any] = {}
        """epoch, step, score and, once the epoch has ended, all figures of the best checkpoint."""

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._saved_step, self._due = trainer.global_step, False

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.state.fn != "fit" or trainer.sanity_checking:
            return
        if self.monitor not in trainer.callback_metrics:
            known = ", ".join(sorted(trainer.callback_metrics))
            raise ConfigError(
                "trainer.callbacks.checkpoints.monitor", self.monitor, f"is not among the metrics: {known}"
            )
        score = self.sign * trainer.callback_metrics[self.monitor].item()
        score = math.inf if math.isnan(score) else score
        if not self.best or score < self.best["score"]:
            self._set_best(trainer, score)
            self.best["figures"] = {k: v for k, v in _scalars(trainer).items() if k.startswith("val/")}
            if not trainer.is_last_batch:  # at the end of an epoch one checkpoint, made next, serves as both
                trainer.save_checkpoint(self.best_path)
        if self._due and not trainer.is_last_batch:
            trainer.save_checkpoint(self.last_path)
        self._due = False

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        step = trainer.global_step
        # Once per step, when it is complete: half of an accumulated gradient would be lost.
        if self._every_n_train_steps and step % self._every_n_train_steps == 0 and step != self._saved_step:
            self._saved_step = step
            # One from before a validation would, on a resume, go on behind it: without what it tells plateau and best.
            self._due = chunking.validation_follows(trainer)
            if not self._due:
                trainer.save_checkpoint(self.last_path)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if not trainer.enable_validation:
            self._set_best(trainer, 0.0)
        if self.best and self.best["epoch"] == trainer.current_epoch:
            # The validation that made it the best may not have been the epoch's last.
            self.best["figures"] = _scalars(trainer) | self.best["figures"]
        if self.best.get("step") == trainer.global_step:
            trainer.save_checkpoint(self.best_path)
            if trainer.is_global_zero:
                _link(self.best_path, self.last_path)
        else:
            trainer.save_checkpoint(self.last_path)

    def _set_best(self, trainer: Trainer, score: float) -> None:
        self.best = {"epoch": trainer.current_epoch, "step": trainer.global_step, "score": score, "figures": {}}

    def state_dict(self) -> dict[str, Any]:
        return self.best

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.best = state_dict


def _scalars(trainer: Trainer) -> dict[str, float]:
    return {name: value.item() for name, value in trainer.callback_metrics.items()}


def _link(source: Path, target: Path) -> None:
    """Makes ``target`` another name of ``source``'s contents, in one step."""
    temporary = target.with_suffix(".tmp")
    temporary.unlink(missing_ok=True)
    os.link(source, temporary)
    temporary.replace(target)

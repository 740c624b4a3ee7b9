"""Callbacks that look at a fit from outside. A configuration names them by class, so what they find is on the class."""

from __future__ import annotations

import os
import time
from typing import Any, ClassVar

import torch
from clock import Clock
from lightning.pytorch import Callback, LightningModule, Trainer


class EpochClock(Callback):
    """Times the epochs after the first.

    The steps alone last from the start of an epoch to the start of its validation: loading, logging and progress are
    in, validation, checkpoints and the end of the epoch are not.
    """

    clock: ClassVar[Clock]
    steps: ClassVar[int]
    loss: ClassVar[float]
    threads: ClassVar[int]

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.current_epoch == 1:
            type(self).steps = -trainer.global_step
            self.clock.start()
        self.clock.resume()

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.clock.pause()

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.clock.stop()
        type(self).steps += trainer.global_step
        type(self).loss = trainer.callback_metrics["train/loss"].item()
        type(self).threads = torch.get_num_threads()


class ChunkClock(Callback):
    """Notes the time at the end of every chunk of steps, and how long the order of an epoch takes to draw."""

    chunk_aware = True
    notes: ClassVar[list[tuple[int, int, float, float]]]
    """epoch, optimiser steps taken, wall clock, CPU clock"""
    num_rows: ClassVar[int]
    order_seconds: ClassVar[float]
    threads: ClassVar[int]

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        type(self).notes = []

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        self.notes.append((trainer.current_epoch, trainer.global_step, time.perf_counter(), time.process_time()))

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        loader: Any = trainer.train_dataloader
        started = time.perf_counter()
        type(self).num_rows = len(loader.order(0))
        type(self).order_seconds = time.perf_counter() - started
        type(self).threads = torch.get_num_threads()


class ExitAtFirstStep(Callback):
    """Ends the process, without any cleaning up, at its first optimiser step."""

    STATUS = 42

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        trainer.optimizers[0].register_step_post_hook(lambda *_: os._exit(self.STATUS))

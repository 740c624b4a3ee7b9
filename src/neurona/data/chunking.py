"""Many optimiser steps per Lightning batch: how many, and where chunks end.

Lightning spends some 400 µs on every batch it is handed, as much as a small network needs for a whole step. So the
loader hands it chunks of mini-batches (Keras: ``steps_per_execution``), which end wherever something is to happen.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from lightning.pytorch import Callback, LightningDataModule, LightningModule
from lightning.pytorch.callbacks import DeviceStatsMonitor, ModelCheckpoint, Timer

from neurona.devices.lightning_internals import every_n_steps, position, position_among_validations

Trainer = Any  # Lightning sets most of its attributes where no type checker finds them

MAX_LENGTH = 100
"""Most optimiser steps in a chunk: by then the overhead is 2 % of the smallest network's step, 7 % if compiled."""

MAX_FLOPS = {"cpu": 5e10, "mps": 1e12, "cuda": 5e13}
"""Most arithmetic in a chunk, under a second of the device, so that progress and signals are handled promptly."""

PER_STEP_HOOKS = (
    "on_train_batch_start",
    "on_train_batch_end",
    "on_before_zero_grad",
    "on_before_backward",
    "on_after_backward",
    "on_before_optimizer_step",
)

TRANSFER_HOOKS = ("on_before_batch_transfer", "on_after_batch_transfer", "transfer_batch_to_device")
MODULE_HOOKS = (*PER_STEP_HOOKS, *TRANSFER_HOOKS, "backward")

CHUNK_AWARE_CALLBACKS = (ModelCheckpoint, Timer, DeviceStatsMonitor)
"""Lightning's callbacks whose per-batch hooks do the same work at the boundaries. Others say ``chunk_aware = True``."""


def needs_every_step(callback: Callback) -> bool:
    """Whether a callback overrides a per-step hook and has not declared itself content with the ends of chunks."""
    if isinstance(callback, CHUNK_AWARE_CALLBACKS) or getattr(callback, "chunk_aware", False):
        return False
    return any(_overrides(type(callback), Callback, hook) for hook in PER_STEP_HOOKS)


def listeners(trainer: Trainer) -> list[str]:
    """Names of what wants to see every step; a Lightning batch is then one plain ``(features, targets)``."""
    module = type(trainer.lightning_module)
    if not hasattr(module, "steps_per_batch"):  # not a Classifier: it knows nothing of chunks
        return [module.__name__]
    names = [f"{module.__name__}.{hook}" for hook in MODULE_HOOKS if _overrides(module, LightningModule, hook)]
    if (data := type(trainer.datamodule)) is not type(None):
        names += [f"{data.__name__}.{hook}" for hook in TRANSFER_HOOKS if _overrides(data, LightningDataModule, hook)]
    return names + [type(callback).__name__ for callback in trainer.callbacks if needs_every_step(callback)]


def _overrides(kind: type, base: type, hook: str) -> bool:
    return getattr(kind, hook) is not getattr(base, hook)


def next_length(trainer: Trainer) -> int:
    """Mini-batches in the next chunk, by configuration and counters alone; 0 at the end of the epoch."""
    remaining = int(trainer.num_training_batches) - position(trainer)
    if remaining <= 0 or listeners(trainer):
        return max(min(remaining, 1), 0)
    module = trainer.lightning_module
    limit = module.steps_per_batch * module.optimization.accumulate
    return max(1, min(remaining, limit, *_distances(trainer)))


def _distances(trainer: Trainer) -> Iterator[int]:
    """Mini-batches to each boundary that is not the end of the epoch."""
    accumulate = trainer.lightning_module.optimization.accumulate

    def to_step(step: int) -> int:
        return (step - trainer.global_step) * accumulate - position(trainer) % accumulate

    if trainer.max_steps != -1:
        yield to_step(trainer.max_steps)
    intervals = [trainer.log_every_n_steps if trainer.loggers else 0]
    intervals += [every_n_steps(callback) for callback in trainer.callbacks]
    for interval in filter(None, intervals):
        yield to_step((trainer.global_step // interval + 1) * interval)
    if isinstance(trainer.val_check_batch, int):
        yield trainer.val_check_batch - position_among_validations(trainer) % trainer.val_check_batch


def is_step_complete(trainer: Trainer) -> bool:
    """Whether no accumulated gradient waits for more mini-batches; at the end of any batch but the epoch's last."""
    return position(trainer) % trainer.lightning_module.optimization.accumulate == 0


def is_over(trainer: Trainer) -> bool:
    """Whether the epoch that ends now may be the fit's last."""
    is_last_epoch = trainer.max_epochs not in (None, -1) and trainer.current_epoch + 1 >= trainer.max_epochs
    return trainer.should_stop or is_last_epoch or trainer.global_step >= trainer.max_steps > -1


def most_steps(num_parameters: int, samples_per_step: int, device_type: str) -> int:
    """Optimiser steps that a chunk may hold, at 6 operations per parameter and sample (forward 2, backward 4)."""
    flops_per_step = 6 * num_parameters * samples_per_step
    return int(max(1, min(MAX_LENGTH, MAX_FLOPS.get(device_type, MAX_FLOPS["cpu"]) // flops_per_step)))

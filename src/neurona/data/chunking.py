"""Many optimiser steps per Lightning batch: how many, and where chunks end.

Lightning spends some 400 µs on every batch it is handed, as much as a small network needs for a whole step. So the
loader hands it chunks of mini-batches (Keras: ``steps_per_execution``), which end wherever something is to happen.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from neurona.devices.lightning_internals import is_last_batch, position, position_among_validations

Trainer = Any  # Lightning sets most of its attributes where no type checker finds them

MAX_LENGTH = 100
"""Most optimiser steps in a chunk: by then the overhead is 2 % of the smallest network's step, 7 % if compiled."""

MAX_FLOPS = {"cpu": 5e10, "mps": 1e12, "cuda": 5e13}
"""Most arithmetic in a chunk, under a second of the device, so that progress and signals are handled promptly."""


def takes_chunks(trainer: Trainer) -> bool:
    """Whether a fit steps through chunks; a Lightning batch is else one plain ``(features, targets)``."""
    return getattr(trainer.lightning_module, "is_fast", False)


def next_length(trainer: Trainer) -> int:
    """Mini-batches in the next chunk, by configuration and counters alone; 0 at the end of the epoch."""
    remaining, module = int(trainer.num_training_batches) - position(trainer), trainer.lightning_module
    if remaining <= 0 or not takes_chunks(trainer):
        return max(min(remaining, 1), 0)
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
    intervals += [getattr(callback, "every_n_steps", None) for callback in trainer.callbacks]
    for interval in filter(None, intervals):
        yield to_step((trainer.global_step // interval + 1) * interval)
    if isinstance(trainer.val_check_batch, int):
        yield trainer.val_check_batch - position_among_validations(trainer) % trainer.val_check_batch


def is_step_complete(trainer: Trainer) -> bool:
    """Whether no accumulated gradient waits for more mini-batches, at the end of a batch."""
    return is_last_batch(trainer) or position(trainer) % trainer.lightning_module.optimization.accumulate == 0


def is_over(trainer: Trainer) -> bool:
    """Whether the epoch that ends now may be the fit's last."""
    is_last_epoch = trainer.max_epochs not in (None, -1) and trainer.current_epoch + 1 >= trainer.max_epochs
    return trainer.should_stop or is_last_epoch or trainer.global_step >= trainer.max_steps > -1


def most_steps(num_parameters: int, samples_per_step: int, device_type: str) -> int:
    """Optimiser steps that a chunk may hold."""
    most = MAX_FLOPS.get(device_type, MAX_FLOPS["cpu"]) // flops(num_parameters, samples_per_step)
    return int(max(1, min(MAX_LENGTH, most)))


def flops(num_parameters: int, samples: int) -> int:
    """Of forward and backward pass: 2 and 4 operations per parameter and sample."""
    return 6 * num_parameters * samples

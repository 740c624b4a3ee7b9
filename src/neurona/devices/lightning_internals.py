"""The inside of Lightning's Trainer, as far as the project reads or changes it: all of that is in this file.

Each function says what it relies on, and its test fails with Lightning's name for it should that change.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from lightning.fabric.utilities.data import sized_len
from lightning.pytorch.callbacks import WeightAveraging

Trainer = Any  # Lightning sets most of its attributes where no type checker finds them


def without_signal_handlers(trainer: Trainer) -> Trainer:
    """The Trainer without signal handlers of its own, which would wait for other ranks inside the handler, and without
    the collective operation before every batch that goes with them.

    Every stage of a Trainer calls ``_signal_connector.register_signal_handlers``; the training loop calls
    ``_broadcast_sigterm_tensor`` before every batch where there are several processes.
    """
    trainer._signal_connector.register_signal_handlers = lambda: None
    trainer.fit_loop.epoch_loop._broadcast_sigterm_tensor = lambda: None
    return trainer


def end_epochs_once(trainer: Trainer) -> None:
    """With max_steps, Lightning would end the epoch of a checkpoint from an epoch's end once more.

    ``fit_loop._iteration_based_training`` decides on that and on nothing else.
    """
    trainer.fit_loop._iteration_based_training = lambda: False


def position(trainer: Trainer) -> int:
    """Mini-batches of this epoch already taken: what ``batch_progress`` has as ready, also after a resume."""
    return trainer.fit_loop.epoch_loop.batch_progress.current.ready


def position_among_validations(trainer: Trainer) -> int:
    """Mini-batches that ``val_check_interval`` counts: those of this epoch, or of all where epochs do not count."""
    progress = trainer.fit_loop.epoch_loop.batch_progress
    return (progress.total if trainer.check_val_every_n_epoch is None else progress.current).ready


def validation_follows(trainer: Trainer) -> bool:
    """Whether the batch that has just ended is followed by a validation, before the next one is taken.

    ``_should_check_val_fx`` is what the training loop asks after ``on_train_batch_end``; it changes nothing.
    """
    return trainer.fit_loop.epoch_loop._should_check_val_fx(trainer.fit_loop._data_fetcher)


def ends_epoch(trainer: Trainer) -> bool:
    """Whether the batch that has just ended is the epoch's last, be it that the fit ends: ``epoch_loop.done``."""
    return trainer.is_last_batch or trainer.fit_loop.epoch_loop.done


def is_last_batch(trainer: Trainer) -> bool:
    """Whether the batch that has just ended is the last of its epoch, be its number known beforehand or not."""
    return trainer.fit_loop.epoch_loop.batch_progress.is_last_batch


def begin_mini_batch(trainer: Trainer, rows: int) -> None:
    """Makes what ``self.log`` is given count for so many rows: ``_results.batch_size`` is what it asks."""
    trainer._results.batch_size = rows


def logged_step(trainer: Trainer) -> int:
    """The step that loggers are given now: in a fit zero-based, as ``self.log`` has it; in a test after it, the number
    of steps, as Lightning's own logging has it.
    """
    return max(trainer.global_step - 1, 0) if trainer.state.fn == "fit" else trainer.global_step


def count_step(trainer: Trainer) -> None:
    """Makes Lightning count an optimiser step that it has not seen; ``trainer.global_step`` is the number of those
    completed, under manual optimisation in ``manual_optimization.optim_step_progress``.
    """
    counter = trainer.fit_loop.epoch_loop.manual_optimization.optim_step_progress.total
    counter.ready, counter.completed = counter.ready + 1, counter.completed + 1


def count_steps_of_either_way(loops: dict[str, Any], *, automatic: bool) -> None:
    """Has the state of loops in a checkpoint count its optimiser steps where a fit that goes on from it looks for them,
    under automatic optimisation or under manual, whichever made them.

    They are in ``epoch_loop.automatic_optimization.optim_progress`` or ``manual_optimization.optim_step_progress``; the
    one not in use stays as it was.
    """
    state = loops["fit_loop"]
    counters = (
        state["epoch_loop.manual_optimization.optim_step_progress"]["total"],
        state["epoch_loop.automatic_optimization.optim_progress"]["optimizer"]["step"]["total"],
    )
    counters[automatic].update(max(counters, key=lambda counter: counter["completed"]))


def state_to_save(trainer: Trainer) -> dict[str, Any]:
    """What ``trainer.save_checkpoint`` would write: ``_checkpoint_connector.dump_checkpoint``, all of it."""
    return trainer._checkpoint_connector.dump_checkpoint(weights_only=False)


def catch_up_plateaus(trainer: Trainer) -> None:
    """Has ReduceLROnPlateau look at the figures of the epoch that a fit goes on from, as Lightning has it do once the
    checkpoint of the epoch is written.

    ``restarted_on_epoch_end`` and ``resumed_on_epoch_end`` of the ``fit_loop`` tell that there is such an epoch; the
    rest is what its ``epoch_loop.update_lr_schedulers`` does.
    """
    loop = trainer.fit_loop
    if not (loop.restarted_on_epoch_end or loop.resumed_on_epoch_end):
        return
    for config in trainer.lr_scheduler_configs:
        is_due = config.interval == "epoch" and trainer.current_epoch % config.frequency == 0
        if config.reduce_on_plateau and is_due and config.monitor in trainer.callback_metrics:
            loop.epoch_loop.scheduler_progress.increment_ready()
            trainer.lightning_module.lr_scheduler_step(config.scheduler, trainer.callback_metrics[config.monitor])
            loop.epoch_loop.scheduler_progress.increment_completed()


def averages(trainer: Trainer) -> list[torch.nn.Module]:
    """The copies of the module in which weights are averaged: ``_average_model`` of every WeightAveraging callback."""
    callbacks = [callback for callback in trainer.callbacks if isinstance(callback, WeightAveraging)]
    return [callback._average_model.module for callback in callbacks if callback._average_model is not None]


def advance(trainer: Trainer, batches: int) -> None:
    """Makes Lightning's counters say ``batches`` mini-batches for the batch it has just run (it counts one itself).

    ``_batches_that_stepped`` is the step that loggers are given, zero-based, increased by one after this.
    """
    loop = trainer.fit_loop.epoch_loop
    progress = loop.batch_progress
    for tracker in (progress.total, progress.current):
        for name in ("ready", "started", "processed", "completed"):
            setattr(tracker, name, getattr(tracker, name) + batches - 1)
    progress.is_last_batch |= progress.current.ready >= trainer.num_training_batches
    loop._batches_that_stepped = trainer.global_step - 1


def begin_epoch_again(trainer: Trainer, batches: int) -> None:
    """Has the training loader begin its epoch anew, and passes over the mini-batches that have been taken of it.

    The ``_data_fetcher`` holds the loader's iterator; to those that it has ``fetched`` the loop adds, as it goes on,
    those taken before.
    """
    fetcher = trainer.fit_loop._data_fetcher
    iter(fetcher)
    for _ in range(batches):
        next(fetcher)
    fetcher.fetched -= batches


def look_ahead(trainer: Trainer) -> None:
    """Has a training loader without a length tell its last batch beforehand under ``limit_train_batches`` too.

    Where the loader has ``limits``, the ``_data_fetcher`` takes those for its length, and a stream that ends before
    seems to go on: the last accumulated gradients would wait for the next epoch, and the validation would be left out.
    Without, it reads one batch ahead. ``max_batches`` holds the limit by itself; a ``val_check_batch``
    of infinity stands for the last batch.
    """
    loop = trainer.fit_loop
    if loop._data_fetcher.length is None or all(sized_len(one) is not None for one in loop._combined_loader.flattened):
        return
    loop._combined_loader.limits = None
    iter(loop._data_fetcher)
    if trainer.val_check_interval == 1.0:
        trainer.val_check_batch = math.inf

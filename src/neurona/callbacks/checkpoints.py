"""Keeps the checkpoints of a run: the best by a validation figure, the last, and the one before that."""

from __future__ import annotations

import contextlib
import math
from pathlib import Path
from typing import Any, Literal

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import Checkpoint
from lightning.pytorch.utilities.model_helpers import is_overridden

from neurona.callbacks.save_timer import SaveTimer
from neurona.data import chunking
from neurona.devices import lightning_internals
from neurona.devices.preemption import Preemption
from neurona.errors import ConfigError, RunError, check_range
from neurona.runs.checkpoint import AtomicCheckpointIO
from neurona.runs.files import link
from neurona.runs.folder import PREVIOUS
from neurona.runs.plain import require_readable
from neurona.steps.training import scalars


class BestAndLast(Checkpoint):
    """Writes ``best.ckpt`` into ``folder`` when a validation improves on ``monitor`` (without one, the last is it) and
    ``last.ckpt`` after every epoch, but besides the first and the fit's last no more than one a second, and no more
    than take a hundredth of the time: where the best comes sooner, both wait in memory. A best of a validation within
    an epoch is written at once.

    every_n_steps, every_minutes: also ``last.ckpt`` after so many optimiser steps, and so much time without one; null
    for never. The one before stays as ``previous.ckpt``. At any moment the best is as new as what the last remembers.
    keep_last: whether both stay once the run has finished, from which it could train on; null: unless it is a sweep's.
    """

    chunk_aware = True

    def __init__(
        self,
        folder: str,
        *,
        monitor: str = "val/loss",
        mode: Literal["min", "max"] = "min",
        every_n_steps: int | None = None,
        every_minutes: float | None = 5.0,
        keep_last: bool | None = None,
    ) -> None:
        check_range("trainer.callbacks.checkpoints.every_n_steps", every_n_steps, least=1)
        check_range("trainer.callbacks.checkpoints.every_minutes", every_minutes, above=0)
        self.best_path = Path(folder) / "best.ckpt"
        self.last_path = Path(folder) / "last.ckpt"
        self.timer = SaveTimer(every_n_steps, math.inf if every_minutes is None else 60 * every_minutes)
        self.keeps_last = keep_last is not False
        self.monitor = monitor
        self.sign = 1 if mode == "min" else -1
        self.best: dict[str, Any] = {}
        """epoch, step, score and, once the epoch has ended, all figures of the best checkpoint."""
        self.last: dict[str, float] = {}
        """The figures of the last validation."""
        self._before: dict[str, Any] = {}  # what was reported before it
        self._is_checked = self._is_best_held = False
        self.preemption = Preemption()
        """Reports signals."""

    @property
    def every_n_steps(self) -> int | None:
        """The number of optimiser steps after which a chunk ends, so that a checkpoint can be written."""
        return self.timer.every_n_steps

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.timer.start(trainer.global_step)
        self.preemption.deferred = True
        self._is_checked = self._is_best_held = False

    def on_train_batch_start(self, trainer: Trainer, *args: Any, **kwargs: Any) -> None:
        """Refuses, before the first step, a state that could be written but not read."""
        if self._is_checked:
            return
        self._is_checked = True
        try:
            contents = lightning_internals.state_to_save(trainer)
        except Exception:  # of a hook that counts on steps: if it fails later too, then at the first checkpoint
            return
        callbacks, data = trainer.callbacks, trainer.datamodule  # type: ignore[attr-defined]
        require_readable(contents, trainer.lightning_module, data, callbacks)

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._before = dict(trainer.callback_metrics)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.state.fn != "fit" or trainer.sanity_checking:
            return
        if self.monitor not in trainer.callback_metrics:
            problem = f"is not a metric of this run; choose one of {', '.join(sorted(trainer.callback_metrics))}"
            raise ConfigError("trainer.callbacks.checkpoints.monitor", self.monitor, problem)
        reported = trainer.callback_metrics  # by whatever name; what is not of this validation is what it was before
        self.last = {k: v for k, v in scalars(trainer).items() if reported[k] is not self._before.get(k)}
        score = self.sign * trainer.callback_metrics[self.monitor].item()
        score = math.inf if math.isnan(score) else score
        if not self.best or score < self.best["score"]:
            self._set_best(trainer, score)
            self.best["figures"] = self.last
            # At the end of an epoch one checkpoint, made next, serves as both: if it is of the network validated.
            self._is_best_held = trainer.is_last_batch and may_change_afterwards(trainer)
            if self._is_best_held:
                self._hold_best(trainer)
            elif not trainer.is_last_batch:
                trainer.save_checkpoint(self.best_path)
        self._save_if_due(trainer)

    def on_validation_batch_end(self, trainer: Trainer, *args: Any, **kwargs: Any) -> None:
        if trainer.state.fn != "fit" or trainer.sanity_checking:
            return
        if trainer.strategy.reduce_boolean_decision(self.preemption.is_overdue, all=False):
            self.preemption.leave(self.preemption.agreed(trainer), trainer)

    def on_train_batch_end(self, trainer: Trainer, *args: Any, **kwargs: Any) -> None:
        self.timer.count(trainer.global_step)
        self._listen(trainer)
        # One from before a validation would, on a resume, go on behind it: without what it tells plateau and best.
        if not lightning_internals.validation_follows(trainer):
            self._save_if_due(trainer)

    def _listen(self, trainer: Trainer, *, at_epoch_end: bool = False) -> None:
        """Has a checkpoint made, the same on every rank, if any rank's signal asks for one, or rank 0's clock."""
        is_time = trainer.is_global_zero and self.timer.is_time(at_epoch_end=at_epoch_end)
        if trainer.strategy.reduce_boolean_decision(is_time or self.preemption.received != 0, all=False):
            self.timer.request(self.preemption.agreed(trainer))

    def _save_if_due(self, trainer: Trainer) -> None:
        # Half of an accumulated gradient would be lost. An epoch that ends has yet to be reported, and then saves.
        if self.timer.is_due and chunking.is_step_complete(trainer) and not lightning_internals.ends_epoch(trainer):
            for logger in trainer.loggers:
                logger.save()
            self._save_last(trainer)
            self._leave_on_signal(trainer)

    def _leave_on_signal(self, trainer: Trainer) -> None:
        if self.timer.signal:
            self.preemption.leave(self.timer.signal, trainer)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._listen(trainer, at_epoch_end=True)
        is_over = chunking.is_over(trainer)
        saves = self.timer.is_due_at_epoch_end(trainer.current_epoch, is_over=is_over)
        if (saves and not trainer.enable_validation) or (is_over and not self.best):
            self._set_best(trainer, math.inf)  # no validation has said which is
        if self.best and self.best["epoch"] == trainer.current_epoch:
            # The validation that made it the best may not have been the epoch's last.
            self.best["figures"] = scalars(trainer) | self.best["figures"]
        is_best = self.best.get("step") == trainer.global_step and not self._is_best_held
        self._is_best_held = False
        if saves:
            self._save_last(trainer, is_best=is_best)
        elif is_best:
            self._hold_best(trainer)
        self._leave_on_signal(trainer)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.preemption.deferred = False
        self._listen(trainer)  # to what has come since the last step
        self._leave_on_signal(trainer)

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Has the best that waits written, and as the last too: else a fit that goes on would not know of it. Not
        one made before the end of its epoch, which a fit that goes on from there would report twice.
        """
        writer = trainer.strategy.checkpoint_io
        with contextlib.suppress(RunError, ConfigError):  # the disk may be what has failed, or what is to be stored
            if isinstance(writer, AtomicCheckpointIO) and writer.write_held() and not may_change_afterwards(trainer):
                self._link_last()

    def remove_last(self) -> None:
        """Removes all checkpoints of a finished run except the best."""
        for path in (self.last_path, self.last_path.with_name(PREVIOUS)):
            path.unlink(missing_ok=True)

    def _save_last(self, trainer: Trainer, *, is_best: bool = False) -> None:
        with self.timer.saving():
            if is_best:
                trainer.save_checkpoint(self.best_path)
                if trainer.is_global_zero:
                    self._link_last()
            else:
                if trainer.is_global_zero:
                    self._keep_previous()
                trainer.save_checkpoint(self.last_path)

    def _hold_best(self, trainer: Trainer) -> None:
        trainer.save_checkpoint(self.best_path, storage_options={AtomicCheckpointIO.HOLD: True})

    def _link_last(self) -> None:
        """Makes the best the last as well."""
        self._keep_previous()
        link(self.best_path, self.last_path)

    def _keep_previous(self) -> None:
        if self.last_path.exists():
            link(self.last_path, self.last_path.with_name(PREVIOUS))

    def _set_best(self, trainer: Trainer, score: float) -> None:
        self.best = {"epoch": trainer.current_epoch, "step": trainer.global_step, "score": score, "figures": {}}

    def state_dict(self) -> dict[str, Any]:
        return {"best": self.best, "last": self.last}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.best, self.last = state_dict["best"], state_dict["last"]


def may_change_afterwards(trainer: Trainer) -> bool:
    """Whether somebody's code may leave another network than the one just validated: at the end of an epoch, as an
    average that is updated then does, or of the validation, as one that was put in the network's place for it does.
    """
    callbacks: list[Callback] = trainer.callbacks  # type: ignore[attr-defined]
    others = [callback for callback in callbacks if not type(callback).__module__.startswith("neurona.")]
    hooks = ("on_validation_end", "on_train_epoch_end")
    return any(is_overridden(hook, trainer.lightning_module, LightningModule) for hook in hooks) or any(
        is_overridden("on_train_epoch_end", callback, Callback) for callback in others
    )

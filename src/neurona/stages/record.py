"""A stage's ``metrics.json``, kept true whatever happens: how a run began, went on and ended."""

from __future__ import annotations

import contextlib
import errno
import logging
import math
import time
from collections.abc import Iterator
from typing import Any

from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import Timer
from lightning.pytorch.utilities.exceptions import MisconfigurationException, SIGTERMException
from omegaconf import OmegaConf

from neurona.callbacks.early_stopping import EarlyStopping
from neurona.classifier import Classifier
from neurona.config.interpolations import masked
from neurona.config.nodes import path_of
from neurona.config.overrides import in_shell, typed
from neurona.devices import distributed
from neurona.errors import HopelessRun, RunError, UserError
from neurona.runs.files import unwritable
from neurona.runs.folder import RunFolder
from neurona.stages import console
from neurona.stages.request import Request

log = logging.getLogger("neurona")

OUTCOME = ("status", "error", "stopped_by")
"""Figures that are no longer true when a fit continues."""


@contextlib.contextmanager
def recorded(request: Request, folder: RunFolder, trainer: Trainer, classifier: Classifier) -> Iterator[dict[str, Any]]:
    """Yields the run's figures and keeps the stage's ``metrics.json`` true: running, finished, pruned, failed or
    interrupted.

    The figures of a run that goes on stay until there are newer ones. Raises RunError where the disk is full.
    """
    stage, preemption = request.cfg.stage, request.preemption
    figures: dict[str, Any] = {"status": "running", "stage": stage, "num_parameters": classifier.num_parameters}
    figures |= {"epochs": 0, "steps": 0}
    figures |= {name: value for name, value in folder.metrics().items() if name not in OUTCOME}

    def write() -> None:
        if trainer.global_step:
            figures["epochs"], figures["steps"] = epochs(trainer), trainer.global_step
        folder.write_metrics(figures, stage)

    preemption.is_expendable = False
    write()
    try:
        with console.quiet_writers(), ends_explained(folder), preemption.kept_from_workers():
            yield figures
    except BaseException as error:
        figures["status"] = "failed" if isinstance(error, Exception) else "interrupted"
        first_line = (str(error).splitlines() or [type(error).__name__])[0]
        figures["error"] = first_line if isinstance(error, Exception) else preemption.name or first_line
        figures["error"] = masked(figures["error"], str(OmegaConf.to_container(request.cfg)))
        remedy = f"; to continue: {request.command([typed('run', folder.path)])}"
        goes_on = stage == "fit" and _goes_on(folder, error)
        log.info("%s%s", figures["status"], remedy if goes_on else f": {folder.path}")
        with contextlib.suppress(RunError):  # the disk may be what failed
            write()
        raise
    figures["status"] = "pruned" if figures["stopped_by"] == "pruning" else "finished"
    write()


def _goes_on(folder: RunFolder, error: BaseException) -> bool:
    """Whether a fit may end differently if it is continued or started again."""
    if isinstance(error, HopelessRun):
        return False
    is_of_machine = isinstance(error, RunError) or not isinstance(error, Exception)
    return is_of_machine or folder.last_checkpoint.is_file()


@contextlib.contextmanager
def timed(figures: dict[str, Any]) -> Iterator[None]:
    """Adds ``seconds``, those that the body has taken, to the figures."""
    started = time.perf_counter()
    yield
    figures["seconds"] = round(time.perf_counter() - started, 3)


@contextlib.contextmanager
def ends_explained(folder: RunFolder) -> Iterator[None]:
    """Lightning leaves with 1 on Ctrl-C; callers are to see an interruption, and a RunError where the folder is gone,
    the disk is full or has become read-only, or another process of the run is gone.
    """
    try:
        with _presence_explained(folder):
            yield
    except SIGTERMException:
        raise
    except SystemExit:
        raise KeyboardInterrupt from None
    except MisconfigurationException as error:
        raise UserError(" ".join(str(error).split())) from error
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EROFS):
            raise
        raise unwritable(folder.path, error) from error
    except RuntimeError as error:
        if not distributed.is_lost(error):
            raise
        reason = str(error).rpartition("]")[2].strip() or type(error).__name__
        problem = f"another process of this run has ended or cannot be reached ({reason})"
        raise RunError(f"{problem}; to continue: python train.py {in_shell('run', folder.path)}") from error


@contextlib.contextmanager
def _presence_explained(folder: RunFolder) -> Iterator[None]:
    """Whatever fails once the folder is gone fails for that."""
    try:
        yield
    except Exception as error:
        if not folder.is_gone:
            raise
        raise HopelessRun(f"{folder.path}: has been removed or moved while the run was at work in it") from error


def epochs(trainer: Trainer) -> int:
    """Epochs made; ``current_epoch`` would leave out the last one of a fit that a resume found ended."""
    progress: Any = trainer.fit_loop.epoch_progress.current
    return progress.processed


def require_steps(trainer: Trainer, classifier: Classifier) -> None:
    """Raises HopelessRun for a fit that took no step. Lightning counts one for each loss that was left out."""
    step = f"{path_of(type(classifier))}.training_step"
    if trainer.fit_loop.epoch_loop.batch_progress.total.ready == 0:
        why = "the training loader gave no mini-batch"
    elif classifier.is_fast or not classifier.automatic_optimization:
        why = "" if trainer.global_step else f"{step} called step() of no optimiser that self.optimizers() gives"
    else:
        is_without_loss = classifier.samples_taken == 0 and math.isnan(classifier.epoch_means()[0])
        why = f"{step} has returned None for all mini-batches; return the loss" if is_without_loss else ""
    if why:
        raise HopelessRun(f"no step was taken: {why}")


def why_ended(trainer: Trainer) -> tuple[str, str]:
    """What ended a fit, as ``stopped_by`` in ``metrics.json``, and in words."""
    if -1 != trainer.max_steps <= trainer.global_step:
        return "max_steps", "trainer.max_steps is reached"
    if trainer.max_epochs is not None and -1 != trainer.max_epochs <= epochs(trainer):
        return "max_epochs", "trainer.max_epochs is reached"
    for callback in trainer.callbacks:  # type: ignore[attr-defined]
        if isinstance(callback, Timer) and (callback.time_remaining() or 0) <= 0:
            return "max_time", "the time of trainer.max_time is up"
        if isinstance(callback, EarlyStopping) and callback.has_stopped:
            reason = f"{callback.monitor} has not improved for {callback.wait_count} validations"
            return "early_stopping", f"early stopping: {reason}"
        if end := getattr(callback, "ended_fit", None):
            return end
    return "callback", "a callback has ended the fit"

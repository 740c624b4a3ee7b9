"""A stage's run folder, and its ``metrics.json`` kept true whatever happens."""

from __future__ import annotations

import contextlib
import errno
import logging
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from lightning.pytorch import Trainer
from lightning.pytorch.utilities.exceptions import SIGTERMException

from neurona.classifier import Classifier, NonFiniteLoss
from neurona.devices import distributed
from neurona.devices.preemption import Preemption
from neurona.errors import ConfigError, RunError
from neurona.runs.files import unwritable
from neurona.runs.folder import RunFolder
from neurona.stages import console
from neurona.stages.request import Request

log = logging.getLogger("neurona")

HOW_IT_ENDED = ("status", "error", "stopped_by")
"""Figures that do not hold once a fit goes on."""


def create_folder(path: Path, trainer: Trainer) -> RunFolder:
    """The new run's folder: rank 0 makes it, the others learn what it is called."""
    made = RunFolder.create(path) if trainer.is_global_zero else None
    named = trainer.strategy.broadcast(str(made.path) if made else "")
    return made or RunFolder(Path(named))


def open_folder(request: Request) -> RunFolder:
    """The folder of the run that a stage works on, held until the stage has ended. Raises ConfigError without one."""
    cfg = request.cfg
    if cfg.run is None:
        raise ConfigError("stage", cfg.stage, "works on an earlier run: add run=<its folder>")
    return request.on_exit.enter_context(RunFolder.open(Path(cfg.run)))


def new_folder(choices: Mapping[str, str]) -> str:
    """Where a new run goes that was given no folder."""
    name = choices.get("experiment") or choices["data"]
    return f"logs/{name}/{time.strftime('%Y-%m-%d_%H-%M-%S')}"


@contextlib.contextmanager
def recorded(
    folder: RunFolder, trainer: Trainer, classifier: Classifier, preemption: Preemption, stage: str
) -> Iterator[dict[str, Any]]:
    """Yields the run's figures and keeps the stage's ``metrics.json`` true: running, finished, pruned, failed or
    interrupted.

    The figures of a run that goes on stay until there are newer ones. Raises RunError where the disk is full.
    """
    figures: dict[str, Any] = {"status": "running", "stage": stage, "num_parameters": classifier.num_parameters}
    figures |= {"epochs": 0, "steps": 0}
    figures |= {name: value for name, value in folder.metrics().items() if name not in HOW_IT_ENDED}

    def write() -> None:
        if trainer.global_step:
            figures["epochs"], figures["steps"] = epochs(trainer), trainer.global_step
        folder.write_metrics(figures, stage)

    write()
    try:
        with console.quiet_writers(), ends_explained(folder), preemption.kept_from_workers():
            yield figures
    except BaseException as error:
        figures["status"] = "failed" if isinstance(error, Exception) else "interrupted"
        first_line = (str(error).splitlines() or [type(error).__name__])[0]
        figures["error"] = first_line if isinstance(error, Exception) else preemption.name or first_line
        goes_on = stage == "fit" and not isinstance(error, NonFiniteLoss)  # the same would become of it again
        remedy = "; to continue: python train.py run=" if goes_on else ": "
        log.info("%s%s%s", figures["status"], remedy, folder.path)
        with contextlib.suppress(RunError):  # the disk may be what failed
            write()
        raise
    figures["status"] = "pruned" if figures["stopped_by"] == "pruning" else "finished"
    write()


@contextlib.contextmanager
def ends_explained(folder: RunFolder) -> Iterator[None]:
    """Lightning leaves with 1 on Ctrl-C; callers are to see an interruption, and a RunError where the disk is full or
    has become read-only, or another process of the run is gone.
    """
    try:
        yield
    except SIGTERMException:
        raise
    except SystemExit:
        raise KeyboardInterrupt from None
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EROFS):
            raise
        raise unwritable(folder.path, error) from error
    except RuntimeError as error:
        if not distributed.is_lost(error):
            raise
        reason = str(error).rpartition("]")[2].strip() or type(error).__name__
        problem = f"another process of this run has ended or cannot be reached ({reason})"
        raise RunError(f"{problem}; to continue: python train.py run={folder.path}") from error


def epochs(trainer: Trainer) -> int:
    """Epochs made; ``current_epoch`` would leave out the last one of a fit that a resume found ended."""
    progress: Any = trainer.fit_loop.epoch_progress.current
    return progress.processed

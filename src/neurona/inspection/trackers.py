"""Trackers such as W&B and MLflow: each run has one run of the tracker, which begins, ends and continues with it."""

from __future__ import annotations

import contextlib
import json
import re
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from lightning.pytorch.loggers import Logger, MLFlowLogger, WandbLogger

from neurona.errors import RunError
from neurona.inspection.loggers import Csv, TensorBoard
from neurona.runs.files import write_atomically

FILE = "trackers.json"
"""In a run's folder: by a logger's name, the argument that has it go on with the tracker's run."""

ARGUMENTS: dict[type[Logger], str] = {WandbLogger: "id", MLFlowLogger: "run_id"}
"""What Lightning's loggers call the tracker's run."""


def of_run(folder: Path) -> dict[str, dict[str, str]]:
    """By name, arguments for the loggers of a run that goes on; none where its file is damaged."""
    try:
        stored = json.loads((folder / FILE).read_text(encoding="utf-8"))
        return {
            name: {key: value}
            for name, arguments in stored.items()
            for key, value in arguments.items()
            if key in ARGUMENTS.values() and re.fullmatch(r"[\w-]{1,128}", value)
        }
    except (OSError, ValueError, TypeError, AttributeError):
        return {}


@contextlib.contextmanager
def tracked(loggers: Mapping[str, Logger], parameters: Mapping[str, Any], folder: Path | None) -> Iterator[None]:
    """Has the trackers' runs begin or go on, with the parameters of this one, and end as the body does.

    loggers: by their names. folder: the run's; None of a process that does not write. Raises RunError where what is to
    go on is not there any more.
    """
    is_others = getattr(sys.modules.get("wandb"), "run", None) is not None  # which Lightning's logger writes into
    before = of_run(folder) if folder else {}
    names: dict[str, dict[str, str]] = {}
    status = "failed"
    try:
        for name, logger in loggers.items():
            if not isinstance(logger, TensorBoard | Csv):
                _begin(name, logger, parameters, before)
            argument = next((argument for kind, argument in ARGUMENTS.items() if isinstance(logger, kind)), None)
            if folder and argument and not (is_others and isinstance(logger, WandbLogger)):
                names[name] = {argument: str(logger.version)}
        if folder and names != before:
            write_atomically(folder / FILE, json.dumps(names, indent=2) + "\n")
        yield
        status = "success"
    finally:
        for name, logger in loggers.items():
            logger.finalize(status)
            if isinstance(logger, WandbLogger) and name in names:
                logger.experiment.finish(exit_code=int(status == "failed"))


def _begin(name: str, logger: Logger, parameters: Mapping[str, Any], before: Mapping[str, Any]) -> None:
    """The parameters make a tracker begin; MLflow takes no other values for those that it has."""
    if name not in before or not isinstance(logger, MLFlowLogger):
        # A store of MLflow's in files would take optimizer/schedule to be in a folder.
        logger.log_hyperparams({key.replace("/", "_"): value for key, value in parameters.items()})
        return
    try:
        logger.experiment.update_run(logger.run_id, status="RUNNING")
    except Exception as error:
        problem = f"MLflow run {before[name]['run_id']} cannot be continued ({' '.join(str(error).split())})"
        raise RunError(f"logger.{name}: {problem}; remove {FILE} from the run's folder to begin a new one") from error

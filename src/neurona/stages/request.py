"""What a stage is asked to do, and the run folder that it does it in."""

from __future__ import annotations

import contextlib
import shlex
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hydra.core.override_parser.types import Override
from lightning.pytorch import Trainer
from omegaconf import DictConfig

from neurona.config.overrides import parse
from neurona.devices.preemption import Preemption
from neurona.errors import ConfigError
from neurona.runs import configuration
from neurona.runs.folder import RunFolder


@dataclass(frozen=True)
class Request:
    """cfg: the configuration, checked. choices: of its groups. overrides: as they were given. on_exit: what is to be
    closed once the stage has ended. preemption: the signals of this process. arrays: the data, where Python holds them.
    """

    cfg: DictConfig
    choices: Mapping[str, str]
    overrides: Sequence[str]
    on_exit: contextlib.ExitStack
    preemption: Preemption
    arrays: Mapping[str, Any] | None = None

    def place(self) -> str:
        """Where a new run goes: the folder asked for, or one named after experiment or data (debug, of a run that is
        for that), and the time.
        """
        if self.cfg.folder:
            return self.cfg.folder
        group = "debug" if self.cfg.debugging else self.choices.get("experiment") or self.choices["data"]
        return f"logs/{group}/{time.strftime('%Y-%m-%d_%H-%M-%S')}"

    def command(self, overrides: Sequence[str]) -> str:
        """What is typed to have this done with other overrides, in a shell or, where Python holds the data, there."""
        if self.arrays is None:
            return shlex.join(["python", "train.py", *overrides])
        return f"neurona.fit(X, y, {list(overrides)})"

    def create_folder(self, trainer: Trainer) -> RunFolder:
        """The folder of a new run, at ``cfg.folder`` or under a name like it, held until the stage has ended.

        Rank 0 makes it, the other processes learn what it is called.
        """
        folder = RunFolder.create(Path(self.cfg.folder)) if trainer.is_global_zero else None
        path = trainer.strategy.broadcast(str(folder.path) if folder else "")
        return self.on_exit.enter_context(folder or RunFolder(Path(path)))

    def open_folder(self) -> RunFolder:
        """The folder of the run at ``cfg.run``, held until the stage has ended. Raises ConfigError without one."""
        if self.cfg.run is None:
            raise ConfigError("stage", self.cfg.stage, "works on an earlier run: add run=<its folder>")
        return self.on_exit.enter_context(RunFolder.open(Path(self.cfg.run)))

    def beside_run(self, folder: RunFolder | None) -> list[Override]:
        """The overrides that the run in a folder was not begun with; all, of a new one."""
        own = configuration.overrides(folder.path) if folder is not None else ()
        return [override for override in parse(self.overrides) if override.input_line not in own]

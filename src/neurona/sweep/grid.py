"""Hydra's own sweeper, every combination of the values given, without composing each job before the first begins.

``BasicSweeper`` is hydra-core's default sweeper, which it exports from its ``_internal`` package alone. What is relied
on: ``sweep`` asks ``split_arguments`` for the batches, and ``validate_batch_is_legal`` before it launches each.
``Plugins`` imports it anew as it looks for plugins, so this module must be imported afterwards.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.override_parser.types import Override

from neurona.config.overrides import value
from neurona.errors import ConfigError
from neurona.runs.jobs import folders
from neurona.sweep import names
from neurona.sweep.launcher import Processes, announce, checked


class Grid(BasicSweeper):
    """params: overrides of an experiment, the command line's before them."""

    def validate_batch_is_legal(self, batch: Sequence[Sequence[str]]) -> None:
        if isinstance(self.launcher, Processes):  # it checks, and then uses, what it has composed
            return
        assert self.config is not None
        assert self.hydra_context is not None
        loader = self.hydra_context.config_loader
        for overrides in batch:
            checked(loader, self.config, overrides)
        announce(self.config)

    def sweep(self, arguments: list[str]) -> Any:
        result = super().sweep(arguments)
        if not any(result):
            raise ConfigError("--multirun", " ".join(arguments), "gives no job; a range or a choice in it is empty")
        return result

    def split_arguments(  # type: ignore[override]  # BasicSweeper's needs no self
        self, overrides: list[Override], max_batch_size: int | None
    ) -> list[list[list[str]]]:
        """Each batch's jobs, each with the name of its folder."""
        for override in overrides:
            if override.is_sweep_override() and not override.is_discrete_sweep():
                raise ConfigError(override.get_key_element(), value(override), "is for a search: add sweep=optuna")
        batches = BasicSweeper.split_arguments(overrides, max_batch_size)
        lines = [job for batch in batches for job in batch]
        varying = [index for index, column in enumerate(zip(*lines, strict=True)) if len(set(column)) > 1]
        assert self.config is not None
        begun, number = folders(Path(str(self.config.hydra.sweep.dir))), itertools.count()
        return [
            [names.with_folder(next(number), job, [job[index] for index in varying], begun) for job in batch]
            for batch in batches
            if batch
        ]
